package apitest_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
)

// actor is one kind of caller of the matrix.
type actor struct {
	name, token, role string
	readOnly          bool
	// scopes are what the token may do; nil means all that the role may.
	scopes []string
}

// refuses returns the status and reason with which an actor is turned away before anything is looked at, or 0.
func (a actor) refuses(op operation) (int, string) {
	switch {
	case op.scope == "public":
		return 0, ""
	case a.role == "":
		return http.StatusUnauthorized, "unauthenticated"
	case !op.allows(a.role):
		return http.StatusForbidden, "forbidden"
	case op.scope == "self":
		return 0, ""
	case a.readOnly && !op.reads(), a.scopes != nil && !slices.Contains(a.scopes, op.scope):
		return http.StatusForbidden, "forbidden"
	}
	return 0, ""
}

// matrix is a world with two partners, all their objects, and everybody who may call.
type matrix struct {
	*world
	a, b   scene
	actors map[string]actor
	// sister is another domain of partner A.
	sister string
}

// unsharedParameters are those of objects that belong to no partner.
var unsharedParameters = []string{"edge_id", "join_token_id"}

func newMatrix(t *testing.T) *matrix {
	t.Helper()
	m := &matrix{world: newWorld(t), actors: map[string]actor{}}
	parameters := slices.Sorted(maps.Keys(m.makers()))
	m.a, m.b = m.scene(t, "acmefirm", parameters...), m.scene(t, "betafirm", parameters...)
	m.sister = "sister-of-" + m.a.domain
	m.ask(t, "PUT", "/v1/domains/"+m.sister, map[string]any{"partner": m.a.partner})
	for _, s := range []scene{m.a, m.b} {
		m.prepareReads(t, s)
	}
	add := func(name, role string, body map[string]any) {
		token, _ := m.newToken(t, body)
		a := actor{name: name, token: token, role: role, readOnly: body["read_only"] == true}
		a.scopes, _ = body["scopes"].([]string)
		m.actors[name] = a
	}
	add("operator", "operator", map[string]any{"role": "operator"})
	add("operator, read-only", "operator", map[string]any{"role": "operator", "read_only": true})
	add("partner A", "partner", map[string]any{"role": "partner", "partner": m.a.partner})
	add("partner A, read-only", "partner", map[string]any{"role": "partner", "partner": m.a.partner, "read_only": true})
	add("partner A, one scope", "partner", map[string]any{"role": "partner", "partner": m.a.partner, "scopes": []string{"users:read"}})
	add("partner B", "partner", map[string]any{"role": "partner", "partner": m.b.partner})
	add("customer of A", "customer", map[string]any{"role": "customer", "domain": m.a.domain})
	add("customer of A, read-only", "customer", map[string]any{"role": "customer", "domain": m.a.domain, "read_only": true})
	_, edge := m.joinEdge(t)
	m.actors["edge"] = actor{name: "edge", token: edge, role: "edge"}
	revoked, id := m.newToken(t, map[string]any{"role": "operator"})
	m.ask(t, "DELETE", "/v1/tokens/"+id, nil)
	m.actors["revoked"] = actor{name: "revoked", token: revoked}
	m.actors["none"] = actor{name: "none"}
	for _, a := range m.actors { // the first use of a token is noted, which costs a statement
		m.do(t, call{method: "GET", path: "/v1/whoami", token: a.token})
	}
	return m
}

// prepareReads makes what reads of a domain show.
func (w *world) prepareReads(t *testing.T, s scene) {
	t.Helper()
	for _, id := range []string{"getQuotaOverride", "getBulkException"} {
		preparations()[id](t, w, s, w.Token)
	}
}

// preparations bring an object into the state that an operation acts on.
func preparations() map[string]func(t *testing.T, w *world, s scene, token string) {
	override := func(t *testing.T, w *world, s scene, _ string) {
		w.ask(t, "PUT", "/v1/domains/"+s.domain+"/quota-override", map[string]any{
			"limit": 5000, "expires_at": morning.AddDate(0, 1, 0), "reason": "invoices of " + s.partner,
		})
	}
	bulk := func(t *testing.T, w *world, s scene, _ string) {
		w.ask(t, "PUT", "/v1/domains/"+s.domain+"/bulk-exception", map[string]any{"mode": "observe", "reason": "tool of " + s.partner})
	}
	activate := func(t *testing.T, w *world, s scene, _ string) {
		w.ask(t, "POST", "/v1/relay-ips/"+s.ids["relay_ip_id"]+"/activate", nil)
	}
	suspend := func(path func(scene) string) func(*testing.T, *world, scene, string) {
		return func(t *testing.T, w *world, s scene, _ string) {
			w.ask(t, "POST", path(s)+"/suspend", map[string]any{"reason": "test"})
		}
	}
	return map[string]func(*testing.T, *world, scene, string){
		"resumePartner":    suspend(func(s scene) string { return "/v1/partners/" + s.partner }),
		"resumeDomain":     suspend(func(s scene) string { return "/v1/domains/" + s.domain }),
		"resumeUser":       suspend(func(s scene) string { return "/v1/users/" + s.ids["address"] }),
		"getQuotaOverride": override, "deleteQuotaOverride": override, "getBulkException": bulk, "deleteBulkException": bulk,
		"disableRelayIP": activate,
		"enableRelayIP": func(t *testing.T, w *world, s scene, token string) {
			activate(t, w, s, token)
			w.askAs(t, token, "POST", "/v1/relay-ips/"+s.ids["relay_ip_id"]+"/disable", map[string]any{"reason": "test"})
		},
		"deletePartner": func(t *testing.T, w *world, s scene, _ string) { w.ask(t, "DELETE", "/v1/domains/"+s.domain, nil) },
	}
}

// Row 38: function level. Whoever may not call an operation is told so in the same words whatever it names, and nothing
// changes.
func TestMatrixWhoMayNotCallAnOperationIsRefusedAndChangesNothing(t *testing.T) {
	m := newMatrix(t)
	entries := m.auditLength(t)
	cells := 0
	for _, op := range operations(t) {
		c := m.callOf(t, op, m.a, "")
		for _, name := range slices.Sorted(maps.Keys(m.actors)) {
			status, reason := m.actors[name].refuses(op)
			if status == 0 {
				continue
			}
			cells++
			c.token = m.actors[name].token
			answer := m.do(t, c)
			if answer.status != status || answer.problem(t).Reason != reason {
				t.Errorf("%s as %s: got %d %s, want %d %s", op.id, name, answer.status, answer.body, status, reason)
			}
		}
	}
	// callOf makes join tokens, edges and a complaint token for bodies; whoever was refused made nothing.
	if after := m.auditLength(t); after-entries > 4 {
		t.Errorf("%d changes were audited", after-entries)
	}
	for _, actor := range []string{"partner A, read-only", "partner B", "customer of A", "edge", "revoked", "none"} {
		if by := m.changesBy(t, actor); by > 0 {
			t.Errorf("%s made %d changes", actor, by)
		}
	}
	if cells < 300 {
		t.Errorf("only %d cells were tried", cells)
	}
}

func (m *matrix) auditLength(t *testing.T) int {
	t.Helper()
	items, _ := m.ask(t, "GET", "/v1/audit?page_size=200", nil)["items"].([]any)
	return len(items)
}

func (m *matrix) changesBy(t *testing.T, name string) int {
	t.Helper()
	me := m.do(t, call{method: "GET", path: "/v1/whoami", token: m.actors[name].token})
	if me.status != http.StatusOK {
		return 0
	}
	items, _ := m.ask(t, "GET", "/v1/audit?actor="+text(me.json(t), "token_id"), nil)["items"].([]any)
	return len(items)
}

// Row 38: what an actor may do on its own objects it can do.
func TestMatrixWhoMayCallAnOperationCanOnItsOwnObjects(t *testing.T) {
	m := newMatrix(t)
	for _, op := range operations(t) {
		for _, name := range []string{"operator", "operator, read-only", "partner A", "partner A, read-only", "customer of A", "edge"} {
			a := m.actors[name]
			if status, _ := a.refuses(op); status != 0 || op.scope == "public" && name != "partner A" {
				continue
			}
			s := m.a
			if !op.reads() {
				s, a = m.ownScene(t, op, a)
			}
			answer := m.do(t, m.callOf(t, op, s, a.token))
			if answer.status < 200 || answer.status > 299 {
				t.Errorf("%s as %s: got %d %s, want success", op.id, name, answer.status, answer.body)
			}
		}
	}
}

// ownScene makes new objects of one operation, and a token that owns them: what is written would be in the way of the
// other cells.
func (m *matrix) ownScene(t *testing.T, op operation, a actor) (scene, actor) {
	t.Helper()
	m.serial++
	parameters := append(parametersOf(op.path), "domain", "partner")
	if op.scope == "queue:write" {
		parameters = append(parameters, "message_id")
	}
	s := m.scene(t, fmt.Sprintf("own%d", m.serial), parameters...)
	switch a.role {
	case "partner":
		a.token, _ = m.newToken(t, map[string]any{"role": "partner", "partner": s.partner})
	case "customer":
		a.token, _ = m.newToken(t, map[string]any{"role": "customer", "domain": s.domain})
	case "edge":
		_, a.token = m.joinEdge(t)
	}
	if prepare, found := preparations()[op.id]; found {
		prepare(t, m.world, s, a.token)
	}
	return s, a
}

// madeByPUT are the operations that make what is absent, so that absent and foreign objects cannot be answered alike.
var madeByPUT = []string{"putDomain"}

// Row 38, controls 4 and 5: objects of another partner, or of another domain, are answered like absent ones: the same
// bytes, at the same number of database statements.
func TestMatrixForeignObjectsAreAnsweredLikeAbsentOnes(t *testing.T) {
	m := newMatrix(t)
	sister := m.fill(t, scene{partner: m.a.partner, domain: m.sister, ids: map[string]string{}},
		"domain", "address", "relay_ip_id", "route_id", "complaint_id", "ref", "message_id")
	cells := 0
	for _, op := range operations(t) {
		for _, cell := range []struct {
			actor string
			owner scene
		}{{"partner B", m.a}, {"customer of A", m.b}, {"customer of A", sister}} {
			a := m.actors[cell.actor]
			if status, _ := a.refuses(op); status != 0 || op.scope == "public" || slices.Contains(madeByPUT, op.id) || !refersTo(op, cell.owner) {
				continue
			}
			cells++
			foreign, foreignCost := m.cost(t, m.callOf(t, op, cell.owner, a.token))
			nobody, absentCost := m.cost(t, m.callOf(t, op, absent(), a.token))
			if foreign.status != http.StatusNotFound {
				t.Errorf("%s as %s on another's: got %d %s, want 404", op.id, a.name, foreign.status, foreign.body)
			}
			if foreign.status != nobody.status || !bytes.Equal(foreign.body, nobody.body) {
				t.Errorf("%s as %s: another's is answered %d %s, an absent one %d %s", op.id, a.name, foreign.status, foreign.body, nobody.status, nobody.body)
			}
			if foreignCost != absentCost || foreignCost == 0 {
				t.Errorf("%s as %s: another's costs %d statements, an absent one %d", op.id, a.name, foreignCost, absentCost)
			}
		}
	}
	if cells < 45 {
		t.Errorf("only %d cells were tried", cells)
	}
}

// refersTo reports whether an operation names an object of a scene, in its path or its body.
func refersTo(op operation, s scene) bool {
	parameters := parametersOf(op.path)
	for _, name := range parameters {
		if _, has := s.ids[name]; !has {
			return false
		}
	}
	return len(parameters) > 0 || slices.Contains([]string{
		"requestRelayIP", "createRoute", "createUser", "createToken", "retryQueue", "holdQueue", "releaseQueue", "cancelQueue",
	}, op.id)
}

// cost makes a call under a fixed request id, and counts its database statements.
func (m *matrix) cost(t *testing.T, c call) (reply, int64) {
	t.Helper()
	c.header = http.Header{"X-Request-Id": {"the-same-one"}}
	before := m.log.statements.Load()
	answer := m.do(t, c)
	return answer, m.log.statements.Load() - before
}

// Row 38: lists that are narrowed to another partner's or domain's objects are like those narrowed to nobody's.
func TestMatrixFiltersDoNotTellWhetherAnObjectExists(t *testing.T) {
	m := newMatrix(t)
	cells := 0
	for _, op := range operations(t) {
		a := m.actors["partner B"]
		if status, _ := a.refuses(op); status != 0 || op.scope == "public" || len(parametersOf(op.path)) > 0 {
			continue
		}
		for name, keys := range map[string][2]string{
			"partner": {m.a.partner, "absent"}, "domain": {m.a.domain, "absent.example"}, "object": {"domain/" + m.a.domain, "domain/absent.example"},
		} {
			if op.declared.Parameters.GetByInAndName("query", name) == nil {
				continue
			}
			cells++
			foreign, foreignCost := m.cost(t, call{method: op.method, path: op.path + "?" + name + "=" + keys[0], token: a.token})
			nobody, absentCost := m.cost(t, call{method: op.method, path: op.path + "?" + name + "=" + keys[1], token: a.token})
			if !bytes.Equal(foreign.body, nobody.body) || foreign.status != http.StatusOK || foreignCost != absentCost {
				t.Errorf("%s by %s: another's gives %d %s (%d statements), an absent one %d %s (%d)", op.id, name,
					foreign.status, foreign.body, foreignCost, nobody.status, nobody.body, absentCost)
			}
		}
	}
	if cells < 10 {
		t.Errorf("only %d filters were tried", cells)
	}
}

// Row 38: nothing that a partner is answered names another partner or what is its.
func TestMatrixNoReplyNamesWhatIsAnothers(t *testing.T) {
	m := newMatrix(t)
	marks := []string{m.a.partner}
	for name, key := range m.a.ids {
		if !slices.Contains(unsharedParameters, name) {
			marks = append(marks, key)
		}
	}
	for _, op := range operations(t) {
		if op.method == http.MethodDelete && op.scope == "public" {
			continue
		}
		for _, s := range []scene{m.a, m.b} {
			c := m.callOf(t, op, s, m.actors["partner B"].token)
			answer := m.do(t, c)
			for _, mark := range marks {
				if bytes.Contains(answer.body, []byte(mark)) && !(s.partner == m.a.partner && op.id == "batchPutDomains") {
					t.Errorf("%s on objects of %s tells partner B of %q: %s", op.id, s.partner, mark, cut(answer.body))
				}
			}
		}
	}
	taken := m.do(t, m.callOf(t, operationNamed(t, "batchPutDomains"), m.a, m.actors["partner B"].token))
	if want := `"reason":"domain-unavailable"`; !bytes.Contains(taken.body, []byte(want)) || bytes.Contains(taken.body, []byte(`"`+m.a.partner+`"`)) {
		t.Errorf("a batch with another's domain is answered %s", taken.body)
	}
	m.do(t, m.callOf(t, operationNamed(t, "putDomain"), m.a, m.actors["partner B"].token)).wants(t, http.StatusConflict, "domain-unavailable")
}

func operationNamed(t testing.TB, id string) operation {
	t.Helper()
	for _, op := range operations(t) {
		if op.id == id {
			return op
		}
	}
	t.Fatalf("the contract has no operation %s", id)
	return operation{}
}

func cut(body []byte) []byte { return body[:min(len(body), 300)] }

// Row 38: an operation on an object that the matrix cannot make would go untested.
func TestMatrixCoversEveryPathParameter(t *testing.T) {
	makers, nobody := (&world{}).makers(), absent()
	for _, op := range operations(t) {
		for _, name := range parametersOf(op.path) {
			if makers[name] == nil || nobody.ids[name] == "" {
				t.Errorf("%s: no object is made for {%s}", op.id, name)
			}
		}
	}
}
