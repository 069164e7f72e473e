package apitest_test

import (
	"net/http"
	"slices"
	"testing"

	"activerelay/api/reason"
	"activerelay/server/servertest"
)

// provokedElsewhere are the declared problems that other tests provoke for every operation that declares them, or that
// one operation alone declares.
var provokedElsewhere = map[reason.Slug]string{
	reason.PreconditionFailed:  "TestControl10AChangeIsHeldToTheVersionThatTheClientSaw",
	reason.IdempotencyConflict: "TestControl8ARepeatedRequestHasOneEffectAndTheSameReply",
	reason.DomainUnavailable:   "TestMatrixNoReplyNamesWhatIsAnothers",
	reason.ComplaintUnresolved: "TestAComplaintThatNamesNoMessageIsNotTaken",
	reason.PolicyGone:          "the tests of the edge operations",
	reason.EdgeFenced:          "the tests of the edge operations",
	reason.Unauthenticated:     "TestAJoinTokenWorksOnce",
}

func TestEveryDeclaredProblemIsProvoked(t *testing.T) {
	m := &matrix{world: newWorld(t)}
	conflicts := conflicts()
	_, edge := m.joinEdge(t)
	for _, op := range operations(t) {
		for _, slug := range servertest.Problems(op.declared) {
			switch slug {
			case reason.NotFound:
				token := m.Token
				if op.scope == "edge" {
					token = edge
				}
				c := m.callOf(t, op, absent(), token)
				if op.id == "getEdgeSecrets" {
					c.path = op.path + "?id=rte_01KAQ7M2Z8Y3F6N5T4R1W0X9VB"
				}
				if answer := m.do(t, c); answer.status != http.StatusNotFound || answer.problem(t).Reason != "not-found" {
					t.Errorf("%s of what does not exist: got %d %s", op.id, answer.status, answer.body)
				}
			case reason.Conflict:
				provoke, known := conflicts[op.id]
				if !known {
					t.Errorf("%s declares a conflict that no test provokes", op.id)
					continue
				}
				s, a := m.ownScene(t, op, actor{role: "partner"})
				provoke(t, m.world, s)
				if !op.allows("partner") || slices.Contains([]string{"createRoute", "createUser", "rotateToken", "putDomain"}, op.id) {
					a.token = m.Token
				}
				c := m.callOf(t, op, s, a.token)
				if op.id == "putDomain" {
					c.body = map[string]any{"partner": "elsewhere"}
				}
				if answer := m.do(t, c); answer.status != http.StatusConflict || answer.problem(t).Reason != "conflict" {
					t.Errorf("%s in the wrong state: got %d %s", op.id, answer.status, answer.body)
				}
			default:
				if provokedElsewhere[slug] == "" {
					t.Errorf("%s declares %s, which no test provokes", op.id, slug)
				}
			}
		}
	}
}

// conflicts bring objects into a state that an operation does not fit.
func conflicts() map[string]func(*testing.T, *world, scene) {
	relayIP := func(verbs ...string) func(*testing.T, *world, scene) {
		return func(t *testing.T, w *world, s scene) {
			t.Helper()
			state := text(w.ask(t, "GET", "/v1/relay-ips/"+s.ids["relay_ip_id"], nil), "state")
			for _, verb := range verbs {
				if verb == "activate" && state != "requested" {
					continue
				}
				var body any
				if verb != "activate" {
					body = map[string]any{"reason": "test"}
				}
				w.ask(t, "POST", "/v1/relay-ips/"+s.ids["relay_ip_id"]+"/"+verb, body)
			}
		}
	}
	return map[string]func(*testing.T, *world, scene){
		"putDomain": func(*testing.T, *world, scene) {},
		"deletePartner": func(t *testing.T, w *world, s scene) {
			w.ask(t, "PUT", "/v1/domains/"+s.domain, map[string]any{"partner": s.partner})
		},
		"activateRelayIP": relayIP("activate", "disable"),
		"rejectRelayIP":   relayIP("activate"),
		"deleteRelayIP":   relayIP("activate", "disable"),
		"disableRelayIP":  relayIP("activate", "disable"),
		"enableRelayIP": func(t *testing.T, w *world, s scene) {
			s.ids["relay_ip_id"] = w.makeRelayIP(t, s.domain)
		},
		"createRoute": func(t *testing.T, w *world, s scene) {
			w.ask(t, "POST", "/v1/routes", map[string]any{"domain": s.domain, "recipient_domain": "DEST.example.", "host": "other.example"})
		},
		"createUser": func(t *testing.T, w *world, s scene) {
			w.ask(t, "POST", "/v1/users", map[string]any{"address": "NEW@" + s.domain})
		},
		"deleteUser": func(t *testing.T, w *world, s scene) {
			w.ask(t, "POST", "/v1/users/"+s.ids["address"]+"/disable-relaying", map[string]any{"reason": "test"})
		},
		"revokeJoinToken": func(t *testing.T, w *world, s scene) {
			body := w.joinBody(t)
			w.askAs(t, "", "POST", "/v1/edge/join", body)
			items, _ := w.ask(t, "GET", "/v1/join-tokens?page_size=200", nil)["items"].([]any)
			last, _ := items[0].(map[string]any)
			for _, one := range items {
				if token, _ := one.(map[string]any); token["used_by"] != nil {
					last = token
				}
			}
			s.ids["join_token_id"] = text(last, "id")
		},
		"rotateToken": func(t *testing.T, w *world, s scene) { w.ask(t, "DELETE", "/v1/tokens/"+s.ids["token_id"], nil) },
	}
}

func TestAComplaintThatNamesNoMessageIsNotTaken(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	token := w.feedbackID(t, s)
	gone := w.feedbackID(t, scene{domain: "gone.example"})
	for name, id := range map[string]string{
		"no token at all": "nothing of ours", "a changed token": token[:len(token)-4] + "AAAA", "a domain that is gone": gone,
	} {
		t.Run(name, func(t *testing.T) {
			w.do(t, call{method: "POST", path: "/v1/complaints", token: w.Token, body: map[string]any{"feedback_id": id}}).
				wants(t, http.StatusUnprocessableEntity, "complaint-unresolved")
		})
	}
	mail := call{method: "POST", path: "/v1/complaints", token: w.Token, body: "Subject: hello\r\n\r\nno report", header: http.Header{"Content-Type": {"message/rfc822"}}}
	w.do(t, mail).wants(t, http.StatusBadRequest, "invalid-request")
	first := w.do(t, call{method: "POST", path: "/v1/complaints", token: w.Token, body: map[string]any{"feedback_id": token}})
	first.wants(t, http.StatusCreated, "")
	again := w.do(t, call{method: "POST", path: "/v1/complaints", token: w.Token, body: map[string]any{"feedback_id": token}})
	again.wants(t, http.StatusOK, "")
	if first.json(t)["id"] != again.json(t)["id"] {
		t.Errorf("the same complaint twice: %s and %s", first.body, again.body)
	}
}

func TestAJoinTokenWorksOnce(t *testing.T) {
	w := newWorld(t)
	body := w.joinBody(t)
	join := call{method: "POST", path: "/v1/edge/join", body: body}
	w.do(t, join).wants(t, http.StatusCreated, "")
	w.do(t, join).wants(t, http.StatusUnauthorized, "unauthenticated")
	body["join_token"] = w.Token
	w.do(t, join).wants(t, http.StatusUnauthorized, "unauthenticated")
}
