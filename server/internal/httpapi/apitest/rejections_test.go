package apitest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// shownRejections writes what an edge is shown to have rejected: how many documents, and the last of them.
func shownRejections(edge map[string]any) string {
	last, _ := edge["last_rejection"].(map[string]any)
	if last == nil {
		return fmt.Sprint(edge["rejected_documents"])
	}
	return fmt.Sprint(edge["rejected_documents"], " ", last["document"], "@", last["revision"], " ", last["detail"])
}

// wantsRejections waits for what an edge is shown to have rejected: what it enforces is written down each second.
func (w *world) wantsRejections(t *testing.T, edgeID, want string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	got := shownRejections(w.ask(t, "GET", "/v1/edges/"+edgeID, nil))
	for ; got != want && time.Since(begin) < 30*time.Second; got = shownRejections(w.ask(t, "GET", "/v1/edges/"+edgeID, nil)) {
		<-tick.C
	}
	if got != want {
		t.Errorf("shown as %q, want %q", got, want)
	}
	items, _ := w.ask(t, "GET", "/v1/edges", nil)["items"].([]any)
	for _, item := range items {
		if edge, _ := item.(map[string]any); text(edge, "id") == edgeID && shownRejections(edge) != want {
			t.Errorf("listed as %q, want %q", shownRejections(edge), want)
		}
	}
}

// enforce takes a page of policy, says with the next poll that it is enforced, and returns the revisions of all documents.
func (e *waitingEdge) enforce(t *testing.T) map[string]int64 {
	t.Helper()
	page := e.askAs(t, e.credential, "GET", "/v1/edge/policy", nil)
	revisions := map[string]int64{}
	documents, _ := page["documents"].([]any)
	for _, document := range documents {
		object, _ := document.(map[string]any)
		revision, _ := object["revision"].(float64)
		revisions[text(object, "key")] = int64(revision)
	}
	enforced := url.Values{"epoch": {text(page, "epoch")}, "after": {text(page, "next")}}
	polled := e.do(t, call{method: "GET", path: "/v1/edge/policy?" + enforced.Encode(), token: e.credential})
	if polled.status != http.StatusNoContent {
		t.Fatalf("got %d %s", polled.status, polled.body)
	}
	return revisions
}

func rejection(document string, revision int64) map[string]any {
	return map[string]any{"kind": "policy-rejected", "policy_revision": revision, "detail": document + ": /status: is not a known choice"}
}

// The edge goes on past a document that it does not understand, so its revision alone looks as if all were well.
func TestAPolicyDocumentThatAnEdgeRejectedIsShownUntilItEnforcesAnother(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		s := w.scene(t, "acme")
		_, _ = w.joinEdge(t) // which understands everything
		id, credential := w.joinEdge(t)
		edge := &waitingEdge{world: w, credential: credential}
		revisions := edge.enforce(t)
		w.wantsRejections(t, id, "0")

		domain, partner := "domain/"+s.domain, "partner/acme"
		const fault = " /status: is not a known choice"
		edge.report(t, rejection(partner, revisions[partner]), rejection(domain, revisions[domain]), rejection("domain/gone.example", 1))
		two := fmt.Sprintf("2 %s@%d%s", domain, revisions[domain], fault)
		w.wantsRejections(t, id, two)
		edge.report(t, rejection(domain, revisions[domain])) // as after a new pass
		edge.enforce(t)
		w.wantsRejections(t, id, two)
		want := fmt.Sprintf("edge=%s name=%s document=%s revision=%d detail=", id, text(w.ask(t, "GET", "/v1/edges/"+id, nil), "name"), domain, revisions[domain])
		if log := w.log.String(); strings.Count(log, want) != 1 {
			t.Errorf("the log does not say once %q", want)
		}

		w.ask(t, "POST", "/v1/domains/"+s.domain+"/suspend", map[string]any{"reason": "to be written again"})
		w.wantsRejections(t, id, two) // the edge has not heard of it
		written := edge.enforce(t)
		w.wantsRejections(t, id, fmt.Sprintf("1 %s@%d%s", partner, revisions[partner], fault))
		edge.report(t, rejection(domain, written[domain]))
		w.wantsRejections(t, id, fmt.Sprintf("2 %s@%d%s", domain, written[domain], fault))
		if metrics := w.do(t, call{method: "GET", path: "/metrics"}); !strings.Contains(string(metrics.body), "\nrelay_server_policy_rejections_total 4\n") {
			t.Error("not 4 rejections are counted")
		}
		w.ask(t, "POST", "/v1/edges/"+id+"/retire", nil)
		w.wantsRejections(t, id, "0")
	})
}
