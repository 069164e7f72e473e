package apitest_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// publishedLimits are the limits that an edge finds in the document of the platform.
func (w *world) publishedLimits(t *testing.T, edge string) []any {
	t.Helper()
	documents, _ := w.askAs(t, edge, "GET", "/v1/edge/policy", nil)["documents"].([]any)
	for _, item := range documents {
		document, _ := item.(map[string]any)
		if platform, found := document["platform"].(map[string]any); found {
			limits, _ := platform["destination_limits"].([]any)
			return limits
		}
	}
	return nil
}

func TestTheLimitsOfADestinationReachTheEdges(t *testing.T) {
	w := newWorld(t)
	_, edge := w.joinEdge(t)
	made := w.do(t, call{method: "PUT", path: "/v1/destination-limits/Example.NET.", token: w.Token, body: map[string]any{
		"max_connections": 5, "reason": "asked for by their postmaster",
	}})
	if made.status != http.StatusCreated || text(made.json(t), "destination") != "example.net" {
		t.Fatalf("got %d %s", made.status, made.body)
	}
	w.ask(t, "PUT", "/v1/destination-limits/192.0.2.25", map[string]any{"messages_per_minute": 60})
	want := []any{
		map[string]any{"destination": "192.0.2.25", "max_connections": 0.0, "messages_per_minute": 60.0},
		map[string]any{"destination": "example.net", "max_connections": 5.0, "messages_per_minute": 0.0},
	}
	if got := w.publishedLimits(t, edge); !reflect.DeepEqual(got, want) {
		t.Errorf("the edge is told %v, want %v", got, want)
	}

	changed := w.ask(t, "PUT", "/v1/destination-limits/example.net", map[string]any{"messages_per_minute": 10})
	if _, kept := changed["max_connections"]; kept || changed["messages_per_minute"] != 10.0 {
		t.Errorf("replaced by %v", changed)
	}
	entries, _ := w.ask(t, "GET", "/v1/audit?object=destination-limit/example.net", nil)["items"].([]any)
	if len(entries) != 2 {
		t.Errorf("audited %v", entries)
	}
	for _, name := range []string{"example.net", "192.0.2.25"} {
		if answer := w.do(t, call{method: "DELETE", path: "/v1/destination-limits/" + name, token: w.Token}); answer.status != http.StatusNoContent {
			t.Errorf("delete %s: got %d %s", name, answer.status, answer.body)
		}
	}
	if got := w.publishedLimits(t, edge); len(got) != 0 {
		t.Errorf("the edge is still told %v", got)
	}
}

func TestAnImpossibleLimitIsRefusedByTheNameOfItsField(t *testing.T) {
	w := newWorld(t)
	for _, bad := range []struct {
		destination string
		body        map[string]any
		pointer     string
	}{
		{"example.net", map[string]any{"max_connections": 0}, "/max_connections"},
		{"example.net", map[string]any{"max_connections": 1001}, "/max_connections"},
		{"example.net", map[string]any{"max_connections": "five"}, "/max_connections"},
		{"example.net", map[string]any{"messages_per_minute": -1}, "/messages_per_minute"},
		{"example.net", map[string]any{"max_connections": 5, "burst": 1}, "/burst"},
		{"example.net", map[string]any{"reason": "no limit at all"}, ""},
		{"not%20a%20host", map[string]any{"max_connections": 5}, "path/destination"},
		{"192.0.2.0%2F24", map[string]any{"max_connections": 5}, "path/destination"},
	} {
		answer := w.do(t, call{method: "PUT", path: "/v1/destination-limits/" + bad.destination, token: w.Token, body: bad.body})
		fault := answer.problem(t)
		want := http.StatusUnprocessableEntity
		if strings.HasPrefix(bad.pointer, "path/") {
			want = http.StatusBadRequest
		}
		if answer.status != want || len(fault.Errors) != 1 || fault.Errors[0].Pointer != bad.pointer {
			t.Errorf("%s %v: got %d %s, want a fault of %q", bad.destination, bad.body, answer.status, answer.body, bad.pointer)
		}
	}
}
