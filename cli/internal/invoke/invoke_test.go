package invoke

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/api/problem"
	"activerelay/api/reason"
	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

func contains(text []byte, part string) bool { return bytes.Contains(text, []byte(part)) }

// server answers each request with the next of its answers, the last one for
// ever, and keeps what it was asked.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	answers []http.HandlerFunc
	asked   []seen
}

type seen struct {
	line   string
	header http.Header
	body   string
}

func newServer(t *testing.T, answers ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.asked = append(s.asked, seen{line: r.Method + " " + r.URL.RequestURI(), header: r.Header.Clone(), body: string(body)})
		answer := s.answers[0]
		if len(s.answers) > 1 {
			s.answers = s.answers[1:]
		}
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// client pauses on no clock and notes how long it would have.
func (s *server) client(t *testing.T, change func(*Config)) (*Client, *[]time.Duration) {
	t.Helper()
	var pauses []time.Duration
	config := Config{
		URL: s.URL, Token: "rly_test", Retries: 3, UserAgent: "test",
		Wait: func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil },
	}
	if change != nil {
		change(&config)
	}
	client, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, &pauses
}

func jsonAnswer(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
}

func problemAnswer(p *problem.Problem) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", problem.ContentType)
		if seconds := p.RetryAfterSeconds(); seconds > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(seconds))
		}
		w.WriteHeader(p.Status)
		_ = problem.Encode(w, p)
	}
}

// broken drops the connection after the request was read.
func broken(w http.ResponseWriter, _ *http.Request) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		connection.Close()
	}
}

func row(t *testing.T, id string) *ops.Op {
	t.Helper()
	for _, op := range ops.Table() {
		if op.ID == id {
			return &op
		}
	}
	t.Fatalf("no operation %s", id)
	return nil
}

func TestARequestIsBuiltFromTheRowAndItsValues(t *testing.T) {
	s := newServer(t, jsonAnswer(200, `{}`))
	client, _ := s.client(t, nil)
	body, err := JSONBody(row(t, "updateDomain").Body, nil, map[string]any{"licensed-users": json.Number("60"), "time-zone": nil})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Do(t.Context(), Call{
		Op: row(t, "updateDomain"), Arguments: []string{"exa mple/com?"},
		Params: map[string][]string{"If-Match": {`"7"`}}, Body: body,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := s.requests()[0]
	if want := "PATCH /v1/domains/exa%20mple%2Fcom%3F"; got.line != want {
		t.Errorf("got %s, want %s", got.line, want)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer rly_test", "If-Match": `"7"`, "Content-Type": "application/merge-patch+json",
		"Accept": "application/json, application/problem+json", "User-Agent": "test",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
		}
	}
	if diff := cmp.Diff("{\n  \"licensed_users\": 60,\n  \"time_zone\": null\n}\n", got.body); diff != "" {
		t.Errorf("body -want +got:\n%s", diff)
	}
}

func TestQueryParametersAreEncodedAndListsRepeat(t *testing.T) {
	s := newServer(t, jsonAnswer(200, `{"secrets":[]}`))
	client, _ := s.client(t, nil)
	if _, err := client.Do(t.Context(), Call{Op: row(t, "getEdgeSecrets"), Params: map[string][]string{"id": {"a&b", "c"}}}); err != nil {
		t.Fatal(err)
	}
	if got, want := s.requests()[0].line, "GET /v1/edge/secrets?id=a%26b&id=c"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnArgumentThatWouldAddressAnotherObjectIsRefused(t *testing.T) {
	s := newServer(t, jsonAnswer(200, `{}`))
	client, _ := s.client(t, nil)
	for _, argument := range []string{"", ".", ".."} {
		_, err := client.Do(t.Context(), Call{Op: row(t, "getDomain"), Arguments: []string{argument}})
		if failure.CodeOf(err) != failure.Usage {
			t.Errorf("%q: got %v, want a usage error", argument, err)
		}
	}
	_, err := client.Do(t.Context(), Call{
		Op: row(t, "deleteDomain"), Arguments: []string{"example.com"},
		Params: map[string][]string{"If-Match": {"a\r\nX-Evil: 1"}},
	})
	if failure.CodeOf(err) != failure.Usage {
		t.Errorf("a header with a line break: got %v, want a usage error", err)
	}
	if len(s.requests()) != 0 {
		t.Errorf("something was sent: %v", s.requests())
	}
}

func TestAServerThatIsAwayIsNamed(t *testing.T) {
	s := newServer(t, jsonAnswer(200, `{}`))
	s.Close()
	client, pauses := s.client(t, nil)
	_, err := client.Do(t.Context(), Call{Op: row(t, "createToken"), Body: &Body{Type: "application/json"}})
	if failure.CodeOf(err) != failure.Unavailable || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("got %v, want an error that names %s", err, s.URL)
	}
	if len(*pauses) != 3 {
		t.Errorf("%d pauses, want 3: a request that was never sent can be sent again", len(*pauses))
	}
}

func TestNoAnswerInTimeIsUnavailable(t *testing.T) {
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	client, _ := s.client(t, func(c *Config) { c.Timeout = 20 * time.Millisecond })
	_, err := client.Do(t.Context(), Call{Op: row(t, "getDomain"), Arguments: []string{"a.example"}})
	if failure.CodeOf(err) != failure.Unavailable || !strings.Contains(err.Error(), "--timeout") {
		t.Errorf("got %v, want one that names --timeout", err)
	}
}

func TestAProblemIsShownWithFlagsReasonAndRequestID(t *testing.T) {
	p := problem.Invalid(
		problem.InvalidField{Pointer: "/licensed_users", Rule: "minimum", Message: "must be at least 0"},
		problem.InvalidField{Pointer: "/contacts/1", Rule: "format", Message: "is no address"},
		problem.InvalidField{Pointer: "query/status", Rule: "enum", Message: "is not known", Choices: []string{"a", "b"}},
		problem.InvalidField{Pointer: "path/domain", Rule: "minLength", Message: "is too short"},
	)
	p.RequestID = "req1"
	s := newServer(t, problemAnswer(p))
	client, _ := s.client(t, nil)
	_, err := client.Do(t.Context(), Call{Op: row(t, "putDomain"), Arguments: []string{"x"}, Body: &Body{Type: "application/json", Content: []byte("{}")}})
	var known *failure.Error
	if !errors.As(err, &known) {
		t.Fatalf("got %v", err)
	}
	want := &failure.Error{
		Code: failure.Usage, Title: p.Title, Detail: p.Detail, Reason: string(reason.InvalidRequest), RequestID: "req1",
		Fields: []failure.Field{
			{Pointer: "/licensed_users", Flag: "licensed-users", Rule: "minimum", Message: "must be at least 0"},
			{Pointer: "/contacts/1", Flag: "contacts", Rule: "format", Message: "is no address"},
			{Pointer: "query/status", Rule: "enum", Message: "is not known", Choices: []string{"a", "b"}},
			{Pointer: "DOMAIN", Rule: "minLength", Message: "is too short"},
		},
	}
	if diff := cmp.Diff(want, known); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestEveryStatusHasItsExitCode(t *testing.T) {
	for _, c := range []struct {
		problem *problem.Problem
		want    failure.Code
	}{
		{problem.Malformed("x"), failure.Usage},
		{problem.Unauthenticated(), failure.Auth},
		{problem.Forbidden("x"), failure.Auth},
		{problem.NotFound("domain"), failure.NotFound},
		{problem.Conflict("x"), failure.Conflict},
		{problem.PreconditionFailed(), failure.Conflict},
		{problem.RateLimited(0), failure.Limit},
		{problem.Unavailable(0), failure.Unavailable},
		{problem.Internal(), failure.Failed},
	} {
		t.Run(string(c.problem.Reason), func(t *testing.T) {
			s := newServer(t, problemAnswer(c.problem))
			client, _ := s.client(t, func(c *Config) { c.Retries = 0 })
			_, err := client.Do(t.Context(), Call{Op: row(t, "getDomain"), Arguments: []string{"x"}})
			if got := failure.CodeOf(err); got != c.want {
				t.Errorf("exit code %d, want %d (%v)", got, c.want, err)
			}
		})
	}
}

func TestAnAnswerOfSomethingElseIsNotTakenForOurs(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   failure.Code
		says   string
	}{
		{"a proxy's page", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>Bad gateway</h1>", http.StatusBadGateway)
		}, failure.Unavailable, "not from the control plane"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		}, failure.Failed, "https://evil.example/"},
		{"half a document", jsonAnswer(200, `{"name":`), failure.Failed, "not the JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, c.answer)
			client, _ := s.client(t, func(c *Config) { c.Retries = 0 })
			_, err := client.Do(t.Context(), Call{Op: row(t, "getDomain"), Arguments: []string{"x"}})
			if failure.CodeOf(err) != c.want || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v (code %d), want code %d and %q", err, failure.CodeOf(err), c.want, c.says)
			}
		})
	}
}

func TestPagesAreFollowedToTheEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		params map[string][]string
		most   int
		want   []string
		rows   int
	}{
		{name: "all", rows: 5, want: []string{"GET /v1/domains?page_size=200", "GET /v1/domains?page_size=200&page_token=t2", "GET /v1/domains?page_size=200&page_token=t3"}},
		{name: "enough", most: 3, rows: 4, want: []string{"GET /v1/domains?page_size=3", "GET /v1/domains?page_size=3&page_token=t2"}},
		{name: "own page size", params: map[string][]string{"page_size": {"2"}}, most: 1, rows: 2, want: []string{"GET /v1/domains?page_size=2"}},
		{name: "one page asked for", params: map[string][]string{"page_token": {"t2"}}, rows: 2, want: []string{"GET /v1/domains?page_size=200&page_token=t2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				pages := map[string]string{
					"":   `{"items":[{"name":"a"},{"name":"b"}],"next_page_token":"t2"}`,
					"t2": `{"items":[{"name":"c"},{"name":"d"}],"next_page_token":"t3"}`,
					"t3": `{"items":[{"name":"e"}]}`,
				}
				jsonAnswer(200, pages[r.URL.Query().Get("page_token")])(w, r)
			})
			client, _ := s.client(t, nil)
			rows := 0
			for answer, err := range client.Pages(t.Context(), Call{Op: row(t, "listDomains"), Params: c.params}, c.most) {
				if err != nil {
					t.Fatal(err)
				}
				rows += len(Rows(answer.Value, "items"))
			}
			var lines []string
			for _, asked := range s.requests() {
				lines = append(lines, asked.line)
			}
			if diff := cmp.Diff(c.want, lines); diff != "" {
				t.Errorf("requests -want +got:\n%s", diff)
			}
			if rows != c.rows {
				t.Errorf("%d rows, want %d", rows, c.rows)
			}
		})
	}
}

func TestAnErrorEndsThePages(t *testing.T) {
	s := newServer(t, jsonAnswer(200, `{"items":[{}],"next_page_token":"x"}`), problemAnswer(problem.Malformed("bad cursor")))
	client, _ := s.client(t, nil)
	var pages int
	var last error
	for _, err := range client.Pages(t.Context(), Call{Op: row(t, "listDomains")}, 0) {
		if last = err; err == nil {
			pages++
		}
	}
	if pages != 1 || failure.CodeOf(last) != failure.Usage {
		t.Errorf("%d pages, then %v", pages, last)
	}
}

func TestARawAnswerIsStreamed(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/csv")
		fmt.Fprint(w, "day,domain\n")
	})
	client, _ := s.client(t, nil)
	answer, err := client.Do(t.Context(), Call{Op: row(t, "exportQuotaReports")})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || string(text) != "day,domain\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestADryRunShowsTheRequestWithoutSecrets(t *testing.T) {
	s := newServer(t, jsonAnswer(200, `{}`))
	client, _ := s.client(t, func(c *Config) { c.Token = "rly_secret"; c.URL = "https://relay.example.com"; c.AllowHTTP = false })
	body, err := JSONBody(row(t, "createRoute").Body, nil, map[string]any{"host": "mx.example.net", "password": "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	if err := client.Show(t.Context(), &shown, Call{Op: row(t, "createRoute"), Body: body}); err != nil {
		t.Fatal(err)
	}
	want := `POST https://relay.example.com/v1/routes
Accept: application/json, application/problem+json
Authorization: Bearer ********
Content-Type: application/json
Idempotency-Key: (a new one)
User-Agent: test

{
  "host": "mx.example.net",
  "password": "********"
}
`
	if diff := cmp.Diff(want, shown.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(s.requests()) != 0 {
		t.Error("a dry run sent something")
	}
}

func TestTheTokenIsNotSentWithoutTLSToAnotherHost(t *testing.T) {
	for _, c := range []struct {
		url, token string
		allow, ok  bool
	}{
		{url: "https://relay.example.com", token: "t", ok: true},
		{url: "http://127.0.0.1:8080", token: "t", ok: true},
		{url: "http://[::1]:8080", token: "t", ok: true},
		{url: "http://localhost:8080", token: "t", ok: true},
		{url: "http://relay.example.com", ok: true},
		{url: "http://relay.example.com", token: "t"},
		{url: "http://127.0.0.1.evil.example", token: "t"},
		{url: "http://relay.example.com", token: "t", allow: true, ok: true},
		{url: "relay.example.com", token: "t"},
		{url: "ftp://relay.example.com"},
		{url: "https://u:p@relay.example.com"},
		{url: "https://relay.example.com?x=1"},
	} {
		_, err := New(Config{URL: c.url, Token: c.token, AllowHTTP: c.allow})
		if (err == nil) != c.ok {
			t.Errorf("%+v: got %v", c, err)
		}
		if err != nil && failure.CodeOf(err) != failure.Usage {
			t.Errorf("%+v: exit code %d, want usage", c, failure.CodeOf(err))
		}
	}
}

func TestACAFileIsTrustedAndABadOneNamed(t *testing.T) {
	s := httptest.NewTLSServer(jsonAnswer(200, `{"status":"ok"}`))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	certificate := "-----BEGIN CERTIFICATE-----\n" + base64Lines(s.Certificate().Raw) + "-----END CERTIFICATE-----\n"
	if err := os.WriteFile(file, []byte(certificate), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		ca   string
		want failure.Code
	}{{"trusted", file, failure.OK}, {"the system's", "", failure.Unavailable}} {
		t.Run(c.name, func(t *testing.T) {
			client, err := New(Config{URL: s.URL, CAFile: c.ca})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.Do(t.Context(), Call{Op: row(t, "getHealth")})
			if failure.CodeOf(err) != c.want {
				t.Errorf("got %v, want code %d", err, c.want)
			}
			var known *failure.Error
			if errors.As(err, &known) && !strings.Contains(known.Next, "--ca-file") {
				t.Errorf("got %v and %q, want a word about --ca-file", err, known.Next)
			}
		})
	}
	bad := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(bad, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{URL: s.URL, CAFile: bad}); failure.CodeOf(err) != failure.Usage {
		t.Errorf("an empty file: got %v, want a usage error", err)
	}
}

func base64Lines(der []byte) string {
	text := base64.StdEncoding.EncodeToString(der)
	var b strings.Builder
	for part := range slices.Chunk([]byte(text), 64) {
		b.Write(part)
		b.WriteByte('\n')
	}
	return b.String()
}
