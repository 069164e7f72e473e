package apitest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/server"
	"activerelay/server/internal/store/storetest"
	"activerelay/server/internal/store/storetest/pgtest"
	"activerelay/server/servertest"
)

// postgres is the PostgreSQL server of this package's tests.
var postgres pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &postgres)) }

// morning is when most tests begin.
var morning = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// world is a control plane whose clock stands, whose log is kept and whose database can be looked into.
type world struct {
	*servertest.Server
	database storetest.Database
	clock    *storetest.Clock
	log      *logBook

	// serial makes addresses and names that nobody has yet.
	serial int
}

// settings change how the control plane of a world runs.
type settings func(*server.Config)

func newWorld(t *testing.T, change ...settings) *world {
	t.Helper()
	return startWorld(t, storetest.SQLite(t), t.TempDir(), change...)
}

// eachDatabase runs a test on a control plane over either database.
func eachDatabase(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	storetest.Each(t, &postgres, func(t *testing.T, database storetest.Database) {
		test(t, startWorld(t, database, t.TempDir()))
	})
}

func startWorld(t *testing.T, database storetest.Database, dir string, change ...settings) *world {
	t.Helper()
	w := &world{database: database, clock: storetest.NewClock(morning), log: &logBook{}}
	w.Server = servertest.Start(t, servertest.Config{
		Now: w.clock.Now, Database: database.URL, DataDir: dir,
		Configure: func(c *server.Config) {
			c.Log = slog.New(w.log)
			for _, one := range change {
				one(c)
			}
		},
	})
	return w
}

// reply is a response that was read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// call is a request. Its zero value asks nothing of anybody.
type call struct {
	method, path, token string
	// body is JSON text, or a value that is encoded as JSON; nil sends none.
	body   any
	header http.Header
}

func (w *world) do(t *testing.T, c call) reply {
	t.Helper()
	answer, err := w.attempt(t.Context(), c)
	if err != nil {
		t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	return answer
}

// attempt is do for goroutines, which must not end the test.
func (w *world) attempt(ctx context.Context, c call) (reply, error) {
	var body []byte
	switch given := c.body.(type) {
	case nil:
	case string:
		body = []byte(given)
	default:
		var err error
		if body, err = json.Marshal(given); err != nil {
			return reply{}, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, c.method, w.URL+c.path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	switch {
	case c.body == nil:
		request.Body, request.ContentLength = http.NoBody, 0
	case c.method == http.MethodPatch:
		request.Header.Set("Content-Type", "application/merge-patch+json")
	default:
		request.Header.Set("Content-Type", "application/json")
	}
	for name, values := range c.header {
		request.Header[name] = values
	}
	answer, err := w.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return reply{status: answer.StatusCode, header: answer.Header, body: text}, err
}

// ask makes a call as the operator that must succeed, and returns its JSON.
func (w *world) ask(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	return w.askAs(t, w.Token, method, path, body)
}

func (w *world) askAs(t *testing.T, token, method, path string, body any) map[string]any {
	t.Helper()
	answer := w.do(t, call{method: method, path: path, token: token, body: body})
	if answer.status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, answer.status, answer.body)
	}
	if len(answer.body) == 0 {
		return nil
	}
	return answer.json(t)
}

func (r reply) json(t *testing.T) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(r.body, &object); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return object
}

// told is a problem as clients read it.
type told struct {
	Reason    string         `json:"reason"`
	Detail    string         `json:"detail"`
	RequestID string         `json:"request_id"`
	Errors    []invalidField `json:"errors"`
}

type invalidField struct {
	Pointer string   `json:"pointer"`
	Rule    string   `json:"rule"`
	Message string   `json:"message"`
	Choices []string `json:"choices"`
}

func (r reply) problem(t *testing.T) told {
	t.Helper()
	var p told
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatalf("%d is no problem: %s", r.status, r.body)
	}
	return p
}

// wants fails the test unless the reply has a status and, where a reason is given, is that problem.
func (r reply) wants(t *testing.T, status int, reason string) {
	t.Helper()
	if r.status != status || reason != "" && r.problem(t).Reason != reason {
		t.Fatalf("got %d %s, want %d %s", r.status, r.body, status, reason)
	}
}

func text(object map[string]any, name string) string {
	value, _ := object[name].(string)
	return value
}

// logBook keeps all that is logged, down to debug, and counts the database statements that requests make.
type logBook struct {
	statements atomic.Int64

	mu   sync.Mutex
	text strings.Builder
}

func (*logBook) Enabled(context.Context, slog.Level) bool { return true }

func (b *logBook) Handle(ctx context.Context, record slog.Record) error {
	// What runs in the background has no connection behind it.
	if record.Message == "database statement" && ctx.Value(http.ServerContextKey) != nil {
		b.statements.Add(1)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.WriteString(record.Message)
	record.Attrs(func(a slog.Attr) bool {
		b.text.WriteString(" " + a.String())
		return true
	})
	b.text.WriteByte('\n')
	return nil
}

func (b *logBook) WithAttrs([]slog.Attr) slog.Handler { return b }
func (b *logBook) WithGroup(string) slog.Handler      { return b }

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
