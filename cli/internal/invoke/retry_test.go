package invoke

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/api/problem"
	"activerelay/cli/internal/failure"
)

func TestARetryWaitsAsLongAsTheServerSays(t *testing.T) {
	s := newServer(t, problemAnswer(problem.RateLimited(7*time.Second)), jsonAnswer(200, `{"name":"example.com"}`))
	client, pauses := s.client(t, nil)
	answer, err := client.Do(t.Context(), Call{Op: row(t, "getDomain"), Arguments: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"name": "example.com"}, answer.Value); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]time.Duration{7 * time.Second}, *pauses); diff != "" {
		t.Errorf("pauses: %s", diff)
	}
}

func TestARetryAfterBeyondTheTimeLimitIsReportedAtOnce(t *testing.T) {
	s := newServer(t, problemAnswer(problem.RateLimited(time.Hour)))
	client, pauses := s.client(t, nil)
	_, err := client.Do(t.Context(), Call{Op: row(t, "getDomain"), Arguments: []string{"example.com"}})
	if failure.CodeOf(err) != failure.Limit || len(*pauses) != 0 || len(s.requests()) != 1 {
		t.Errorf("got %v after %d requests and pauses %v, want a limit error after one request", err, len(s.requests()), *pauses)
	}
}

func TestWhatIsTriedAgainAndWhatIsNot(t *testing.T) {
	busy := problemAnswer(problem.Unavailable(time.Second))
	reset := http.HandlerFunc(broken)
	for _, c := range []struct {
		name   string
		op     string
		args   []string
		params map[string][]string
		first  http.HandlerFunc
		want   int // requests that the server sees
	}{
		{name: "busy, a read", op: "getDomain", args: []string{"a.example"}, first: busy, want: 2},
		{name: "busy, a deletion", op: "deleteDomain", args: []string{"a.example"}, first: busy, want: 2},
		{name: "in progress, same key", op: "createToken", first: problemAnswer(problem.IdempotencyInProgress()), want: 2},
		{name: "conflict", op: "createToken", first: problemAnswer(problem.Conflict("x")), want: 1},
		{name: "lost, a read", op: "getDomain", args: []string{"a.example"}, first: reset, want: 2},
		{name: "lost, with an idempotency key", op: "createToken", first: reset, want: 2},
		{name: "lost, a POST without one", op: "leaseQuota", first: reset, want: 1},
		{name: "lost, a PUT", op: "putDomain", args: []string{"a.example"}, first: reset, want: 2},
		{name: "lost, a PUT of what was seen", op: "putDomain", args: []string{"a.example"}, params: map[string][]string{"If-Match": {`"1"`}}, first: reset, want: 1},
		{name: "lost, a deletion", op: "deleteDomain", args: []string{"a.example"}, first: reset, want: 1},
		{name: "lost, a change", op: "updateDomain", args: []string{"a.example"}, first: reset, want: 1},
		{name: "internal error", op: "getDomain", args: []string{"a.example"}, first: problemAnswer(problem.Internal()), want: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, c.first, jsonAnswer(200, `{}`))
			client, _ := s.client(t, nil)
			op := row(t, c.op)
			call := Call{Op: op, Arguments: c.args, Params: c.params}
			if op.Body != nil { // a body that can be sent twice only from memory
				call.Body = &Body{Type: op.Body.Types[0], Content: []byte("{}")}
			}
			_, err := client.Do(t.Context(), call)
			if got := len(s.requests()); got != c.want {
				t.Errorf("%d requests, want %d (%v)", got, c.want, err)
			}
			if (err == nil) != (c.want == 2) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestAllAttemptsOfAPostShareOneIdempotencyKey(t *testing.T) {
	s := newServer(t, broken, problemAnswer(problem.Unavailable(0)), jsonAnswer(201, `{}`))
	client, _ := s.client(t, nil)
	call := Call{Op: row(t, "createToken"), Body: &Body{Type: "application/json", Content: []byte("{}")}}
	for range 2 {
		if _, err := client.Do(t.Context(), call); err != nil {
			t.Fatal(err)
		}
	}
	asked := s.requests()
	key := func(i int) string { return asked[i].header.Get("Idempotency-Key") }
	if len(asked) != 4 || key(0) == "" || key(0) != key(1) || key(1) != key(2) {
		t.Errorf("the attempts do not share a key: %v", asked)
	}
	if key(3) == key(0) {
		t.Errorf("another call has the same key")
	}
	if asked[1].body != "{}" {
		t.Errorf("the second attempt has body %q", asked[1].body)
	}
}

func TestRetriesComeToAnEnd(t *testing.T) {
	s := newServer(t, problemAnswer(problem.Unavailable(0)))
	client, pauses := s.client(t, func(c *Config) { c.Retries = 2 })
	_, err := client.Do(t.Context(), Call{Op: row(t, "getDomain"), Arguments: []string{"a.example"}})
	if failure.CodeOf(err) != failure.Unavailable || len(s.requests()) != 3 {
		t.Errorf("got %v after %d requests, want unavailable after 3", err, len(s.requests()))
	}
	for i, pause := range *pauses {
		if full := firstBackoff << i; pause > full || pause < full/2 {
			t.Errorf("pause %d is %s, want half to all of %s", i, pause, full)
		}
	}
}

func TestRetryAfterReadsSecondsAndDates(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "soon": 0,
		"Sun, 22 Nov 2026 09:00:30 GMT": 30 * time.Second, "Sun, 22 Nov 2026 08:00:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
