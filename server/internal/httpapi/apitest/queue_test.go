package apitest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
)

// waitingEdge is an edge that has told of a message that waits, as edges see the world: it acknowledges and reports by hand.
type waitingEdge struct {
	*world
	credential string
	sequence   int
}

func (e *waitingEdge) report(t *testing.T, events ...map[string]any) {
	t.Helper()
	for i := range events {
		e.sequence++
		events[i]["sequence"], events[i]["time"] = e.sequence, e.clock.Now()
	}
	e.askAs(t, e.credential, "POST", "/v1/edge/events", map[string]any{"generation": 1, "first_kept": 1, "events": events})
}

// accept tells of a message for one recipient at each of the destinations.
func (e *waitingEdge) accept(t *testing.T, domain string, destinations ...string) (id string) {
	t.Helper()
	id = ulid.Make().String()
	e.report(t, map[string]any{
		"kind": "message-accepted", "domain": domain, "message_id": id, "sender": "boss@" + domain, "recipients": len(destinations),
		"recipient_domains": destinations,
	})
	return id
}

// instructions are what the edge is told to do.
func (e *waitingEdge) instructions(t *testing.T) []any {
	t.Helper()
	list, _ := e.askAs(t, e.credential, "GET", "/v1/edge/policy", nil)["instructions"].([]any)
	return list
}

func (w *world) destinations(t *testing.T, token, query string) []string {
	t.Helper()
	found := []string{}
	items, _ := w.askAs(t, token, "GET", "/v1/queue/messages"+query, nil)["items"].([]any)
	for _, item := range items {
		object, _ := item.(map[string]any)
		found = append(found, text(object, "destination")+" "+text(object, "state"))
	}
	return found
}

// onlyItem is the one thing that waits and fits the query.
func (w *world) onlyItem(t *testing.T, query string) map[string]any {
	t.Helper()
	items, _ := w.ask(t, "GET", "/v1/queue/messages"+query, nil)["items"].([]any)
	if len(items) != 1 {
		t.Fatalf("%s lists %v, want one item", query, items)
	}
	item, _ := items[0].(map[string]any)
	return item
}

func TestAnOperationOnTheQueueGoesToTheEdgesAndComesBack(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		s := w.scene(t, "acme")
		_, credential := w.joinEdge(t)
		edge := &waitingEdge{world: w, credential: credential}
		id := edge.accept(t, s.domain, "y.example", "z.example")
		edge.report(t, map[string]any{
			"kind": "message-deferred", "domain": s.domain, "message_id": id, "recipient": "bob@y.example", "reply": "451 4.7.1 later",
			"remote_host": "mx.y.example", "attempts": 2, "next_attempt_at": w.clock.Now(), "tls": "TLS 1.3 sts", "delay_reason": "new-to-us",
		})
		shown := w.ask(t, "GET", "/v1/queue/messages/"+id, nil)
		waiting, _ := shown["destinations"].([]any)
		first, _ := waiting[0].(map[string]any)
		if len(waiting) != 2 || text(shown, "sender") != "boss@"+s.domain || text(first, "last_reply") != "451 4.7.1 later" || first["attempts"] != 2.0 ||
			text(first, "tls") != "TLS 1.3 sts" || text(first, "delay_reason") != "other" {
			t.Errorf("shown %v", shown)
		}

		op := w.ask(t, "POST", "/v1/queue/hold", map[string]any{"destination": "Y.Example", "partner": "acme", "reason": "to be looked at"})
		if op["matched"] != 1.0 || op["edges"] != 1.0 || op["edges_done"] != 0.0 {
			t.Errorf("began as %v", op)
		}
		told := edge.instructions(t)
		if len(told) != 1 {
			t.Fatalf("the edge is told %v", told)
		}
		instruction, _ := told[0].(map[string]any)
		about, _ := instruction["queue"].(map[string]any)
		if text(instruction, "kind") != "queue-hold" || text(about, "operation_id") != text(op, "id") || text(about, "destination") != "y.example" ||
			text(about, "partner") != "acme" {
			t.Errorf("the edge is told %v", instruction)
		}
		edge.report(t,
			map[string]any{"kind": "message-held", "message_id": id, "domain": s.domain, "recipient_domains": []string{"y.example"}, "ref": op["id"]},
			map[string]any{"kind": "queue-operation-done", "ref": op["id"], "messages": 1, "recipients": 1})
		if told := w.askAs(t, credential, "GET", "/v1/edge/policy?acknowledged=1", nil)["instructions"]; len(told.([]any)) != 0 {
			t.Errorf("after it was acknowledged the edge is told %v", told)
		}
		if held := w.onlyItem(t, "?state=held"); text(held, "delay_reason") != "held" || held["next_attempt_at"] != nil {
			t.Errorf("what is held is shown as %v, want that it is held and not tried", held)
		}
		op = w.ask(t, "GET", "/v1/queue/operations/"+text(op, "id"), nil)
		if op["edges_done"] != 1.0 || op["edges_acknowledged"] != 1.0 || op["messages"] != 1.0 || op["finished_at"] == nil {
			t.Errorf("ended as %v", op)
		}
		for query, want := range map[string][]string{
			"":                         {"y.example held", "z.example queued"},
			"?state=held":              {"y.example held"},
			"?destination=z.example":   {"z.example queued"},
			"?sender=BOSS@" + s.domain: {"y.example held", "z.example queued"},
			"?sender=%3C%3E":           {},
		} {
			if got := w.destinations(t, w.Token, query); !slices.Equal(got, want) {
				t.Errorf("%s lists %q, want %q", query, got, want)
			}
		}
		edge.report(t,
			map[string]any{"kind": "message-delivered", "message_id": id, "domain": s.domain, "recipient": "bob@y.example", "recipients": 1},
			map[string]any{"kind": "message-cancelled", "message_id": id, "domain": s.domain, "recipient": "bob@z.example", "recipients": 1})
		gone := w.do(t, call{method: "GET", path: "/v1/queue/messages/" + id, token: w.Token})
		gone.wants(t, http.StatusNotFound, "not-found")
		if detail := gone.problem(t).Detail; !strings.Contains(detail, "is in the mail log of its edge") {
			t.Errorf("of a message that was delivered it says %q", detail)
		}
	})
}

func TestAnOperationThatAnEdgeDoesNotUnderstandIsFinishedAndShowsIt(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		s := w.scene(t, "acme")
		edgeID, credential := w.joinEdge(t)
		edge := &waitingEdge{world: w, credential: credential}
		edge.accept(t, s.domain, "y.example")
		op := w.ask(t, "POST", "/v1/queue/hold", map[string]any{"destination": "y.example"})
		if op["edges"] != 1.0 || op["edges_unable"] != 0.0 || op["finished_at"] != nil {
			t.Errorf("began as %v", op)
		}
		const detail = `instruction 1 of kind "queue-hold" not carried out: unknown field`
		edge.report(t, map[string]any{"kind": "instruction-unknown", "ref": op["id"], "detail": detail})
		w.askAs(t, credential, "GET", "/v1/edge/policy?acknowledged=1", nil)
		op = w.ask(t, "GET", "/v1/queue/operations/"+text(op, "id"), nil)
		if op["edges_unable"] != 1.0 || op["edges_done"] != 1.0 || op["messages"] != 0.0 || op["finished_at"] == nil {
			t.Errorf("ended as %v", op)
		}
		if got := w.destinations(t, w.Token, ""); !slices.Equal(got, []string{"y.example queued"}) {
			t.Errorf("waiting are %q, want what waited before", got)
		}
		want := fmt.Sprintf("edge=%s name=%s operation=%s detail=", edgeID, text(w.ask(t, "GET", "/v1/edges/"+edgeID, nil), "name"), text(op, "id"))
		if log := w.log.String(); strings.Count(log, want+detail) != 1 {
			t.Errorf("the log does not say once %q", want+detail)
		}
	})
}

// An edge that was upgraded between two polls acknowledges in the first of them what the older release passed over.
func TestAnOperationDoesNotWaitForAnEdgeThatKnowsNone(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		s := w.scene(t, "acme")
		_, credential := w.joinEdge(t) // with a capability of 1
		edge := &waitingEdge{world: w, credential: credential}
		edge.accept(t, s.domain, "y.example")
		for i, step := range []struct {
			agent        string
			done, unable float64
		}{
			{"", 1, 1},
			{"relayd/1.0.1 capability/1", 1, 1},
			{"relayd/1.1.0 capability/2", 1, 1},
			{"relayd/1.1.0 capability/2", 0, 0},
			{"relayd/1.0.1 capability/1", 0, 0},
			{"", 1, 1},
		} {
			op := w.ask(t, "POST", "/v1/queue/hold", map[string]any{"destination": "y.example"})
			path := fmt.Sprintf("/v1/edge/policy?acknowledged=%d", i+1)
			w.do(t, call{method: "GET", path: path, token: credential, header: http.Header{"User-Agent": {step.agent}}}).wants(t, http.StatusOK, "")
			op = w.ask(t, "GET", "/v1/queue/operations/"+text(op, "id"), nil)
			if op["edges_acknowledged"] != 1.0 || op["edges_done"] != step.done || op["edges_unable"] != step.unable || (op["finished_at"] == nil) != (step.done == 0) {
				t.Errorf("acknowledged %d as %q it stands at %v", i+1, step.agent, op)
			}
		}
	})
}

func TestAPartnerActsOnItsOwnQueueOnly(t *testing.T) {
	w := newWorld(t)
	one, two := w.scene(t, "one"), w.scene(t, "two")
	_, credential := w.joinEdge(t)
	edge := &waitingEdge{world: w, credential: credential}
	foreign := edge.accept(t, two.domain, "y.example")
	edge.accept(t, one.domain, "y.example")
	token, _ := w.newToken(t, map[string]any{"role": "partner", "partner": "one"})

	// Another's domain is one in which nothing waits; whatever it names, the edge is told whose mail it may touch.
	op := w.askAs(t, token, "POST", "/v1/queue/cancel", map[string]any{"domain": two.domain})
	if op["matched"] != 0.0 || text(op, "partner") != "one" {
		t.Errorf("got %v", op)
	}
	w.askAs(t, token, "POST", "/v1/queue/cancel", map[string]any{"destination": "y.example"})
	for _, told := range edge.instructions(t) {
		instruction, _ := told.(map[string]any)
		about, _ := instruction["queue"].(map[string]any)
		if text(about, "partner") != "one" {
			t.Errorf("the edge is told %v", instruction)
		}
	}
	for _, body := range []map[string]any{{"message_ids": []string{foreign}}, {"partner": "two"}, {"partner": "absent"}} {
		w.do(t, call{method: "POST", path: "/v1/queue/cancel", token: token, body: body}).wants(t, http.StatusNotFound, "not-found")
	}
	for _, body := range []map[string]any{{}, {"reason": "everything"}, {"sender": "nobody"}, {"destination": "not a domain"}} {
		w.do(t, call{method: "POST", path: "/v1/queue/cancel", token: token, body: body}).wants(t, http.StatusUnprocessableEntity, "invalid-request")
	}
	if told := edge.instructions(t); len(told) != 2 {
		t.Errorf("the edge is told %v", told)
	}
}

// Whoever names it wrongly must not take its queue for empty, and the edge for one that can go.
func TestTheQueueOfAnEdgeIsAskedForByItsIDAndNotByItsName(t *testing.T) {
	w := newWorld(t)
	id, _ := w.joinEdge(t)
	name := text(w.ask(t, "GET", "/v1/edges/"+id, nil), "name")
	for _, path := range []string{"/v1/queue/messages", "/v1/queue/summary"} {
		w.do(t, call{method: "GET", path: path + "?edge=" + id, token: w.Token}).wants(t, http.StatusOK, "")
		w.do(t, call{method: "GET", path: path + "?edge=" + name, token: w.Token}).wants(t, http.StatusBadRequest, "invalid-request")
	}
}

func TestWhoRetiresAnEdgeIsToldWhatItLeaves(t *testing.T) {
	w := newWorld(t)
	s := w.scene(t, "acme")
	id, credential := w.joinEdge(t)
	edge := &waitingEdge{world: w, credential: credential}
	edge.accept(t, s.domain, "y.example", "z.example")
	edge.accept(t, s.domain, "y.example")
	retired := w.ask(t, "POST", "/v1/edges/"+id+"/retire", nil)
	if text(retired, "status") != "retired" || retired["messages_left"] != 2.0 {
		t.Errorf("answered %v, want two messages left", retired)
	}
	if again := w.ask(t, "POST", "/v1/edges/"+id+"/retire", nil); again["messages_left"] != nil {
		t.Errorf("again: answered %v", again)
	}
}
