package servertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"activerelay/api/problem"
	"activerelay/api/reason"
	"activerelay/api/rest"
)

// Contract is a transport that holds every response which passes to openapi.yaml: status, headers and body, and the
// reason of a problem to those that the operation declares. A response that breaks it fails the test.
type Contract struct {
	tb   testing.TB
	next http.RoundTripper
	spec *openapi3.T

	ended     atomic.Bool
	internal  atomic.Bool
	mu        sync.Mutex
	exercised map[string]map[int]bool
}

// maxComplaint is how much is said of a body that breaks its schema, in bytes.
const maxComplaint = 1000

// NewContract returns a transport for the test. [Server] has one already.
func NewContract(tb testing.TB) *Contract {
	tb.Helper()
	spec, err := spec()
	if err != nil {
		tb.Fatal(err)
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		tb.Fatal("the default transport was replaced")
	}
	c := &Contract{tb: tb, next: transport.Clone(), spec: spec, exercised: map[string]map[int]bool{}}
	tb.Cleanup(func() {
		c.ended.Store(true)
		c.CloseIdleConnections()
	})
	return c
}

// spec reads the contract once for the whole test program; nothing writes to it.
var spec = sync.OnceValues(rest.GetSpec)

// CloseIdleConnections lets go of the connections that no call is using.
func (c *Contract) CloseIdleConnections() {
	if transport, ok := c.next.(*http.Transport); ok {
		transport.CloseIdleConnections()
	}
}

// Serve makes all calls go to a handler in this process instead of over the network.
func (c *Contract) Serve(handler http.Handler) { c.next = inProcess{handler} }

type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(request *http.Request) (*http.Response, error) {
	served := httptest.NewRequestWithContext(request.Context(), request.Method, request.URL.RequestURI(), request.Body)
	served.Header, served.ContentLength = request.Header.Clone(), request.ContentLength
	recorder := httptest.NewRecorder()
	p.handler.ServeHTTP(recorder, served)
	return recorder.Result(), nil
}

// AllowInternal says whether a response may be an internal error, for a test that breaks the database.
func (c *Contract) AllowInternal(allowed bool) { c.internal.Store(allowed) }

// Exercised returns the statuses that each operation has answered so far, by operation id.
func (c *Contract) Exercised() map[string][]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	statuses := map[string][]int{}
	for id, seen := range c.exercised {
		for status := range seen {
			statuses[id] = append(statuses[id], status)
		}
		slices.Sort(statuses[id])
	}
	return statuses
}

// RoundTrip makes the call and looks at what comes back.
func (c *Contract) RoundTrip(request *http.Request) (*http.Response, error) {
	reply, err := c.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(reply.Body)
	if closing := reply.Body.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return nil, err
	}
	reply.Body = io.NopCloser(bytes.NewReader(body))
	if broken := c.Check(request, reply, body); broken != nil && !c.ended.Load() {
		c.tb.Errorf("%s %s answers %d against the contract: %v", request.Method, request.URL.EscapedPath(), reply.StatusCode, broken)
	}
	return reply, nil
}

// Check says what is wrong with the response to a request, whose body was read.
func (c *Contract) Check(request *http.Request, reply *http.Response, body []byte) error {
	broken := []error{checkHeaders(request, reply)}
	route, parameters := FindRoute(c.spec, request.Method, request.URL.EscapedPath())
	if reply.StatusCode >= http.StatusBadRequest && !(route != nil && slices.Contains(declaredStatuses(route), reply.StatusCode)) {
		broken = append(broken, c.checkProblem(route, reply, body))
	}
	if route == nil {
		return errors.Join(append(broken, errUnlessProblem(reply))...)
	}
	c.note(route.Operation.OperationID, reply.StatusCode)
	return errors.Join(append(broken, checkDeclaredHeaders(route, reply), validate(request, reply, body, route, parameters))...)
}

func errUnlessProblem(reply *http.Response) error {
	if reply.StatusCode < http.StatusBadRequest {
		return errors.New("the contract has no such operation")
	}
	return nil
}

func (c *Contract) note(id string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exercised[id] == nil {
		c.exercised[id] = map[int]bool{}
	}
	c.exercised[id][status] = true
}

func validate(request *http.Request, reply *http.Response, body []byte, route *routers.Route, parameters map[string]string) error {
	if reply.StatusCode == http.StatusNoContent && len(body) > 0 {
		return errors.New("204 with a body")
	}
	kind, _, err := mime.ParseMediaType(reply.Header.Get("Content-Type"))
	textual := err == nil && !strings.HasSuffix(kind, "json")
	if declared := route.Operation.Responses.Status(reply.StatusCode); textual && (declared == nil || declared.Value.Content[kind] == nil) {
		return fmt.Errorf("undeclared type %s", kind)
	}
	err = openapi3filter.ValidateResponse(request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: request, PathParams: parameters, Route: route,
		},
		Status: reply.StatusCode, Header: reply.Header, Body: io.NopCloser(bytes.NewReader(body)),
		// What is no JSON is a text without structure, which the validator cannot decode.
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, ExcludeResponseBody: textual},
	})
	if err != nil {
		return errors.New(err.Error()[:min(len(err.Error()), maxComplaint)])
	}
	return nil
}

// checkHeaders holds a response to the manners that all share.
func checkHeaders(request *http.Request, reply *http.Response) error {
	var broken []error
	if reply.Header.Get("X-Request-Id") == "" {
		broken = append(broken, errors.New("no X-Request-Id"))
	}
	if reply.Header.Get("Cache-Control") != "no-store" {
		broken = append(broken, errors.New("may be cached"))
	}
	if reply.Header.Get("X-Content-Type-Options") != "nosniff" {
		broken = append(broken, errors.New("its type may be guessed"))
	}
	if reply.StatusCode == http.StatusUnauthorized && reply.Header.Get("WWW-Authenticate") == "" {
		broken = append(broken, errors.New("401 without WWW-Authenticate"))
	}
	if replayed := reply.Header.Get("Idempotent-Replayed"); replayed != "" && request.Header.Get("Idempotency-Key") == "" {
		broken = append(broken, errors.New("replayed without an Idempotency-Key"))
	}
	return errors.Join(broken...)
}

// commonHeaders are those that the introduction of the contract promises for all operations, and HTTP's own.
var commonHeaders = []string{
	"X-Request-Id", "Cache-Control", "X-Content-Type-Options", "Content-Type", "Content-Length", "Date", "Connection", "Vary",
	"Ratelimit", "Ratelimit-Policy", "Retry-After", "Www-Authenticate", "Idempotent-Replayed", "Allow",
}

// checkDeclaredHeaders refuses headers that nobody has heard of.
func checkDeclaredHeaders(route *routers.Route, reply *http.Response) error {
	declared := route.Operation.Responses.Status(reply.StatusCode)
	var broken []error
	for name := range reply.Header {
		known := slices.Contains(commonHeaders, name)
		if declared != nil && declared.Value != nil {
			for header := range declared.Value.Headers {
				known = known || http.CanonicalHeaderKey(header) == name
			}
		}
		if !known {
			broken = append(broken, fmt.Errorf("undeclared header %s", name))
		}
	}
	return errors.Join(broken...)
}

// declaredStatuses lists the statuses that an operation names; all others are its default, a problem.
func declaredStatuses(route *routers.Route) []int {
	var statuses []int
	for text := range route.Operation.Responses.Map() {
		var status int
		if _, err := fmt.Sscanf(text, "%d", &status); err == nil {
			statuses = append(statuses, status)
		}
	}
	return statuses
}

// commonReasons may be answered by every operation: the introduction of the contract names them, or they are about
// reading a request at all.
var commonReasons = []reason.Slug{
	reason.InvalidRequest, reason.Unauthenticated, reason.Forbidden, reason.RateLimited, reason.Unavailable,
	reason.BodyTooLarge, reason.HeaderTooLarge, reason.URITooLong, reason.UnsupportedMediaType, reason.RequestTimeout,
}

// checkProblem holds a problem to RFC 9457, to the reason registry and to the x-problems of its operation. An internal
// error is always a mistake of ours.
func (c *Contract) checkProblem(route *routers.Route, reply *http.Response, body []byte) error {
	if kind := reply.Header.Get("Content-Type"); kind != problem.ContentType {
		return fmt.Errorf("an error of type %q: %s", kind, body)
	}
	var told struct {
		Type      string      `json:"type"`
		Status    int         `json:"status"`
		Reason    reason.Slug `json:"reason"`
		RequestID string      `json:"request_id"`
		Retry     int         `json:"retry_after_seconds"`
	}
	if err := json.Unmarshal(body, &told); err != nil {
		return err
	}
	var broken []error
	entry, known := reason.Lookup(told.Reason)
	switch {
	case !known:
		broken = append(broken, fmt.Errorf("unknown reason %q", told.Reason))
	case told.Type != problem.TypePrefix+string(told.Reason):
		broken = append(broken, fmt.Errorf("type %q of reason %q", told.Type, told.Reason))
	case told.Status != reply.StatusCode:
		broken = append(broken, fmt.Errorf("status %d in the body", told.Status))
	case told.Status != entry.HTTPStatus && !(told.Reason == reason.InvalidRequest && told.Status == http.StatusUnprocessableEntity):
		broken = append(broken, fmt.Errorf("status %d, but the registry gives %s the status %d", told.Status, told.Reason, entry.HTTPStatus))
	case told.RequestID != reply.Header.Get("X-Request-Id"):
		broken = append(broken, errors.New("another request id in the body than in the header"))
	case (told.Retry > 0) != (reply.Header.Get("Retry-After") != ""):
		broken = append(broken, errors.New("Retry-After and retry_after_seconds disagree"))
	case !c.declares(route, told.Reason):
		broken = append(broken, fmt.Errorf("undeclared problem %s: %s", told.Reason, body))
	}
	return errors.Join(broken...)
}

func (c *Contract) declares(route *routers.Route, slug reason.Slug) bool {
	if route == nil {
		return slug == reason.NotFound || slug == reason.MethodNotAllowed || slices.Contains(commonReasons, slug)
	}
	if slug == reason.Internal && c.internal.Load() {
		return true
	}
	return slices.Contains(Problems(route.Operation), slug) || slices.Contains(commonReasons, slug)
}

// Problems returns the x-problems of an operation.
func Problems(operation *openapi3.Operation) []reason.Slug {
	var slugs []reason.Slug
	listed, _ := operation.Extensions["x-problems"].([]any)
	for _, one := range listed {
		name, _ := one.(string)
		slugs = append(slugs, reason.Slug(name))
	}
	return slugs
}

// FindRoute finds the operation of a request by its escaped path, with the values of its parameters. Fixed segments win
// over parameters.
func FindRoute(spec *openapi3.T, method, path string) (*routers.Route, map[string]string) {
	segments := strings.Split(path, "/")
	var best *routers.Route
	var found map[string]string
	for template, item := range spec.Paths.Map() {
		operation := item.GetOperation(method)
		if operation == nil {
			continue
		}
		parameters, matches := match(strings.Split(template, "/"), segments)
		if matches && (best == nil || len(parameters) < len(found)) {
			best = &routers.Route{Spec: spec, Path: template, PathItem: item, Method: method, Operation: operation}
			found = parameters
		}
	}
	return best, found
}

func match(template, segments []string) (map[string]string, bool) {
	if len(template) != len(segments) {
		return nil, false
	}
	parameters := map[string]string{}
	for i, part := range template {
		name, isParameter := strings.CutPrefix(part, "{")
		switch {
		case isParameter && segments[i] != "":
			value, err := url.PathUnescape(segments[i])
			if err != nil {
				return nil, false
			}
			parameters[strings.TrimSuffix(name, "}")] = value
		case part != segments[i]:
			return nil, false
		}
	}
	return parameters, true
}
