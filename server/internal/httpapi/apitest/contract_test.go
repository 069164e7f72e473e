package apitest_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// bodySchema is the schema of an operation's JSON body.
func bodySchema(op operation) *openapi3.Schema {
	if op.declared.RequestBody == nil {
		return nil
	}
	for kind, media := range op.declared.RequestBody.Value.Content {
		if strings.HasSuffix(kind, "json") {
			return media.Schema.Value
		}
	}
	return nil
}

// shownBy is the schema of what an operation answers when it succeeds.
func shownBy(op operation) *openapi3.Schema {
	for _, status := range []int{http.StatusOK, http.StatusCreated} {
		if answer := op.declared.Responses.Status(status); answer != nil {
			if media := answer.Value.Content["application/json"]; media != nil {
				return media.Schema.Value
			}
		}
	}
	return nil
}

func TestControl6NoRequestBodyTakesPropertiesThatTheContractDoesNotName(t *testing.T) {
	for _, op := range operations(t) {
		if schema := bodySchema(op); schema != nil {
			closed(t, op.id, schema, map[*openapi3.Schema]bool{})
		}
	}
}

func closed(t *testing.T, at string, schema *openapi3.Schema, seen map[*openapi3.Schema]bool) {
	t.Helper()
	if seen[schema] {
		return
	}
	seen[schema] = true
	if schema.Type.Is("object") && (schema.AdditionalProperties.Has == nil || *schema.AdditionalProperties.Has) {
		t.Errorf("%s takes unknown properties", at)
	}
	for name, property := range schema.Properties {
		closed(t, at+"/"+name, property.Value, seen)
	}
	if schema.Items != nil {
		closed(t, at+"/-", schema.Items.Value, seen)
	}
}

// What is shown and cannot be written, such as an id, a state or a version, is refused and not ignored.
func TestControl6ReadOnlyPropertiesCannotBeWritten(t *testing.T) {
	w := newWorld(t)
	nobody, tried := absent(), 0
	for _, op := range operations(t) {
		schema, shown := bodySchema(op), shownBy(op)
		example, isObject := op.example.(map[string]any)
		if schema == nil || !isObject {
			continue
		}
		names := []string{"surprise"}
		if shown != nil {
			names = append(names, slices.Collect(maps.Keys(shown.Properties))...)
		}
		for _, name := range names {
			if _, writable := schema.Properties[name]; writable {
				continue
			}
			body := maps.Clone(example)
			body[name] = "x"
			token := w.Token
			if op.scope == "edge" {
				_, token = w.joinEdge(t)
			}
			answer := w.do(t, call{method: op.method, path: nobody.address(t, op.path), token: token, body: body})
			fields := answer.problem(t).Errors
			unknown := slices.ContainsFunc(fields, func(f invalidField) bool { return f.Pointer == "/"+name && f.Rule == "unknown" })
			if answer.status != http.StatusUnprocessableEntity || !unknown {
				t.Errorf("%s with %q: got %d %s", op.id, name, answer.status, answer.body)
			}
			tried++
		}
	}
	if tried < 60 {
		t.Errorf("only %d properties were tried", tried)
	}
}

func TestControl6WriteOnlyPropertiesAreNeverShown(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	const password = "correct horse battery staple"
	w.ask(t, "POST", "/v1/users", map[string]any{"address": "anna@" + s.domain, "password": password})
	route := w.ask(t, "POST", "/v1/routes", map[string]any{"domain": s.domain, "host": "smarthost.example.net", "username": "relay", "password": password})
	if route["has_password"] != true {
		t.Errorf("the route is shown as %v", route)
	}
	w.ask(t, "PATCH", "/v1/routes/"+text(route, "id"), map[string]any{"password": password + "!"})
	w.ask(t, "POST", "/v1/users/anna@"+s.domain+"/rotate-password", map[string]any{"password": password})
	for _, op := range operations(t) {
		for name, property := range propertiesOf(shownBy(op)) {
			if property.WriteOnly {
				t.Errorf("%s shows the write-only %s", op.id, name)
			}
		}
		if !op.reads() || len(parametersOf(op.path)) > 0 || op.scope == "edge" {
			continue
		}
		if answer := w.do(t, call{method: "GET", path: op.path, token: w.Token}); strings.Contains(string(answer.body), password) {
			t.Errorf("%s shows the password", op.id)
		}
	}
	for _, path := range []string{"/v1/users/anna@" + s.domain, "/v1/routes/" + text(route, "id")} {
		if answer := w.do(t, call{method: "GET", path: path, token: w.Token}); strings.Contains(string(answer.body), password) {
			t.Errorf("%s shows the password", path)
		}
	}
}

// Whoever may change a route must not be able to read its password at a host of their own.
func TestControl6TheHostOfARouteChangesOnlyWithItsPassword(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme")
	path := "/v1/routes/" + text(w.ask(t, "POST", "/v1/routes", map[string]any{
		"domain": "acme.example", "host": "h.example", "username": "u", "password": "p",
	}), "id")
	patch := func(body map[string]any) reply {
		return w.do(t, call{method: "PATCH", path: path, token: w.Token, body: body})
	}
	moved := patch(map[string]any{"host": "elsewhere.example"})
	moved.wants(t, http.StatusUnprocessableEntity, "")
	if errors := moved.problem(t).Errors; len(errors) != 1 || errors[0].Pointer != "/password" || errors[0].Rule != "required" {
		t.Errorf("the problem names %+v", errors)
	}
	patch(map[string]any{"host": "H.example.", "port": 465}).wants(t, http.StatusOK, "")
	patch(map[string]any{"host": "elsewhere.example", "password": "p"}).wants(t, http.StatusOK, "")
	patch(map[string]any{"host": "third.example", "username": nil, "password": nil}).wants(t, http.StatusOK, "")
	patch(map[string]any{"host": "fourth.example"}).wants(t, http.StatusOK, "")
}

func propertiesOf(schema *openapi3.Schema) map[string]*openapi3.Schema {
	found := map[string]*openapi3.Schema{}
	if schema == nil {
		return found
	}
	for name, property := range schema.Properties {
		found[name] = property.Value
		if property.Value.Items != nil {
			maps.Copy(found, propertiesOf(property.Value.Items.Value))
		}
	}
	return found
}

// For every operation that takes If-Match.
func TestControl10AChangeIsHeldToTheVersionThatTheClientSaw(t *testing.T) {
	m := &matrix{world: newWorld(t)}
	tried := 0
	for _, op := range operations(t) {
		if op.declared.Parameters.GetByInAndName("header", "If-Match") == nil {
			if slices.Contains([]string{http.MethodPut, http.MethodPatch}, op.method) {
				t.Errorf("%s changes an object without If-Match", op.id)
			}
			continue
		}
		tried++
		s, a := m.ownScene(t, op, actor{role: "operator", token: m.Token})
		if strings.HasSuffix(op.path, "/quota-override") || strings.HasSuffix(op.path, "/bulk-exception") {
			m.prepareReads(t, s)
		}
		c := m.callOf(t, op, s, a.token)
		seen := m.do(t, call{method: "GET", path: c.path, token: a.token}).header.Get("ETag")
		for _, stale := range []string{`"999"`, "W/" + seen, `"`, "999"} {
			c.header = http.Header{"If-Match": {stale}}
			if answer := m.do(t, c); answer.status != http.StatusPreconditionFailed || answer.problem(t).Reason != "precondition-failed" {
				t.Errorf("%s with If-Match %s: got %d %s", op.id, stale, answer.status, answer.body)
			}
		}
		c.header = http.Header{"If-Match": {`"7", ` + seen}}
		answer := m.do(t, c)
		if answer.status > 299 {
			t.Errorf("%s with If-Match %s: got %d %s", op.id, seen, answer.status, answer.body)
		}
		if op.method != http.MethodDelete && answer.header.Get("ETag") == seen {
			t.Errorf("%s changed the object and not its ETag", op.id)
		}
	}
	if tried < 15 {
		t.Errorf("only %d operations were tried", tried)
	}
}

func TestControl10OfManyWhoSawTheSameVersionOneWins(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		s := w.scene(t, "acme")
		seen := w.do(t, call{method: "GET", path: "/v1/domains/" + s.domain, token: w.Token}).header.Get("ETag")
		statuses := make(chan int, 20)
		for i := range cap(statuses) {
			go func() {
				answer, err := w.settled(t.Context(), call{
					method: "PATCH", path: "/v1/domains/" + s.domain, token: w.Token,
					header: http.Header{"If-Match": {seen}}, body: fmt.Sprintf(`{"licensed_users":%d}`, 100+i),
				})
				if err != nil {
					answer.status = -1
				}
				statuses <- answer.status
			}()
		}
		counts := map[int]int{}
		for range cap(statuses) {
			counts[<-statuses]++
		}
		if counts[http.StatusOK] != 1 || counts[http.StatusPreconditionFailed] != cap(statuses)-1 {
			t.Errorf("statuses %v, want one 200 and the rest 412", counts)
		}
	})
}

func TestControl10NothingMatchesAnAbsentObject(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme")
	for _, tag := range []string{"*", `"0"`, `"1"`} {
		c := call{
			method: "PUT", path: "/v1/domains/new.example", token: w.Token, header: http.Header{"If-Match": {tag}},
			body: map[string]any{"partner": "acme"},
		}
		w.do(t, c).wants(t, http.StatusPreconditionFailed, "precondition-failed")
	}
}
