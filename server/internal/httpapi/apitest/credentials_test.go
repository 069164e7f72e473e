package apitest_test

import (
	"bytes"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/server"
	"activerelay/server/internal/credential"
)

func whoami(token string) call { return call{method: "GET", path: "/v1/whoami", token: token} }

func TestControl1TokensShowTheirKindAndAMistypedOneCostsNoStatement(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	operator, _ := w.newToken(t, map[string]any{"role": "operator"})
	partner, _ := w.newToken(t, map[string]any{"role": "partner", "partner": s.partner})
	customer, _ := w.newToken(t, map[string]any{"role": "customer", "domain": s.domain})
	_, edge := w.joinEdge(t)
	join := text(w.ask(t, "POST", "/v1/join-tokens", map[string]any{}), "token")
	kinds := map[string]bool{}
	form := regexp.MustCompile(`^rly_([a-z]+)_[0-9A-Za-z]{71}$`)
	for _, token := range []string{w.Token, operator, partner, customer, edge, join} {
		parts := form.FindStringSubmatch(token)
		if parts == nil {
			t.Fatalf("%s is not of the form", token)
		}
		kinds[parts[1]] = true
		last := byte('0')
		if token[len(token)-1] == '0' {
			last = '1'
		}
		before := w.log.statements.Load()
		w.do(t, whoami(token[:len(token)-1]+string(last))).wants(t, http.StatusUnauthorized, "unauthenticated")
		if cost := w.log.statements.Load() - before; cost != 0 {
			t.Errorf("a mistyped token costs %d statements", cost)
		}
	}
	if len(kinds) != 5 {
		t.Errorf("kinds %v, want one for each of operator, partner, customer, edge and join", kinds)
	}
	w.do(t, whoami(join)).wants(t, http.StatusUnauthorized, "unauthenticated")
}

func TestControl2OnlyHashesAreStoredAndAnUnknownIDIsAnsweredLikeAWrongSecret(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		made, _ := w.newToken(t, map[string]any{"role": "operator"})
		edgeID, edge := w.joinEdge(t)
		join := text(w.ask(t, "POST", "/v1/join-tokens", map[string]any{}), "token")
		for _, token := range []string{w.Token, made, edge, join} {
			read, err := credential.Parse(token)
			if err != nil {
				t.Fatal(err)
			}
			encoded := token[len(token)-49 : len(token)-6]
			for _, form := range []string{token, encoded, string(read.Secret[:])} {
				if tables := w.keptIn(t, form); len(tables) > 0 {
					t.Errorf("a secret is in %v", tables)
				}
			}
		}
		if tables := w.keptIn(t, edgeID); !slices.Contains(tables, "edges") {
			t.Error("the test does not see what is stored")
		}
		known, err := credential.Parse(made)
		if err != nil {
			t.Fatal(err)
		}
		wrong := credential.New(known.Kind, known.ID)
		unknown := credential.New(known.Kind, newULID())
		var replies []reply
		var costs []int64
		for _, token := range []string{wrong.Token(), unknown.Token()} {
			before := w.log.statements.Load()
			c := whoami(token)
			c.header = http.Header{"X-Request-Id": {"same"}}
			replies = append(replies, w.do(t, c))
			costs = append(costs, w.log.statements.Load()-before)
		}
		replies[0].wants(t, http.StatusUnauthorized, "unauthenticated")
		if !bytes.Equal(replies[0].body, replies[1].body) || costs[0] != costs[1] {
			t.Errorf("a wrong secret: %s (%d statements), an unknown id: %s (%d)", replies[0].body, costs[0], replies[1].body, costs[1])
		}
	})
}

func TestControl3ATokenDoesWhatItsScopesSayAndNoMore(t *testing.T) {
	w := newWorld(t)
	narrow, _ := w.newToken(t, map[string]any{"role": "operator", "scopes": []string{"tokens:write", "domains:read"}})
	w.do(t, call{method: "GET", path: "/v1/domains", token: narrow}).wants(t, http.StatusOK, "")
	w.do(t, call{method: "GET", path: "/v1/partners", token: narrow}).wants(t, http.StatusForbidden, "forbidden")
	wider := call{method: "POST", path: "/v1/tokens", token: narrow, body: map[string]any{
		"name": "wider", "role": "operator", "scopes": []string{"settings:write"},
	}}
	w.do(t, wider).wants(t, http.StatusForbidden, "forbidden")
	wider.body = map[string]any{"name": "as wide", "role": "operator"}
	made := w.do(t, wider)
	made.wants(t, http.StatusCreated, "")
	scopes, _ := made.json(t)["scopes"].([]any)
	if len(scopes) != 2 {
		t.Errorf("a token without scopes of its own got %v from one with two", scopes)
	}
	// Taking over a token that may do more would be the same.
	_, id := w.newToken(t, map[string]any{"role": "operator"})
	w.do(t, call{method: "POST", path: "/v1/tokens/" + id + "/rotate", token: narrow, body: map[string]any{}}).
		wants(t, http.StatusForbidden, "forbidden")
}

func TestControl3ATokenEndsAtItsExpiry(t *testing.T) {
	w := newWorld(t)
	token, _ := w.newToken(t, map[string]any{"role": "operator", "expires_at": morning.Add(time.Hour)})
	w.clock.Set(morning.Add(time.Hour - time.Microsecond))
	w.do(t, whoami(token)).wants(t, http.StatusOK, "")
	w.clock.Set(morning.Add(time.Hour))
	w.do(t, whoami(token)).wants(t, http.StatusUnauthorized, "unauthenticated")
	past := call{method: "POST", path: "/v1/tokens", token: w.Token, body: map[string]any{
		"name": "x", "role": "operator", "expires_at": morning,
	}}
	w.do(t, past).wants(t, http.StatusUnprocessableEntity, "invalid-request")
}

func TestControl3ATokenWorksFromItsAddressesOnly(t *testing.T) {
	w := newWorld(t, func(c *server.Config) { c.TrustedProxies = []string{"127.0.0.0/8"} })
	token, _ := w.newToken(t, map[string]any{"role": "operator", "allowed_addresses": []string{"192.0.2.0/24", "2001:db8::/32"}})
	for address, status := range map[string]int{
		"192.0.2.200": 200, "2001:db8::5": 200, "::ffff:192.0.2.7": 200, "192.0.3.1": 401, "2001:db9::1": 401, "127.0.0.1": 401, "nonsense": 401,
	} {
		c := whoami(token)
		c.header = http.Header{"X-Forwarded-For": {address}}
		if answer := w.do(t, c); answer.status != status {
			t.Errorf("from %s: got %d, want %d", address, answer.status, status)
		}
	}
	// Without a trusted proxy nobody says where he comes from.
	direct := newWorld(t)
	token, _ = direct.newToken(t, map[string]any{"role": "operator", "allowed_addresses": []string{"192.0.2.0/24"}})
	c := whoami(token)
	c.header = http.Header{"X-Forwarded-For": {"192.0.2.1"}}
	direct.do(t, c).wants(t, http.StatusUnauthorized, "unauthenticated")
}

func TestControl3ARevokedTokenStopsAtOnce(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		s := w.scene(t, "acme")
		token, id := w.newToken(t, map[string]any{"role": "operator"})
		w.do(t, whoami(token)).wants(t, http.StatusOK, "")
		w.ask(t, "DELETE", "/v1/tokens/"+id, nil)
		w.do(t, whoami(token)).wants(t, http.StatusUnauthorized, "unauthenticated")
		if shown := w.ask(t, "GET", "/v1/tokens/"+id, nil); shown["revoked_at"] == nil {
			t.Errorf("it is shown as %v", shown)
		}
		// What a token is of takes it along.
		customer, _ := w.newToken(t, map[string]any{"role": "customer", "domain": s.domain})
		partner, _ := w.newToken(t, map[string]any{"role": "partner", "partner": s.partner})
		w.ask(t, "DELETE", "/v1/domains/"+s.domain, nil)
		w.do(t, whoami(customer)).wants(t, http.StatusUnauthorized, "unauthenticated")
		w.ask(t, "DELETE", "/v1/partners/"+s.partner, nil)
		w.do(t, whoami(partner)).wants(t, http.StatusUnauthorized, "unauthenticated")
	})
}

func TestControl3TwoSecretsLiveDuringARotation(t *testing.T) {
	w := newWorld(t)
	first, id := w.newToken(t, map[string]any{"role": "operator"})
	rotate := func(overlap int) string {
		return text(w.ask(t, "POST", "/v1/tokens/"+id+"/rotate", map[string]any{"overlap_seconds": overlap}), "token")
	}
	second := rotate(60)
	if second == "" || second == first {
		t.Fatalf("the new secret is %q", second)
	}
	w.do(t, whoami(first)).wants(t, http.StatusOK, "")
	w.do(t, whoami(second)).wants(t, http.StatusOK, "")
	w.clock.Advance(time.Minute)
	w.do(t, whoami(first)).wants(t, http.StatusUnauthorized, "unauthenticated")
	w.do(t, whoami(second)).wants(t, http.StatusOK, "")
	third := rotate(60)
	fourth := rotate(60) // never three
	w.do(t, whoami(second)).wants(t, http.StatusUnauthorized, "unauthenticated")
	w.do(t, whoami(third)).wants(t, http.StatusOK, "")
	fifth := rotate(0)
	w.do(t, whoami(fourth)).wants(t, http.StatusUnauthorized, "unauthenticated")
	w.do(t, whoami(fifth)).wants(t, http.StatusOK, "")
}

func TestControl3ASecretIsShownOnceAndItsLastUseIsKnown(t *testing.T) {
	w := newWorld(t)
	token, id := w.newToken(t, map[string]any{"role": "operator"})
	w.clock.Advance(time.Hour)
	w.do(t, whoami(token)).wants(t, http.StatusOK, "")
	shown := w.do(t, call{method: "GET", path: "/v1/tokens/" + id, token: w.Token})
	list := w.do(t, call{method: "GET", path: "/v1/tokens", token: w.Token})
	secret := token[len(token)-49:]
	if bytes.Contains(shown.body, []byte(secret)) || bytes.Contains(list.body, []byte(secret)) {
		t.Error("the secret is shown again")
	}
	if used := text(shown.json(t), "last_used_at"); used != "2026-11-22T10:00:00Z" {
		t.Errorf("last used at %q", used)
	}
}

func TestControl4TheTenantComesFromTheToken(t *testing.T) {
	w := newWorld(t)
	acme, beta := w.scene(t, "acme"), w.scene(t, "beta")
	token, _ := w.newToken(t, map[string]any{"role": "partner", "partner": beta.partner})
	for path, body := range map[string]map[string]any{
		"/v1/domains/new.example": {"partner": acme.partner},
	} {
		answer := w.do(t, call{method: "PUT", path: path, token: token, body: body})
		answer.wants(t, http.StatusUnprocessableEntity, "invalid-request")
		if fields := answer.problem(t).Errors; len(fields) != 1 || fields[0].Pointer != "/partner" {
			t.Errorf("%s: %+v", path, fields)
		}
	}
	answer := w.do(t, call{method: "POST", path: "/v1/tokens", token: token, body: map[string]any{"name": "x", "role": "partner", "partner": acme.partner}})
	answer.wants(t, http.StatusUnprocessableEntity, "invalid-request")
	w.do(t, call{method: "POST", path: "/v1/tokens", token: token, body: map[string]any{"name": "x", "role": "operator"}}).
		wants(t, http.StatusForbidden, "forbidden")
	made := w.askAs(t, token, "PUT", "/v1/domains/new.example", map[string]any{})
	if made["partner"] != beta.partner {
		t.Errorf("the new domain is of %v", made["partner"])
	}
}

// The same answer for foreign and absent objects is TestMatrixForeignObjectsAreAnsweredLikeAbsentOnes.
func TestControl5IDsAreRandomWithThePrefixOfTheirKind(t *testing.T) {
	w := newWorld(t)
	parameters := []string{"relay_ip_id", "route_id", "complaint_id", "edge_id", "join_token_id", "token_id", "audit_id"}
	one, two := w.scene(t, "one", parameters...), w.scene(t, "two", parameters...)
	prefixes := map[string]string{
		"relay_ip_id": "rip_", "route_id": "rte_", "complaint_id": "cmp_", "edge_id": "edg_", "join_token_id": "jtk_", "token_id": "tok_", "audit_id": "aud_",
	}
	for name, prefix := range prefixes {
		a, b := one.ids[name], two.ids[name]
		if !strings.HasPrefix(a, prefix) || len(a) != len(prefix)+26 {
			t.Errorf("%s is %q", name, a)
		}
		// The first ten characters of a ULID are the time, which stands; the audit log counts on within a millisecond.
		if random := len(prefix) + 10; name != "audit_id" && a[random:random+8] == b[random:random+8] {
			t.Errorf("%s: %s and %s have the same random part", name, a, b)
		}
	}
}
