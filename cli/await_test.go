package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"activerelay/api/problem"
)

// operated answers a queue operation, and as finished once it was asked for so
// many times; the requests are counted.
func operated(t *testing.T, finishedAfter int) (url string, asked *int) {
	t.Helper()
	asked = new(int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		finished := ""
		if r.Method == http.MethodGet {
			if r.URL.Path != "/v1/queue/operations/qop_1" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			*asked++
			if *asked >= finishedAfter {
				finished = `,"finished_at":"2026-11-24T09:00:01Z"`
			}
		} else {
			w.WriteHeader(http.StatusAccepted)
		}
		fmt.Fprintf(w, `{"id":"qop_1","action":"retry","matched":1,"edges":2,"edges_done":1%s}`, finished)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// What was begun goes on, whatever becomes of asking after it.
func TestAnOperationThatCannotBeAskedAfterIsNotFinishedAndNotRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			p := problem.RateLimited(time.Second)
			w.Header().Set("Content-Type", problem.ContentType)
			w.WriteHeader(p.Status)
			_ = problem.Encode(w, p)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"id":"qop_1","action":"retry","matched":1,"edges":2,"edges_done":1}`)
	}))
	t.Cleanup(server.Close)
	newDesk(t).run(t, "queue", "retry", "--domain", "a.example", "--url", server.URL, "--token", "t", "--wait", "1m", "--retries", "0").expect(t, 8,
		"Not finished: ", "it goes on", "try        relayctl queue operation show qop_1\n")
}

func TestWaitingForAnOperationEndsWithItOrWithExitCode8(t *testing.T) {
	retry := []string{"queue", "retry", "--domain", "a.example", "--token", "t", "-o", "json", "--jq", ".finished_at"}
	url, asked := operated(t, 3)
	got := newDesk(t).run(t, append(retry, "--url", url, "--wait", "1m")...).expect(t, 0)
	if got.stdout != "2026-11-24T09:00:01Z\n" && got.stdout != "\"2026-11-24T09:00:01Z\"\n" || *asked != 3 {
		t.Errorf("printed %q after %d looks", got.stdout, *asked)
	}

	url, _ = operated(t, 1<<30)
	got = newDesk(t).run(t, append(retry, "--url", url, "--wait", "100ms")...).expect(t, 8,
		"Not finished: not finished after 100ms; it goes on", "relayctl queue operation show qop_1")
	if got.stdout != "null\n" {
		t.Errorf("printed %q", got.stdout)
	}

	url, asked = operated(t, 1)
	newDesk(t).run(t, append(retry, "--url", url)...).expect(t, 0)
	if *asked != 0 {
		t.Error("it was waited for, which nobody asked for")
	}
}
