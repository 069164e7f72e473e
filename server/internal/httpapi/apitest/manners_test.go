package apitest_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestPUTCreatesOnceAndThenReplacesWhole(t *testing.T) {
	w := newWorld(t)
	put := func(path string, body map[string]any) reply {
		return w.do(t, call{method: "PUT", path: path, token: w.Token, body: body})
	}
	put("/v1/partners/acme", map[string]any{"name": "Acme", "time_zone": "Europe/Berlin"}).wants(t, http.StatusCreated, "")
	put("/v1/partners/acme", map[string]any{"name": "Acme"}).wants(t, http.StatusOK, "")
	if partner := w.ask(t, "GET", "/v1/partners/acme", nil); partner["time_zone"] != nil {
		t.Errorf("what the second PUT does not name has stayed: %v", partner)
	}
	full := map[string]any{"partner": "acme", "licensed_users": 40, "time_zone": "Asia/Tokyo", "contacts": []string{"a@b.example"}, "include_subdomains": true}
	created := put("/v1/domains/shop.example", full)
	created.wants(t, http.StatusCreated, "")
	again := put("/v1/domains/SHOP.example.", full)
	again.wants(t, http.StatusOK, "")
	if again.header.Get("ETag") != created.header.Get("ETag") || !bytes.Equal(again.body, created.body) {
		t.Errorf("the same PUT again changes something: %s, then %s", created.body, again.body)
	}
	bare := put("/v1/domains/shop.example", map[string]any{}).json(t)
	if bare["licensed_users"] != 0.0 || bare["time_zone"] != nil || bare["include_subdomains"] != false || len(bare["contacts"].([]any)) != 0 {
		t.Errorf("what the PUT does not name has stayed: %v", bare)
	}
}

// RFC 7396: null clears, absent leaves, a list is replaced whole.
func TestAMergePatchClearsWithNullAndLeavesWhatIsAbsent(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme")
	w.ask(t, "PATCH", "/v1/partners/acme", map[string]any{"time_zone": "Asia/Tokyo", "support_contact": "desk@acme.example"})
	w.ask(t, "POST", "/v1/users", map[string]any{"address": "anna@acme.example", "description": "desk", "aliases": []string{"sales@acme.example"}})
	route := "/v1/routes/" + text(w.ask(t, "POST", "/v1/routes", map[string]any{"domain": "acme.example", "host": "h.example", "username": "u", "password": "p"}), "id")
	for _, one := range []struct {
		path, patch   string
		want, without []string
	}{
		{"/v1/partners/acme", `{"name":"New"}`, []string{"time_zone", "support_contact"}, nil},
		{"/v1/partners/acme", `{"time_zone":null}`, []string{"support_contact", "name"}, []string{"time_zone"}},
		{"/v1/partners/acme", `{"support_contact":null}`, []string{"name"}, []string{"support_contact"}},
		{"/v1/domains/acme.example", `{"time_zone":"Asia/Tokyo"}`, []string{"time_zone"}, nil},
		{"/v1/domains/acme.example", `{}`, []string{"time_zone"}, nil},
		{"/v1/domains/acme.example", `{"time_zone":null}`, nil, []string{"time_zone"}},
		{"/v1/users/anna@acme.example", `{"aliases":[]}`, []string{"description"}, nil},
		{"/v1/users/anna@acme.example", `{"description":null}`, nil, []string{"description"}},
		{route, `{"port":2525}`, []string{"username", "has_password"}, nil},
		{route, `{"username":null,"password":null}`, []string{"port"}, []string{"username"}},
	} {
		object := w.ask(t, "PATCH", one.path, one.patch)
		for _, name := range one.want {
			if object[name] == nil {
				t.Errorf("%s after %s lacks %s: %v", one.path, one.patch, name, object)
			}
		}
		for _, name := range one.without {
			if object[name] != nil {
				t.Errorf("%s after %s still has %s: %v", one.path, one.patch, name, object)
			}
		}
		if shown := w.ask(t, "GET", one.path, nil); !reflect.DeepEqual(shown, object) {
			t.Errorf("%s after %s is shown as %v, answered as %v", one.path, one.patch, shown, object)
		}
	}
	// A password alone, or a user name alone, makes no login.
	w.do(t, call{method: "PATCH", path: route, token: w.Token, body: `{"username":"u"}`}).wants(t, http.StatusUnprocessableEntity, "invalid-request")
	w.do(t, call{method: "PATCH", path: "/v1/partners/acme", token: w.Token, body: `{"name":null}`}).wants(t, http.StatusUnprocessableEntity, "invalid-request")
}

func TestTheRequestIDGoesBothWays(t *testing.T) {
	w := newWorld(t)
	for _, one := range []struct {
		sent string
		kept bool
	}{
		{"01KAQ7M2Z8Y3F6N5T4R1W0X9VB", true},
		{"a.b_c~d:e-f", true},
		{"", false},
		{strings.Repeat("x", 65), false},
		{"with space", false},
		{`"quoted"`, false},
		{"ünicode", false},
	} {
		c := call{method: "GET", path: "/v1/partners/absent", token: w.Token, header: http.Header{"X-Request-Id": {one.sent}}}
		answer := w.do(t, c)
		id := answer.header.Get("X-Request-Id")
		if (id == one.sent) != one.kept || len(id) == 0 || answer.problem(t).RequestID != id {
			t.Errorf("sent %q, got %q and %q in the problem", one.sent, id, answer.problem(t).RequestID)
		}
		if !strings.Contains(w.log.String(), id) {
			t.Errorf("the log does not know %q", id)
		}
	}
	one, two := w.do(t, whoami(w.Token)), w.do(t, whoami(w.Token))
	if one.header.Get("X-Request-Id") == two.header.Get("X-Request-Id") {
		t.Error("two requests have one id")
	}
}

func TestABatchPutsAThousandDomainsAndReportsEachThatCannotBe(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		w.scene(t, "acme")
		w.scene(t, "beta")
		token, _ := w.newToken(t, map[string]any{"role": "partner", "partner": "acme"})
		w.ask(t, "PATCH", "/v1/domains/acme.example", map[string]any{"time_zone": "Asia/Tokyo"})
		entries := make([]map[string]any, 1000)
		for i := range entries {
			entries[i] = map[string]any{"name": fmt.Sprintf("d%d.example", i), "licensed_users": i}
		}
		entries[3] = map[string]any{"name": "beta.example", "licensed_users": 7}    // another partner's
		entries[10] = map[string]any{"name": "no name", "licensed_users": 7}        // no domain name
		entries[11] = map[string]any{"name": "z.example", "time_zone": "Mars/Base"} // no zone
		entries[500] = map[string]any{"name": "c.example", "contacts": []string{"a@b.example", "nobody"}}
		entries[600] = map[string]any{"name": "acme.example", "licensed_users": 60} // exists: the zone stays
		entries[601] = map[string]any{"name": "ACME.example", "licensed_users": 60} // the same again
		entries[602] = map[string]any{"name": "x.example", "partner": "beta"}       // not the token's
		batch := map[string]any{"domains": entries}
		result := w.askAs(t, token, "POST", "/v1/domains/batch", batch)
		if result["created"] != 993.0 || result["updated"] != 1.0 || result["unchanged"] != 1.0 || result["failed"] != 5.0 {
			t.Fatalf("created %v, updated %v, unchanged %v, failed %v", result["created"], result["updated"], result["unchanged"], result["failed"])
		}
		results, _ := result["results"].([]any)
		for i, want := range map[int]struct{ reason, pointer string }{
			3: {"domain-unavailable", ""}, 10: {"invalid-request", "/domains/10/name"}, 11: {"invalid-request", "/domains/11/time_zone"},
			500: {"invalid-request", "/domains/500/contacts/1"}, 602: {"invalid-request", "/domains/602/partner"},
		} {
			one, _ := results[i].(map[string]any)
			told, _ := one["problem"].(map[string]any)
			fields, _ := told["errors"].([]any)
			pointer := ""
			if len(fields) == 1 {
				field, _ := fields[0].(map[string]any)
				pointer = text(field, "pointer")
			}
			if one["outcome"] != "failed" || told["reason"] != want.reason || pointer != want.pointer {
				t.Errorf("entry %d: %v, want %s at %s", i, one, want.reason, want.pointer)
			}
		}
		if kept := w.ask(t, "GET", "/v1/domains/acme.example", nil); kept["time_zone"] != "Asia/Tokyo" || kept["licensed_users"] != 60.0 {
			t.Errorf("the domain that was there is now %v", kept)
		}
		if beta := w.ask(t, "GET", "/v1/domains/beta.example", nil); beta["partner"] != "beta" || beta["licensed_users"] != 0.0 {
			t.Errorf("the other partner's domain is now %v", beta)
		}
		if made := w.count(t, "SELECT count(*) FROM domains WHERE partner = 'acme'"); made != 994 {
			t.Errorf("%d domains, want 994", made)
		}
		again := w.askAs(t, token, "POST", "/v1/domains/batch", batch)
		if again["created"] != 0.0 || again["updated"] != 0.0 || again["unchanged"] != 995.0 || again["failed"] != 5.0 {
			t.Errorf("the same import again: created %v, updated %v, unchanged %v", again["created"], again["updated"], again["unchanged"])
		}
		batch["domains"] = append(entries, map[string]any{"name": "one-more.example"})
		w.do(t, call{method: "POST", path: "/v1/domains/batch", token: token, body: batch}).wants(t, http.StatusUnprocessableEntity, "invalid-request")
	})
}

func TestSuspendingShowsTheReasonUntilItIsResumed(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme", "address")
	for _, path := range []string{"/v1/partners/acme", "/v1/domains/" + s.domain, "/v1/users/" + s.ids["address"]} {
		w.clock.Advance(time.Minute)
		suspended := w.ask(t, "POST", path+"/suspend", map[string]any{"reason": "invoice unpaid"})
		if suspended["status"] != "suspended" || suspended["status_reason"] != "invoice unpaid" {
			t.Errorf("%s is %v", path, suspended)
		}
		if again := w.ask(t, "POST", path+"/suspend", map[string]any{"reason": "invoice unpaid"}); !reflect.DeepEqual(again, suspended) {
			t.Errorf("%s suspended again is %v", path, again)
		}
		resumed := w.ask(t, "POST", path+"/resume", nil)
		if resumed["status"] != "active" || resumed["status_reason"] != nil {
			t.Errorf("%s is %v", path, resumed)
		}
	}
}

func TestAQuotaOverrideCountsUntilItExpires(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	path := "/v1/domains/" + s.domain + "/quota-override"
	w.do(t, call{method: "PUT", path: path, token: w.Token, body: map[string]any{"limit": 1, "expires_at": morning, "reason": "r"}}).
		wants(t, http.StatusUnprocessableEntity, "invalid-request")
	w.ask(t, "PUT", path, map[string]any{"limit": 5000, "expires_at": morning.Add(36 * time.Hour), "reason": "invoices"})
	limits := func() (domain, today any) {
		return w.ask(t, "GET", "/v1/domains/"+s.domain, nil)["limit"], w.ask(t, "GET", "/v1/domains/"+s.domain+"/quota", nil)["limit"]
	}
	if domain, today := limits(); domain != 5000.0 || today != 5000.0 {
		t.Errorf("limits %v and %v, want 5000: a rise counts at once", domain, today)
	}
	w.clock.Set(morning.Add(36*time.Hour - time.Second))
	if domain, _ := limits(); domain != 5000.0 {
		t.Errorf("limit %v just before the end", domain)
	}
	w.clock.Set(morning.Add(36 * time.Hour))
	if domain, _ := limits(); domain != 1000.0 {
		t.Errorf("limit %v after the end, want 1000", domain)
	}
	w.do(t, call{method: "GET", path: path, token: w.Token}).wants(t, http.StatusNotFound, "not-found")
	w.do(t, call{method: "DELETE", path: path, token: w.Token}).wants(t, http.StatusNotFound, "not-found")
	w.clock.Set(morning.Add(72 * time.Hour))
	if _, today := limits(); today != 1000.0 {
		t.Errorf("limit %v of a day after the end, want 1000", today)
	}
}

func TestTheCSVHasTheRowsOfTheReport(t *testing.T) {
	w := newWorld(t)
	w.scene(t, "acme", "ref")
	w.scene(t, "beta", "ref")
	list, _ := w.ask(t, "GET", "/v1/quota-reports", nil)["items"].([]any)
	answer := w.do(t, call{method: "GET", path: "/v1/quota-reports.csv", token: w.Token})
	if kind := answer.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/csv") || !bytes.Contains(answer.body, []byte("\r\n")) {
		t.Errorf("type %s: %q", kind, answer.body)
	}
	rows, err := csv.NewReader(bytes.NewReader(answer.body)).ReadAll()
	if err != nil || len(rows) != len(list)+1 || len(list) != 2 {
		t.Fatalf("%d rows beside %d in the list: %v", len(rows), len(list), err)
	}
	for i, item := range list {
		object, _ := item.(map[string]any)
		for column, name := range rows[0] {
			want := fmt.Sprint(object[name])
			if number, isNumber := object[name].(float64); isNumber {
				want = strconv.FormatInt(int64(number), 10)
			}
			if name == "refusals" {
				want = "bulk=1"
			}
			if rows[i+1][column] != want {
				t.Errorf("row %d, %s: %q, want %q", i, name, rows[i+1][column], want)
			}
		}
	}
	narrow := w.do(t, call{method: "GET", path: "/v1/quota-reports.csv?partner=beta&from=2026-11-22&to=2026-11-22", token: w.Token})
	if bytes.Contains(narrow.body, []byte("acme")) || !bytes.Contains(narrow.body, []byte("beta.example")) {
		t.Errorf("narrowed to one partner: %s", narrow.body)
	}
}

func TestTheContractAndItsPageAreServedToEverybody(t *testing.T) {
	w := newWorld(t)
	served := w.do(t, call{method: "GET", path: "/openapi.yaml"})
	written, err := os.ReadFile("../../../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(served.body, written) {
		t.Error("the served contract is not openapi.yaml byte for byte")
	}
	page := w.do(t, call{method: "GET", path: "/docs"})
	if !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") || !bytes.Contains(page.body, []byte("putDomain")) {
		t.Errorf("the page is %s: %s", page.header.Get("Content-Type"), cut(page.body))
	}
	policy := page.header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "http") {
		t.Errorf("the page may load from elsewhere: %s", policy)
	}
	for _, mark := range []string{`<script src=`, `<link rel="stylesheet" href="http`} {
		if bytes.Contains(page.body, []byte(mark)) {
			t.Errorf("the page loads from elsewhere: %s", mark)
		}
	}
}

func TestHealthAndMetricsTellHowTheServiceIs(t *testing.T) {
	w := newWorld(t)
	w.do(t, whoami(w.Token))
	w.do(t, whoami(""))
	for _, path := range []string{"/healthz", "/readyz"} {
		if health := w.askAs(t, "", "GET", path, nil); health["status"] != "ok" {
			t.Errorf("%s: %v", path, health)
		}
	}
	metrics := string(w.do(t, call{method: "GET", path: "/metrics"}).body)
	for _, line := range []string{
		`relay_server_requests_total{operation="whoAmI",status="200"} 1`, `relay_server_requests_total{operation="whoAmI",status="401"} 1`,
		`relay_server_panics_total 0`, `relay_server_request_seconds_count{operation="whoAmI"} 2`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
	// A database that cannot be used makes it not ready, and alive all the same.
	if _, err := w.database.SQL(t).Exec("ALTER TABLE revision RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	broken := w.do(t, call{method: "GET", path: "/readyz"})
	checks, _ := broken.json(t)["checks"].([]any)
	if broken.status != http.StatusServiceUnavailable || len(checks) != 2 || bytes.Contains(broken.body, []byte("gone")) {
		t.Errorf("without its table: %d %s", broken.status, broken.body)
	}
	w.do(t, call{method: "GET", path: "/healthz"}).wants(t, http.StatusOK, "")
}
