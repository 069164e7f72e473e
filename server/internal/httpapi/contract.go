package httpapi

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"

	"activerelay/api"
	"activerelay/api/rest"
)

// Scopes that are not a token's: everybody, and whoever is authenticated.
const (
	scopePublic = "public"
	scopeSelf   = "self"
)

// operation is what the middleware must know of one operation of the contract.
type operation struct {
	id    string
	scope string
	roles []api.Role
	route *routers.Route
	// body reads request bodies at a tenth of the cost; nil leaves them to the validator.
	body *bodyReader
}

// contract is the embedded openapi.yaml, indexed.
type contract struct {
	// byRoute finds an operation by method, a space, and the path as echo writes it.
	byRoute map[string]*operation
	// scopes are the scopes that the operations of a role ask for.
	scopes map[api.Role][]api.Scope
	// page is the documentation page; it is made at its first use.
	page func() ([]byte, error)
}

func loadContract() (*contract, error) {
	document, err := rest.GetSpec()
	if err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	if err := document.Validate(context.Background(), openapi3.DisableExamplesValidation()); err != nil {
		return nil, fmt.Errorf("check the contract: %w", err)
	}
	return indexContract(document)
}

// indexContract is where an operation that nobody declared a scope for ends the start of the program.
func indexContract(document *openapi3.T) (*contract, error) {
	c := &contract{
		byRoute: map[string]*operation{}, scopes: map[api.Role][]api.Scope{},
		page: sync.OnceValues(func() ([]byte, error) { return docsPage(document) }),
	}
	readers := map[string]reflect.Type{"reportEvents": reflect.TypeFor[api.EventBatch]()}
	var problems []error
	for path, item := range document.Paths.Map() {
		for method, declared := range item.Operations() {
			op, err := newOperation(declared)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s %s: %w", method, path, err))
				continue
			}
			op.route = &routers.Route{Spec: document, Path: path, PathItem: item, Method: method, Operation: declared}
			if into := readers[op.id]; into != nil {
				if op.body, err = newBodyReader(declared.RequestBody.Value.Content["application/json"].Schema.Value, into); err != nil {
					problems = append(problems, fmt.Errorf("reader of the body of %s: %w", op.id, err))
				}
			}
			c.byRoute[method+" "+echoPath(path)] = op
			c.noteScope(op)
		}
	}
	return c, errors.Join(problems...)
}

func newOperation(declared *openapi3.Operation) (*operation, error) {
	op := &operation{id: declared.OperationID}
	op.scope, _ = declared.Extensions["x-scope"].(string)
	switch {
	case op.id == "":
		return nil, errors.New("no operation id")
	case op.scope == "":
		return nil, errors.New("no scope is declared, so nobody may call it")
	case op.scope != scopePublic && op.scope != scopeSelf && !api.Scope(op.scope).Valid():
		return nil, fmt.Errorf("unknown scope %q", op.scope)
	}
	roles, _ := declared.Extensions["x-roles"].([]any)
	for _, role := range roles {
		name, _ := role.(string)
		if !api.Role(name).Valid() {
			return nil, fmt.Errorf("unknown role %q", name)
		}
		op.roles = append(op.roles, api.Role(name))
	}
	if len(op.roles) == 0 {
		return nil, errors.New("no role is declared, so nobody may call it")
	}
	return op, nil
}

func (c *contract) noteScope(op *operation) {
	scope := api.Scope(op.scope)
	if !scope.Valid() {
		return
	}
	for _, role := range op.roles {
		if !slices.Contains(c.scopes[role], scope) {
			c.scopes[role] = append(c.scopes[role], scope)
			slices.Sort(c.scopes[role])
		}
	}
}

var pathParameter = regexp.MustCompile(`\{([^}]+)\}`)

// echoPath writes "/v1/partners/{partner}" as "/v1/partners/:partner".
func echoPath(path string) string { return pathParameter.ReplaceAllString(path, ":$1") }
