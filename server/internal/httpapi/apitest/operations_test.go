package apitest_test

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"activerelay/api/rest"
)

// operation is one operation of the contract as the tests see it.
type operation struct {
	id, method, path, scope string
	roles                   []string
	declared                *openapi3.Operation
	example                 any
}

// operations lists all operations of the contract in the order of their paths.
func operations(t testing.TB) []operation {
	t.Helper()
	spec, err := rest.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, item := range spec.Paths.Map() {
		for method, declared := range item.Operations() {
			op := operation{id: declared.OperationID, method: method, path: path, declared: declared}
			op.scope, _ = declared.Extensions["x-scope"].(string)
			roles, _ := declared.Extensions["x-roles"].([]any)
			for _, role := range roles {
				name, _ := role.(string)
				op.roles = append(op.roles, name)
			}
			if declared.RequestBody != nil {
				op.example = exampleOf(declared.RequestBody.Value)
				if op.example == nil {
					t.Errorf("%s has a body without an example", op.id)
				}
			}
			all = append(all, op)
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method)) })
	return all
}

func exampleOf(body *openapi3.RequestBody) any {
	for kind, media := range body.Content {
		if strings.HasSuffix(kind, "json") {
			return media.Schema.Value.Example
		}
	}
	return nil
}

func (op operation) reads() bool { return op.method == http.MethodGet }

func (op operation) allows(role string) bool { return slices.Contains(op.roles, role) }

// bodies are the bodies of operations that refer to other objects, of a scene; the others send their example.
func (w *world) bodies() map[string]func(*testing.T, scene) any {
	type object = map[string]any
	waiting := func(_ *testing.T, s scene) any { return object{"message_ids": []string{s.ids["message_id"]}} }
	return map[string]func(*testing.T, scene) any{
		"putDomain": func(_ *testing.T, _ scene) any { return object{"licensed_users": 40} },
		"batchPutDomains": func(_ *testing.T, s scene) any {
			return object{"domains": []object{{"name": s.domain, "licensed_users": 60}}}
		},
		"requestRelayIP": func(_ *testing.T, s scene) any { return object{"domain": s.domain, "address": "192.0.2.10"} },
		"createRoute": func(_ *testing.T, s scene) any {
			return object{"domain": s.domain, "recipient_domain": "dest.example", "host": "smarthost.example.net"}
		},
		"createUser": func(_ *testing.T, s scene) any { return object{"address": "new@" + s.domain} },
		"updateUser": func(_ *testing.T, _ scene) any { return object{"description": "front desk"} },
		"createToken": func(_ *testing.T, s scene) any {
			return object{"name": "shop", "role": "customer", "domain": s.domain}
		},
		"fileComplaint": func(t *testing.T, s scene) any { return object{"feedback_id": w.feedbackID(t, s)} },
		"retryQueue":    waiting,
		"holdQueue":     waiting,
		"releaseQueue":  waiting,
		"cancelQueue":   waiting,
		"joinEdge":      func(t *testing.T, _ scene) any { return w.joinBody(t) },
		"leaseQuota": func(_ *testing.T, _ scene) any {
			return object{"boot_nonce": "8f14e45fceea167a", "generation": 1, "sequence": 1, "leases": []object{}}
		},
	}
}

// queries are the queries of operations that need one.
func queries() map[string]string { return map[string]string{"getEdgeSecrets": "?id=feedback"} }

// bodyOf is a body that an operation takes.
func (w *world) bodyOf(t *testing.T, op operation, s scene) any {
	t.Helper()
	if op.declared.RequestBody == nil {
		return nil
	}
	if made, found := w.bodies()[op.id]; found {
		return made(t, s)
	}
	return op.example
}

// callOf is a call of an operation on the objects of a scene.
func (w *world) callOf(t *testing.T, op operation, s scene, token string) call {
	t.Helper()
	return call{
		method: op.method, path: s.address(t, op.path) + queries()[op.id], token: token,
		body: w.bodyOf(t, op, s),
	}
}
