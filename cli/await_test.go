package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
)

// operated begins an operation for two edges. The answer to each request that
// asks after it is what stands tells: how it is, or a refusal.
func operated(t *testing.T, stands func() (*api.QueueOperation, *problem.Problem)) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown, status := &api.QueueOperation{Edges: 2}, http.StatusAccepted
		if r.Method == http.MethodGet {
			if r.URL.Path != "/v1/queue/operations/qop_1" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			var refused *problem.Problem
			if shown, refused = stands(); refused != nil {
				w.Header().Set("Content-Type", problem.ContentType)
				w.WriteHeader(refused.Status)
				_ = problem.Encode(w, refused)
				return
			}
			status = http.StatusOK
		}
		shown.ID, shown.Action, shown.Matched = "qop_1", "hold", 1
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(shown)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// finished is an operation that both edges have answered.
func finished(unable int64) func() (*api.QueueOperation, *problem.Problem) {
	return func() (*api.QueueOperation, *problem.Problem) {
		at := time.Date(2026, 11, 24, 9, 0, 1, 0, time.UTC)
		return &api.QueueOperation{Edges: 2, EdgesAcknowledged: 2, EdgesDone: 2, EdgesUnable: unable, FinishedAt: &at}, nil
	}
}

// underWay is an operation that one of the edges has not answered.
func underWay(unable int64) func() (*api.QueueOperation, *problem.Problem) {
	return func() (*api.QueueOperation, *problem.Problem) {
		return &api.QueueOperation{Edges: 2, EdgesAcknowledged: 1, EdgesDone: 1, EdgesUnable: unable}, nil
	}
}

func onQueue(verb, url string, more ...string) []string {
	return append([]string{"queue", verb, "--domain", "a.example", "--yes", "--token", "t", "--retries", "0", "--url", url}, more...)
}

func TestWaitingForAnOperationEndsWithIt(t *testing.T) {
	asked := 0
	url := operated(t, func() (*api.QueueOperation, *problem.Problem) {
		if asked++; asked < 3 {
			return underWay(0)()
		}
		return finished(0)()
	})
	got := newDesk(t).run(t, onQueue("hold", url, "--wait", "1m", "--jq", ".finished_at")...).expect(t, 0)
	if got.stdout != "2026-11-24T09:00:01Z\n" || got.stderr != "" || asked != 3 {
		t.Errorf("printed %q and said %q after %d looks", got.stdout, got.stderr, asked)
	}
	newDesk(t).run(t, onQueue("hold", url)...).expect(t, 0)
	if asked != 3 {
		t.Error("it was waited for, which nobody asked for")
	}
	newDesk(t).run(t, onQueue("hold", url, "--wait=-5s")...).expect(t, 2, "--wait takes a positive duration such as 30s, not -5s")
}

// Where an edge is unable, nothing was done to the mail there, and the operation is finished all the same.
func TestAnOperationThatAnEdgeCouldNotCarryOutFails(t *testing.T) {
	for _, verb := range []string{"retry", "hold", "release", "cancel"} {
		url := operated(t, finished(1))
		want := "relayctl: 1 of 2 edges could not: relayd there does not understand this and changed nothing; " +
			"upgrade it there, then say relayctl queue " + verb + " again\n" +
			"  try        relayctl edge list\n"
		got := newDesk(t).run(t, onQueue(verb, url, "--wait", "1m", "-o", "json")...).expect(t, 1)
		var op api.QueueOperation
		if err := json.Unmarshal([]byte(got.stdout), &op); err != nil || op.ID != "qop_1" || op.EdgesUnable != 1 || op.FinishedAt == nil {
			t.Errorf("%s printed %v, %s", verb, err, got.stdout)
		}
		if got.stderr != want {
			t.Errorf("%s said\n%swant\n%s", verb, got.stderr, want)
		}
		got = newDesk(t).run(t, onQueue(verb, url, "--wait", "1m")...).expect(t, 1, want)
		shown := strings.Join(strings.Fields(got.stdout), " ")
		if !strings.Contains(shown, "edges 2 edges done 2 edges unable 1 messages 0") {
			t.Errorf("%s shows\n%s", verb, got.stdout)
		}
	}
}

// An edge that is away carries it out when it is back.
func TestAnOperationThatAnEdgeDoesNotAnswerIsNotFinishedWhenTheTimeIsOver(t *testing.T) {
	got := newDesk(t).run(t, onQueue("hold", operated(t, underWay(0)), "--wait", "100ms", "--jq", ".finished_at")...).expect(t, 8)
	want := "relayctl: Not finished: not finished after 100ms; it goes on\n  try        relayctl queue operation show qop_1\n"
	if got.stdout != "null\n" || got.stderr != want {
		t.Errorf("printed %q and said %q", got.stdout, got.stderr)
	}
	newDesk(t).run(t, onQueue("hold", operated(t, underWay(1)), "--wait", "100ms")...).expect(t, 8,
		"it goes on, but 1 of 2 edges could not: relayd there does not understand this", "try        relayctl queue operation show qop_1\n")
}

// The looks before the time is over are at 50 ms only: the last is when it is over.
func TestAnOperationThatIsFinishedInTimeIsSeenToBe(t *testing.T) {
	begun := time.Now()
	url := operated(t, func() (*api.QueueOperation, *problem.Problem) {
		if time.Since(begun) < 140*time.Millisecond {
			return underWay(0)()
		}
		return finished(0)()
	})
	newDesk(t).run(t, onQueue("hold", url, "--wait", "140ms")...).expect(t, 0)
}

// What was begun goes on, whatever becomes of asking after it: the exit code of
// a refusal would say that nothing was begun.
func TestAnOperationThatCannotBeAskedAfterIsNotFinishedAndNotRefused(t *testing.T) {
	for _, refused := range []*problem.Problem{
		problem.RateLimited(time.Second), problem.Forbidden(""), problem.NotFound("operation"), problem.Internal(),
	} {
		url := operated(t, func() (*api.QueueOperation, *problem.Problem) { return nil, refused })
		got := newDesk(t).run(t, onQueue("hold", url, "--wait", "1m", "--jq", ".id")...).expect(t, 8,
			"Not finished: "+refused.Title, "; it goes on\n", "try        relayctl queue operation show qop_1\n")
		if got.stdout != "qop_1\n" {
			t.Errorf("printed %q", got.stdout)
		}
	}
}

// Who interrupts the waiting is told what goes on without him.
func TestWaitingThatIsInterruptedShowsWhatGoesOn(t *testing.T) {
	for name, interrupt := range map[string]func(stop context.CancelFunc){
		"between two looks": func(stop context.CancelFunc) { time.AfterFunc(time.Millisecond, stop) },
		"during a look":     func(stop context.CancelFunc) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			url := operated(t, func() (*api.QueueOperation, *problem.Problem) {
				interrupt(stop)
				return underWay(0)()
			})
			var stdout, stderr bytes.Buffer
			env := Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(string) string { return "" }}
			code := Main(ctx, onQueue("hold", url, "--wait", "1m", "--jq", ".id", "--config", put(t, "")), env)
			want := "relayctl: Interrupted: not finished; it goes on\n  try        relayctl queue operation show qop_1\n"
			if code != 130 || stdout.String() != "qop_1\n" || stderr.String() != want {
				t.Errorf("exit code %d, printed %q and said %q", code, stdout.String(), stderr.String())
			}
		})
	}
}
