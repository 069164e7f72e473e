package apitest_test

import (
	"bytes"
	"database/sql"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// unaudited are writes that change no policy: they report figures, which are kept as figures.
var unaudited = map[string]bool{"leaseQuota": true, "reportEvents": true}

// auditedOnBoth are the operations that are tried on PostgreSQL too, one of each way to write; SQLite sees them all.
var auditedOnBoth = []string{
	"batchPutDomains", "createUser", "deleteDomain", "fileComplaint", "joinEdge", "rotateToken", "setQuotaOverride", "updateSettings",
}

// Control 11 and row 41: every change has its entry, in its own transaction: where the entry cannot be written, nothing
// has happened.
func TestControl11WithoutItsAuditEntryAChangeDoesNotHappen(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		m := &matrix{world: w}
		db := w.database.SQL(t)
		execute := func(statement string) {
			t.Helper()
			if _, err := db.Exec(statement); err != nil {
				t.Fatal(err)
			}
		}
		refuse, allow := `CREATE TRIGGER audit_refused BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END`, "DROP TRIGGER audit_refused"
		if !w.database.OnSQLite() {
			execute(`CREATE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$`)
			refuse = `CREATE TRIGGER audit_refused BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION refuse_audit()`
			allow = "DROP TRIGGER audit_refused ON audit"
		}
		for _, op := range operations(t) {
			if op.reads() || unaudited[op.id] || !w.database.OnSQLite() && !slices.Contains(auditedOnBoth, op.id) {
				continue
			}
			role := "operator"
			if op.scope == "edge" {
				role = "edge"
			}
			s, a := m.ownScene(t, op, actor{role: role, token: m.Token})
			c := m.callOf(t, op, s, a.token)
			m.do(t, whoami(a.token)) // notes the use of the token, which is no change
			before := content(t, w, db)
			execute(refuse)
			answer, err := m.attemptBroken(t, c)
			execute(allow)
			if err != nil || answer.status < 500 {
				t.Errorf("%s without its entry: got %d %s %v", op.id, answer.status, answer.body, err)
			}
			if after := content(t, w, db); !bytes.Equal(before, after) {
				t.Errorf("%s changed something without its entry", op.id)
			}
			if answer := m.do(t, c); answer.status > 299 {
				t.Errorf("%s with its entry: got %d %s", op.id, answer.status, answer.body)
			}
			if n := m.count(t, "SELECT count(*) FROM audit WHERE action = '"+op.id+"'"); n == 0 {
				t.Errorf("%s is not audited", op.id)
			}
		}
	})
}

// attemptBroken makes a call that is expected to fail for trouble of the database, past the contract, which allows none.
func (w *world) attemptBroken(t *testing.T, c call) (reply, error) {
	t.Helper()
	w.Contract.AllowInternal(true)
	defer w.Contract.AllowInternal(false)
	return w.attempt(t.Context(), c)
}

// content is all that the database holds.
func content(t *testing.T, w *world, db *sql.DB) []byte {
	t.Helper()
	var all bytes.Buffer
	for _, table := range w.tables(t, db) {
		switch table {
		case "sqlite_sequence":
		case "edges": // when an edge was last seen is written down later, beside the requests
			all.Write(dump(t, db, `(SELECT id, name, status, credential_hash, next_credential_hash, retired_at, generation, lease_sequence,
				event_acknowledged, instruction_number FROM edges) AS what_requests_change`))
		default:
			all.Write(dump(t, db, table))
		}
	}
	return all.Bytes()
}

func TestControl11TheAuditLogCanOnlyGrow(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		w.scene(t, "acme")
		db := w.database.SQL(t)
		for _, statement := range []string{"UPDATE audit SET reason = 'x'", "DELETE FROM audit"} {
			if _, err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v, want a refusal", statement, err)
			}
		}
		for _, method := range []string{"PUT", "PATCH", "DELETE", "POST"} {
			w.do(t, call{method: method, path: "/v1/audit", token: w.Token}).wants(t, http.StatusMethodNotAllowed, "method-not-allowed")
		}
	})
}

func TestControl11AnEntrySaysWhoDidWhatToWhatAndWhy(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	token, id := w.newToken(t, map[string]any{"role": "partner", "partner": s.partner, "name": "night shift"})
	c := call{
		method: "POST", path: "/v1/domains/" + s.domain + "/suspend", token: token, body: map[string]any{"reason": "contract ended"},
		header: http.Header{"X-Request-Id": {"of-the-suspension"}},
	}
	w.do(t, c).wants(t, http.StatusOK, "")
	items, _ := w.askAs(t, token, "GET", "/v1/audit?object=domain/"+s.domain, nil)["items"].([]any)
	entry, _ := items[0].(map[string]any)
	by, _ := entry["actor"].(map[string]any)
	changes, _ := entry["changes"].(map[string]any)
	status, _ := changes["status"].(map[string]any)
	if by["token_id"] != id || by["name"] != "night shift" || by["role"] != "partner" || entry["action"] != "suspendDomain" ||
		entry["reason"] != "contract ended" || entry["request_id"] != "of-the-suspension" || status["from"] != "active" || status["to"] != "suspended" {
		t.Errorf("the entry is %v", entry)
	}
	// Doing it again changes nothing, so there is nothing to note.
	before := w.count(t, "SELECT count(*) FROM audit")
	w.do(t, c).wants(t, http.StatusOK, "")
	if after := w.count(t, "SELECT count(*) FROM audit"); after != before {
		t.Errorf("a suspension of what is suspended made %d entries", after-before)
	}
}

// Every secret that passes through the API, by all ways in and out.
func TestControl24NoSecretIsInLogsAuditOrProblems(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	const given = "correct-horse-battery-staple"
	secrets := []string{w.Token, given}
	keep := func(secret string) string { secrets = append(secrets, secret); return secret }
	token, id := w.newToken(t, map[string]any{"role": "operator"})
	keep(token)
	keep(text(w.ask(t, "POST", "/v1/tokens/"+id+"/rotate", map[string]any{"overlap_seconds": 60}), "token"))
	keep(text(w.ask(t, "POST", "/v1/users", map[string]any{"address": "anna@" + s.domain}), "password"))
	w.ask(t, "POST", "/v1/users/anna@"+s.domain+"/rotate-password", map[string]any{"password": given})
	keep(text(w.ask(t, "POST", "/v1/users/anna@"+s.domain+"/rotate-password", map[string]any{}), "password"))
	route := text(w.ask(t, "POST", "/v1/routes", map[string]any{"domain": s.domain, "host": "h.example", "username": "u", "password": given}), "id")
	w.ask(t, "PATCH", "/v1/routes/"+route, map[string]any{"password": given})
	keep(text(w.ask(t, "POST", "/v1/join-tokens", map[string]any{}), "token"))
	_, edge := w.joinEdge(t)
	keep(edge)
	keep(text(w.askAs(t, edge, "POST", "/v1/edge/rotate-credential", nil), "credential"))
	var problems bytes.Buffer
	for _, c := range []call{
		{method: "POST", path: "/v1/users", body: map[string]any{"address": "anna@" + s.domain, "password": given}},              // conflict
		{method: "POST", path: "/v1/users", body: map[string]any{"address": "bad", "password": given}},                           // invalid
		{method: "POST", path: "/v1/users", body: `{"password":"` + given + `","password":"` + given + `"}`},                     // twice
		{method: "POST", path: "/v1/routes", body: map[string]any{"host": "h.example", "password": given}},                       // no user name
		{method: "POST", path: "/v1/routes", body: map[string]any{"host": "h.example", "port": given, "password": []any{given}}}, // types
		{method: "POST", path: "/v1/edge/join", body: map[string]any{"join_token": token, "name": "x"}},                          // incomplete
		{method: "GET", path: "/v1/domains?page_token=" + given},
		{method: "GET", path: "/v1/tokens/" + w.Token},
	} {
		c.token = w.Token
		answer := w.do(t, c)
		if answer.status < 400 {
			t.Errorf("%s %s: got %d", c.method, c.path, answer.status)
		}
		problems.Write(answer.body)
	}
	wrong := w.do(t, call{method: "GET", path: "/v1/whoami", token: token + "x"})
	problems.Write(wrong.body)
	audit := w.do(t, call{method: "GET", path: "/v1/audit?page_size=200", token: w.Token})
	places := map[string]string{"the log": w.log.String(), "the audit log": string(audit.body), "a problem": problems.String()}
	for place, content := range places {
		if len(content) < 1000 {
			t.Errorf("%s has %d bytes: the test does not see it", place, len(content))
		}
		for _, secret := range secrets {
			for _, part := range []string{secret, secret[len(secret)*2/3:]} {
				if at := strings.Index(content, part); at >= 0 {
					t.Errorf("%s shows a secret: …%s…", place, content[max(0, at-200):min(len(content), at+100)])
				}
			}
		}
	}
}
