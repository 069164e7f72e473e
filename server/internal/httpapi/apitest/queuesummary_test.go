package apitest_test

import (
	"reflect"
	"testing"
)

func TestTheSummaryOfTheQueueShowsTheLargestGroupsAndTheTotals(t *testing.T) {
	eachDatabase(t, func(t *testing.T, w *world) {
		one, two := w.scene(t, "one"), w.scene(t, "two")
		id, credential := w.joinEdge(t)
		edge := &waitingEdge{world: w, credential: credential}
		message := edge.accept(t, one.domain, "y.example", "z.example")
		edge.accept(t, two.domain, "y.example")
		edge.report(t, map[string]any{
			"kind": "message-deferred", "domain": one.domain, "message_id": message, "recipient": "bob@y.example", "reply": "451 4.7.1 later",
			"attempts": 1, "next_attempt_at": w.clock.Now(), "delay_reason": "deferred",
		})
		summary := w.ask(t, "GET", "/v1/queue/summary?top=1", nil)
		groups, _ := summary["groups"].([]any)
		if len(groups) != 1 || summary["groups_total"] != 2.0 || summary["items"] != 3.0 || summary["queued"] != 3.0 || summary["as_of"] == nil {
			t.Fatalf("got %v", summary)
		}
		first, _ := groups[0].(map[string]any)
		if text(first, "key") != "y.example" || first["items"] != 2.0 || text(first, "last_reply") != "451 4.7.1 later" || text(first, "delay_reason") != "deferred" {
			t.Errorf("the first group is %v", first)
		}
		partner, _ := w.newToken(t, map[string]any{"role": "partner", "partner": "two"})
		for query, want := range map[string][]string{
			"":                           {"y.example"},
			"?by=edge":                   {id},
			"?by=domain":                 {two.domain},
			"?by=state&state=queued":     {"queued"},
			"?by=partner&partner=one":    {},
			"?destination=Z.example":     {},
			"?sender=boss@" + two.domain: {"y.example"},
		} {
			if got := w.groupKeys(t, partner, query); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: the partner sees %q, want %q", query, got, want)
			}
		}
	})
}

func (w *world) groupKeys(t *testing.T, token, query string) []string {
	t.Helper()
	keys := []string{}
	groups, _ := w.askAs(t, token, "GET", "/v1/queue/summary"+query, nil)["groups"].([]any)
	for _, item := range groups {
		group, _ := item.(map[string]any)
		keys = append(keys, text(group, "key"))
	}
	return keys
}
