package apitest_test

import (
	"net/http"
	"testing"
)

func TestAnEdgeIsShownWithWhatItSaysThatItRuns(t *testing.T) {
	w := newWorld(t)
	id, credential := w.joinEdge(t)
	for _, step := range []struct {
		agent, version string
		capability     float64
	}{
		{"", "1.0.0", 1}, // as it joined
		{"relayd/1.1.0 capability/2", "1.1.0", 2},
		{"curl/8", "1.1.0", 2},
		{"relayd/ capability/2", "1.1.0", 2},
		{"relayd/9.9.9 capability/x", "1.1.0", 2},
		{"relayd/9.9.9", "1.1.0", 2},
		{"relayd/1.0.1 capability/1", "1.0.1", 1},
	} {
		polled := w.do(t, call{
			method: "GET", path: "/v1/edge/policy", token: credential, header: http.Header{"User-Agent": {step.agent}},
		})
		if polled.status != http.StatusOK {
			t.Fatalf("%q: got %d %s", step.agent, polled.status, polled.body)
		}
		shown := w.ask(t, "GET", "/v1/edges/"+id, nil)
		if text(shown, "version") != step.version || shown["capability_version"] != step.capability {
			t.Errorf("after %q it is shown as %v", step.agent, shown)
		}
	}
}
