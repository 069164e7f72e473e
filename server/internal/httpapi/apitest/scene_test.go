package apitest_test

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"activerelay/api/feedback"
)

// scene is one partner with objects, by the name of the path parameter that addresses them.
type scene struct {
	partner, domain string
	ids             map[string]string
}

// absent addresses objects that nobody has, in the form of those that exist.
func absent() scene {
	id := ulid.Make().String()
	return scene{partner: "absent", domain: "absent.example", ids: map[string]string{
		"partner": "absent", "domain": "absent.example", "address": "nobody@absent.example", "relay_ip_id": "rip_" + id,
		"route_id": "rte_" + id, "complaint_id": "cmp_" + id, "edge_id": "edg_" + id, "join_token_id": "jtk_" + id,
		"token_id": "tok_" + id, "audit_id": "aud_" + id, "ref": id, "message_id": id, "destination": "absent.example", "operation_id": "qop_" + id,
	}}
}

// makers make the object that a path parameter addresses and return its key. An operation with a parameter that is not
// here is not covered by the matrix, which fails.
func (w *world) makers() map[string]func(*testing.T, scene) string {
	return map[string]func(*testing.T, scene) string{
		"partner": func(_ *testing.T, s scene) string { return s.partner },
		"domain":  func(_ *testing.T, s scene) string { return s.domain },
		"address": func(t *testing.T, s scene) string {
			return text(w.ask(t, "POST", "/v1/users", map[string]any{
				"address": "anna@" + s.domain, "description": "desk of " + s.partner,
			}), "address")
		},
		"relay_ip_id": func(t *testing.T, s scene) string { return w.makeRelayIP(t, s.domain) },
		"route_id": func(t *testing.T, s scene) string {
			return text(w.ask(t, "POST", "/v1/routes", map[string]any{"domain": s.domain, "host": "smarthost." + s.domain}), "id")
		},
		"complaint_id": func(t *testing.T, s scene) string {
			return text(w.ask(t, "POST", "/v1/complaints", map[string]any{"feedback_id": w.feedbackID(t, s)}), "id")
		},
		"edge_id": func(t *testing.T, _ scene) string { id, _ := w.joinEdge(t); return id },
		"join_token_id": func(t *testing.T, _ scene) string {
			return text(w.ask(t, "POST", "/v1/join-tokens", map[string]any{}), "id")
		},
		"token_id": func(t *testing.T, s scene) string {
			return text(w.ask(t, "POST", "/v1/tokens", map[string]any{
				"name": "spare of " + s.partner, "role": "partner", "partner": s.partner,
			}), "id")
		},
		"audit_id": func(t *testing.T, s scene) string {
			items, _ := w.ask(t, "GET", "/v1/audit?partner="+s.partner, nil)["items"].([]any)
			if len(items) == 0 {
				t.Fatalf("nothing was audited of %s", s.partner)
			}
			entry, _ := items[0].(map[string]any)
			return text(entry, "id")
		},
		"ref": w.makeRefusal,
		"destination": func(t *testing.T, s scene) string {
			return text(w.ask(t, "PUT", "/v1/destination-limits/dest."+s.domain, map[string]any{"max_connections": 3}), "destination")
		},
		"message_id": w.makeWaiting,
		"operation_id": func(t *testing.T, s scene) string {
			return text(w.ask(t, "POST", "/v1/queue/hold", map[string]any{"domain": s.domain, "partner": s.partner}), "id")
		},
	}
}

// scene makes a partner with a domain and the objects that the parameters address.
func (w *world) scene(t *testing.T, partner string, parameters ...string) scene {
	t.Helper()
	s := scene{partner: partner, domain: partner + ".example", ids: map[string]string{}}
	w.ask(t, "PUT", "/v1/partners/"+partner, map[string]any{"name": "Firm " + partner, "support_contact": "help@" + s.domain})
	w.ask(t, "PUT", "/v1/domains/"+s.domain, map[string]any{"partner": partner, "contacts": []string{"admin@" + s.domain}})
	return w.fill(t, s, parameters...)
}

func (w *world) fill(t *testing.T, s scene, parameters ...string) scene {
	t.Helper()
	makers := w.makers()
	for _, name := range parameters {
		make, known := makers[name]
		if !known {
			t.Fatalf("nothing makes an object for the path parameter %q", name)
		}
		s.ids[name] = make(t, s)
	}
	return s
}

func (w *world) makeRelayIP(t *testing.T, domain string) string {
	t.Helper()
	w.serial++
	address := fmt.Sprintf("198.51.%d.%d", 100+w.serial/250, 1+w.serial%250)
	return text(w.ask(t, "POST", "/v1/relay-ips", map[string]any{
		"domain": domain, "address": address, "comment": "office of " + domain,
	}), "id")
}

// newToken makes a token and returns its secret and its id.
func (w *world) newToken(t *testing.T, body map[string]any) (secret, id string) {
	t.Helper()
	if body["name"] == nil {
		body["name"] = "test"
	}
	made := w.ask(t, "POST", "/v1/tokens", body)
	return text(made, "token"), text(made, "id")
}

// joinBody is what an edge joins with, with a new join token.
func (w *world) joinBody(t *testing.T) map[string]any {
	t.Helper()
	token := text(w.ask(t, "POST", "/v1/join-tokens", map[string]any{}), "token")
	return map[string]any{
		"join_token": token, "name": "edge1", "public_key": "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", "version": "1.0.0",
		"capability_version": 1,
	}
}

func (w *world) joinEdge(t *testing.T) (id, credential string) {
	t.Helper()
	joined := w.askAs(t, "", "POST", "/v1/edge/join", w.joinBody(t))
	return text(joined, "edge_id"), text(joined, "credential")
}

// feedbackID is the token that a message of the domain carried, as its edge seals it.
func (w *world) feedbackID(t *testing.T, s scene) string {
	t.Helper()
	encoded, err := os.ReadFile(filepath.Join(w.DataDir, "secrets.key"))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(encoded)))
	if err != nil {
		t.Fatal(err)
	}
	edge, _ := w.joinEdge(t)
	key, err := hkdf.Key(sha256.New, secret, nil, "activerelay feedback "+edge, feedback.KeyBytes)
	if err != nil {
		t.Fatal(err)
	}
	id := ulid.MustNew(ulid.Timestamp(w.clock.Now()), ulid.DefaultEntropy()).String()
	token, err := feedback.Seal([feedback.KeyBytes]byte(key), edge, feedback.Claims{
		MessageID: id, Domain: s.domain, ClientAddress: "203.0.113.9", Sender: "boss@" + s.domain,
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// makeRefusal lets an edge relay one message of the domain and refuse another, and returns the reference of the refusal.
func (w *world) makeRefusal(t *testing.T, s scene) string {
	t.Helper()
	_, edge := w.joinEdge(t)
	ref := ulid.Make().String()
	now := w.clock.Now()
	midnight := now.Truncate(24 * 60 * 60 * 1e9)
	w.askAs(t, edge, "POST", "/v1/edge/events", map[string]any{"generation": 1, "first_kept": 1, "events": []map[string]any{
		{
			"sequence": 1, "time": now, "kind": "message-accepted", "domain": s.domain, "message_id": ulid.Make().String(),
			"client_address": "203.0.113.9", "sender": "boss@" + s.domain, "recipients": 2, "units": 1, "day_start": midnight,
		},
		{
			"sequence": 2, "time": now, "kind": "message-refused", "domain": s.domain, "ref": ref, "reason": "bulk", "stage": "data",
			"reply": "550 5.7.1 no newsletters", "client_address": "203.0.113.9", "sender": "boss@" + s.domain, "recipients": 1,
		},
	}})
	return ref
}

// makeWaiting lets an edge accept a message of the domain that waits, and returns its id.
func (w *world) makeWaiting(t *testing.T, s scene) string {
	t.Helper()
	_, edge := w.joinEdge(t)
	id := ulid.Make().String()
	now := w.clock.Now()
	w.askAs(t, edge, "POST", "/v1/edge/events", map[string]any{"generation": 1, "first_kept": 1, "events": []map[string]any{
		{
			"sequence": 1, "time": now, "kind": "message-accepted", "domain": s.domain, "message_id": id, "sender": "boss@" + s.domain,
			"recipients": 1, "recipient_domains": []string{"dest.example"}, "units": 1, "day_start": now.Truncate(24 * 60 * 60 * 1e9),
		},
		{
			"sequence": 2, "time": now, "kind": "message-deferred", "domain": s.domain, "message_id": id, "recipient": "bob@dest.example",
			"reply": "451 4.7.1 later", "attempts": 1, "next_attempt_at": now.Add(60e9),
		},
	}})
	return id
}

// address writes the path of an operation with the keys of a scene.
func (s scene) address(t *testing.T, template string) string {
	t.Helper()
	for _, name := range parametersOf(template) {
		key, known := s.ids[name]
		if !known {
			t.Fatalf("%s: no key for {%s}", template, name)
		}
		template = strings.ReplaceAll(template, "{"+name+"}", key)
	}
	return template
}

func parametersOf(template string) []string {
	var names []string
	for _, part := range strings.Split(template, "/") {
		if name, found := strings.CutPrefix(part, "{"); found {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

func newULID() ulid.ULID { return ulid.Make() }
