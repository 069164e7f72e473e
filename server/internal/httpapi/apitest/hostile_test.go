package apitest_test

import (
	"net/http"
	"strings"
	"testing"
)

// Row 40: what cannot be read, or could be read in two ways, is refused with the rule and, where there is one, the place.
func TestHostileBodiesAreRefusedWithPlaceAndRule(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme")
	for _, one := range []struct {
		name, body, pointer, rule string
		status                    int
	}{
		{name: "nested 10,000 deep", body: strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), status: 400},
		{name: "nested in an object", body: strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000), status: 400},
		{name: "brackets that never close", body: strings.Repeat("[{", 400_000), status: 400},
		{name: "a member named twice", body: `{"partner":"acme","licensed_users":1,"licensed_users":2}`, pointer: "/licensed_users", rule: "duplicate", status: 400},
		{name: "named twice by an escape", body: `{"partner":"acme","p\u0061rtner":"beta"}`, pointer: "/partner", rule: "duplicate", status: 400},
		{name: "an unknown field", body: `{"partner":"acme","licenced_users":1}`, pointer: "/licenced_users", rule: "unknown", status: 422},
		{name: "another case", body: `{"partner":"acme","Licensed_Users":1}`, pointer: "/Licensed_Users", rule: "unknown", status: 422},
		{name: "a name with a slash", body: `{"partner":"acme","a/b~c":1}`, pointer: "/a~1b~0c", rule: "unknown", status: 422},
		{name: "invalid UTF-8", body: "{\"partner\":\"ac\xffme\"}", status: 400},
		{name: "half a surrogate", body: `{"time_zone":"\ud800"}`, status: 422, pointer: "/time_zone", rule: "time_zone"},
		{name: "a NUL", body: `{"time_zone":"a\u0000b"}`, pointer: "/time_zone", rule: "characters", status: 422},
		{name: "a control character in a name", body: `{"a\u0001":1}`, status: 422},
		{name: "two values", body: `{} {}`, status: 400},
		{name: "no JSON", body: `hello`, status: 400},
		{name: "cut", body: `{"partner":"ac`, status: 400},
		{name: "null", body: `null`, status: 422},
		{name: "a list", body: `[]`, status: 422},
		{name: "a byte-order mark", body: "\ufeff{}", status: 400},
		{name: "a huge number", body: `{"licensed_users":1e400}`, pointer: "/licensed_users", rule: "type", status: 422},
		{name: "a fraction", body: `{"licensed_users":1.5}`, pointer: "/licensed_users", rule: "type", status: 422},
		{name: "too many", body: `{"licensed_users":10000001}`, pointer: "/licensed_users", rule: "maximum", status: 422},
		{name: "too few", body: `{"licensed_users":-1}`, pointer: "/licensed_users", rule: "minimum", status: 422},
		{name: "a text for a number", body: `{"licensed_users":"1"}`, pointer: "/licensed_users", rule: "type", status: 422},
		{name: "null for a number", body: `{"licensed_users":null}`, pointer: "/licensed_users", rule: "nullable", status: 422},
		{name: "no choice", body: `{"users_may_send_as":"all"}`, pointer: "/users_may_send_as", rule: "enum", status: 422},
		{name: "no zone", body: `{"time_zone":"Europe/Atlantis"}`, pointer: "/time_zone", rule: "time_zone", status: 422},
		{name: "no address", body: `{"contacts":["admin@acme.example","nobody"]}`, pointer: "/contacts/1", rule: "email", status: 422},
		{name: "too many contacts", body: `{"contacts":[` + strings.TrimSuffix(strings.Repeat(`"a@b.example",`, 21), ",") + `]}`, pointer: "/contacts", rule: "maxItems", status: 422},
	} {
		t.Run(one.name, func(t *testing.T) {
			allocating(t, func() {
				answer := w.do(t, call{method: "PUT", path: "/v1/domains/acme.example", token: w.Token, body: one.body})
				answer.wants(t, one.status, "invalid-request")
				found := one.pointer == ""
				for _, field := range answer.problem(t).Errors {
					found = found || field.Pointer == one.pointer && field.Rule == one.rule
					if one.rule == "enum" && len(field.Choices) != 2 {
						t.Errorf("choices %v", field.Choices)
					}
				}
				if !found {
					t.Errorf("got %s, want %s at %s", answer.body, one.rule, one.pointer)
				}
			})
		})
	}
}

// One problem names all fields that are wrong.
func TestAProblemListsEveryInvalidField(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme")
	answer := w.do(t, call{
		method: "PUT", path: "/v1/domains/acme.example", token: w.Token,
		body: `{"licensed_users":-1,"users_may_send_as":"all","surprise":1}`,
	})
	if fields := answer.problem(t).Errors; answer.status != http.StatusUnprocessableEntity || len(fields) != 3 {
		t.Errorf("got %d %s", answer.status, answer.body)
	}
}

func TestWrongMediaTypesAndBodiesWhereNoneIsTakenAreRefused(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	for _, one := range []struct {
		method, path, kind, body string
		status                   int
	}{
		{"PUT", "/v1/domains/" + s.domain, "text/plain", "{}", 415},
		{"PUT", "/v1/domains/" + s.domain, "", "{}", 415},
		{"PUT", "/v1/domains/" + s.domain, "application/merge-patch+json", "{}", 415},
		{"PATCH", "/v1/domains/" + s.domain, "application/json", "{}", 415},
		{"PUT", "/v1/domains/" + s.domain, "application/json; charset=utf-8", `{}`, 200},
		{"PUT", "/v1/domains/" + s.domain, "application/json", "", 400},
		{"POST", "/v1/domains/" + s.domain + "/resume", "application/json", "{}", 400},
		{"GET", "/v1/domains/" + s.domain, "application/json", "{}", 400},
		{"DELETE", "/v1/domains/" + s.domain, "application/json", "{}", 400},
	} {
		answer := w.do(t, call{method: one.method, path: one.path, token: w.Token, body: one.body, header: http.Header{"Content-Type": {one.kind}}})
		if answer.status != one.status {
			t.Errorf("%s %s as %q: got %d %s, want %d", one.method, one.body, one.kind, answer.status, answer.body, one.status)
		}
	}
}

func TestHostileQueriesAndPathsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme")
	for path, status := range map[string]int{
		"/v1/domains?partnr=acme":                              400, // misspelt, it would list everything
		"/v1/domains?partner=acme&partner=beta":                400,
		"/v1/domains?partner=%00":                              400,
		"/v1/domains?partner=%ff":                              400,
		"/v1/domains?status=none":                              400,
		"/v1/domains?%zz":                                      400,
		"/v1/domains?page_token=x":                             400,
		"/v1/domains?page_token=" + "AAAAAAAAAAAAAAAAAAAAAAAA": 400,
		"/v1/domains/%00.example":                              400,
		"/v1/domains/%ff.example":                              400,
		"/v1/domains/a%2Fb.example":                            400,
		"/v1/domains/..%2F..%2Fetc":                            400,
		"/v1/relay-ips/%0d%0aX-Injected:%20yes":                400,
		"/v1/relay-ips/'%20OR%201=1--":                         404,
		"/v1/partners/ACME":                                    400,
		"/v1/quota-reports?from=2026-02-30":                    400,
		"/v1/quota-reports?from=2026-03-01&to=2026-02-01":      400,
		"/v1/relay-ips?address=300.1.1.1":                      400,
		"/v1/domains//":                                        404,
		"/v1/domains/":                                         404,
	} {
		answer := w.do(t, call{method: "GET", path: path, token: w.Token})
		if answer.status != status {
			t.Errorf("%s: got %d %s, want %d", path, answer.status, answer.body, status)
		}
	}
}
