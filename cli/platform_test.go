package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"activerelay/api/problem"
)

const operatorToken = "rly_operator_test"

// platform answers like the control plane, from memory: enough of it for the
// commands that are written by hand. Every request is checked against the
// contract first, so a command that sends what the contract does not allow
// fails its test.
type platform struct {
	*httptest.Server
	router routers.Router

	mu      sync.Mutex
	objects map[string]map[string]map[string]any // by collection and key
	serial  int
	// changes are the operations, with their paths, that were not GET.
	changes []string
	// refuse answers an operation in place of the platform.
	refuse map[string]*problem.Problem
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	doc := load(t)
	doc.Servers = openapi3.Servers{{URL: "/"}}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{router: router, objects: map[string]map[string]map[string]any{}, refuse: map[string]*problem.Problem{}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

// desk is a place where the platform's operator sits.
func (p *platform) desk(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t)
	d.env["RELAYCTL_URL"], d.env["RELAYCTL_TOKEN"] = p.URL, operatorToken
	return d
}

// reset forgets which changes were made, and returns them.
func (p *platform) reset() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	changes := p.changes
	p.changes = nil
	return changes
}

func (p *platform) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("X-Request-Id", "req-test")
	route, params, err := p.router.FindRoute(r)
	if err != nil {
		refuse(w, problem.NotFound("path"))
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+operatorToken && len(*security(route)) > 0 {
		refuse(w, problem.Unauthenticated())
		return
	}
	err = openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true},
	})
	if err != nil {
		refuse(w, problem.Malformed(err.Error()))
		return
	}
	if answer, told := p.refuse[route.Operation.OperationID]; told {
		refuse(w, answer)
		return
	}
	if r.Method != http.MethodGet {
		p.changes = append(p.changes, strings.TrimSuffix(route.Operation.OperationID+" "+strings.Join(slices.Collect(maps.Values(params)), " "), " "))
	}
	body := map[string]any{}
	if r.Body != nil {
		_ = json.NewDecoder(r.Body).Decode(&body)
	}
	p.answer(w, r, route.Operation, params, body)
}

func security(route *routers.Route) *openapi3.SecurityRequirements {
	if route.Operation.Security != nil {
		return route.Operation.Security
	}
	return &route.Spec.Security
}

func refuse(w http.ResponseWriter, p *problem.Problem) {
	p.RequestID = "req-test"
	w.Header().Set("Content-Type", problem.ContentType)
	w.WriteHeader(p.Status)
	_ = problem.Encode(w, p)
}

// answer does what an operation says, by the first word of its id and the
// collection of its path.
func (p *platform) answer(w http.ResponseWriter, r *http.Request, operation *openapi3.Operation, params map[string]string, body map[string]any) {
	collection := strings.Split(r.URL.Path, "/")[2]
	key := first(params["partner"], params["domain"], params["address"], params["relay_ip_id"], params["route_id"])
	object := p.objects[collection][key]
	verb := operation.OperationID
	switch {
	case verb == "whoAmI":
		reply(w, 200, map[string]any{"token_id": "tok_1", "name": "operator", "role": "operator", "read_only": false, "scopes": []string{"domains:read"}})
	case strings.HasPrefix(verb, "list"):
		p.list(w, collection, r.URL.Query())
	case strings.HasPrefix(verb, "put"), strings.HasPrefix(verb, "create"), strings.HasPrefix(verb, "request"):
		p.create(w, collection, key, body)
	case object == nil:
		refuse(w, problem.NotFound(collection))
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != fmt.Sprint(object["etag"]):
		refuse(w, problem.PreconditionFailed())
	case strings.HasPrefix(verb, "get"):
		reply(w, 200, object)
	case strings.HasPrefix(verb, "delete"):
		delete(p.objects[collection], key)
		w.WriteHeader(http.StatusNoContent)
	default:
		p.change(w, verb, object, body)
	}
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

func (p *platform) create(w http.ResponseWriter, collection, key string, body map[string]any) {
	p.serial++
	object := map[string]any{"status": "active", "etag": fmt.Sprintf(`"%d"`, p.serial)}
	maps.Copy(object, body)
	switch collection {
	case "partners":
		object["slug"] = key
	case "domains":
		object["name"] = key
	case "relay-ips":
		key = fmt.Sprintf("rip_%d", p.serial)
		object["id"], object["state"] = key, "requested"
	case "routes":
		key = fmt.Sprintf("rte_%d", p.serial)
		_, has := body["password"]
		object["id"], object["has_password"] = key, has
	case "users":
		key, _ = body["address"].(string)
		_, object["domain"], _ = strings.Cut(key, "@")
	}
	delete(object, "password")
	if p.objects[collection] == nil {
		p.objects[collection] = map[string]map[string]any{}
	}
	p.objects[collection][key] = object
	shown := maps.Clone(object)
	if _, given := body["password"]; collection == "users" && !given {
		shown["password"] = "made-for-" + key
	}
	reply(w, 201, shown)
}

func (p *platform) change(w http.ResponseWriter, verb string, object, body map[string]any) {
	p.serial++
	object["etag"] = fmt.Sprintf(`"%d"`, p.serial)
	switch {
	case strings.HasPrefix(verb, "suspend"):
		object["status"], object["status_reason"] = "suspended", body["reason"]
	case strings.HasPrefix(verb, "resume"):
		object["status"] = "active"
	case verb == "activateRelayIP", verb == "enableRelayIP":
		object["state"] = "active"
	case verb == "disableRelayIP":
		object["state"], object["reason"] = "disabled", body["reason"]
	case strings.HasPrefix(verb, "update"):
		for name, value := range body { // RFC 7396
			if name == "password" {
				object["has_password"] = value != nil
				continue
			}
			if object[name] = value; value == nil {
				delete(object, name)
			}
		}
	}
	reply(w, 200, object)
}

// list answers two objects a page, so that every list of a test is followed.
func (p *platform) list(w http.ResponseWriter, collection string, query url.Values) {
	items := []any{}
	after := query.Get("page_token")
	answer := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(p.objects[collection])) {
		object := p.objects[collection][key]
		if key <= after || !matches(object, query, "domain") || !matches(object, query, "partner") {
			continue
		}
		if len(items) == 2 {
			answer["next_page_token"] = after
			break
		}
		items = append(items, without(object, "etag"))
		after = key
	}
	answer["items"] = items
	reply(w, 200, answer)
}

func matches(object map[string]any, query url.Values, name string) bool {
	return query.Get(name) == "" || query.Get(name) == object[name]
}

func reply(w http.ResponseWriter, status int, value any) {
	if object, ok := value.(map[string]any); ok && object["etag"] != nil {
		w.Header().Set("ETag", fmt.Sprint(object["etag"]))
		value = without(object, "etag")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func without(object map[string]any, name string) map[string]any {
	object = maps.Clone(object)
	delete(object, name)
	return object
}
