package uplink

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/api/problem"
	"activerelay/relayd/internal/journal"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"golang.org/x/crypto/nacl/box"
)

const joinToken = "rly_join_for_the_tests"

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

var quiet = slog.New(slog.DiscardHandler)

// contract is openapi.yaml, to which every request is held.
var contract = sync.OnceValues(func() (*openapi3.T, error) {
	return openapi3.NewLoader().LoadFromFile("../../../openapi.yaml")
})

// plane is a control plane that keeps what the edge protocol promises: idempotent joining, a grace for the old credential,
// secrets sealed to the key that joined, events taken once and in order.
type plane struct {
	t      testing.TB
	server *httptest.Server

	mu      sync.Mutex
	trouble func(path string) *problem.Problem // what to answer instead; nil does not
	lost    bool                               // do what is asked, and lose the reply

	calls   map[string]int
	public  string
	joined  map[string]api.EdgeJoined // by Idempotency-Key
	tokens  map[string]bool           // used join tokens
	current string                    // credentials
	pending string
	made    int

	secrets map[string]secret

	generation, acked int64
	events            []api.EdgeEvent // taken, in order
	// refuses says which events it refuses, and so every batch with one of them; nil refuses none.
	refuses func(api.EdgeEvent) *problem.Problem
}

type secret struct {
	version int64
	plain   string
}

func newPlane(t testing.TB) *plane {
	p := &plane{
		t: t, calls: map[string]int{}, joined: map[string]api.EdgeJoined{}, tokens: map[string]bool{}, generation: 1,
		secrets: map[string]secret{FeedbackSecret: {1, "a feedback key of 32 bytes, here"}},
	}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

// client calls the plane over HTTP, with the credential of store() at each call.
func (p *plane) client(store func() *Store) *client.ClientWithResponses {
	p.t.Helper()
	c, err := client.New(client.Config{URL: p.server.URL, Token: func() string {
		if s := store(); s != nil {
			return s.Token()
		}
		return ""
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// ServeHTTP implements http.Handler.
func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(r); err != nil {
		p.t.Errorf("the contract refuses %s %s: %v", r.Method, r.URL.Path, err)
	}
	call := strings.TrimPrefix(r.URL.Path, "/v1/edge/")
	p.calls[call]++
	if p.trouble != nil {
		if answer := p.trouble(call); answer != nil {
			refuse(w, answer)
			return
		}
	}
	status, body := p.answer(call, r)
	if p.lost {
		panic(http.ErrAbortHandler)
	}
	if refused, ok := body.(*problem.Problem); ok {
		refuse(w, refused)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, p *problem.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = problem.Encode(w, p)
}

func (p *plane) check(r *http.Request) error {
	document, err := contract()
	if err != nil {
		return err
	}
	item := document.Paths.Value(r.URL.Path)
	if item == nil || item.GetOperation(r.Method) == nil {
		return errors.New("there is no such operation")
	}
	route := &routers.Route{Spec: document, Path: r.URL.Path, PathItem: item, Method: r.Method, Operation: item.GetOperation(r.Method)}
	return openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: r, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, MultiError: true},
	})
}

func (p *plane) answer(call string, r *http.Request) (int, any) {
	if call == "join" {
		return p.join(r)
	}
	switch credential := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); {
	case credential == "":
		return 0, problem.Unauthenticated()
	case credential == p.pending:
		p.current, p.pending = p.pending, "" // first used: the grace is over
	case credential != p.current:
		return 0, problem.Unauthenticated()
	}
	switch call {
	case "rotate-credential":
		p.made++
		p.pending = fmt.Sprintf("credential-%d", p.made)
		return 200, api.EdgeCredential{EdgeID: "edg_1", Credential: p.pending}
	case "secrets":
		return p.sealed(r.URL.Query().Get("id"))
	case "events":
		return p.take(r)
	}
	return 0, problem.NotFound("operation")
}

func (p *plane) join(r *http.Request) (int, any) {
	key := r.Header.Get("Idempotency-Key")
	if before, ok := p.joined[key]; ok {
		return 201, before
	}
	var body api.EdgeJoin
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.JoinToken == nil || p.tokens[*body.JoinToken] {
		return 0, problem.Unauthenticated()
	}
	p.tokens[*body.JoinToken] = true
	p.public, p.current = body.PublicKey, "credential-0"
	p.joined[key] = api.EdgeJoined{EdgeID: "edg_1", Credential: p.current, Generation: 1}
	return 201, p.joined[key]
}

func (p *plane) sealed(id string) (int, any) {
	s, ok := p.secrets[id]
	if !ok {
		return 0, problem.NotFound("secret")
	}
	return 200, api.SecretList{Secrets: []api.SealedSecret{{ID: id, Version: s.version, Sealed: seal(p.t, p.public, s.plain)}}}
}

func seal(t testing.TB, public, plain string) string {
	k, err := key(public)
	if err != nil {
		t.Error(err)
		return ""
	}
	sealed, err := box.SealAnonymous(nil, []byte(plain), k, nil)
	if err != nil {
		t.Error(err)
	}
	return base64.StdEncoding.EncodeToString(sealed)
}

func (p *plane) take(r *http.Request) (int, any) {
	var batch api.EventBatch
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
		return 0, problem.Malformed("no batch")
	}
	for _, e := range batch.Events {
		if p.refuses != nil && p.refuses(e) != nil {
			return 0, p.refuses(e)
		}
	}
	if batch.Generation < p.generation {
		return 0, problem.EdgeFenced("old generation")
	}
	if batch.Generation > p.generation {
		p.generation, p.acked = batch.Generation, batch.FirstKept-1
	}
	p.acked = max(p.acked, batch.FirstKept-1)
	for _, e := range batch.Events {
		if e.Sequence == p.acked+1 {
			p.acked++
			p.events = append(p.events, e)
		}
	}
	return 200, api.EventAck{Acknowledged: p.acked}
}

// set changes the plane between calls.
func (p *plane) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *plane) count(call string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[call]
}

// inside calls the plane without a network, for tests whose clock stands still while anybody runs.
func (p *plane) inside() *client.ClientWithResponses {
	p.current = "credential-0"
	c, err := client.NewClientWithResponses("http://plane.test", client.WithHTTPClient(direct{p}))
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

type direct struct{ plane *plane }

func (d direct) Do(r *http.Request) (reply *http.Response, err error) {
	defer func() {
		if recover() != nil {
			err = io.ErrUnexpectedEOF
		}
	}()
	r.Header.Set("Authorization", "Bearer "+d.plane.current)
	recorder := httptest.NewRecorder()
	d.plane.ServeHTTP(recorder, r)
	reply = recorder.Result()
	if reply.StatusCode >= 300 {
		return nil, problem.Decode(reply.StatusCode, reply.Header.Get("Content-Type"), reply.Body)
	}
	return reply, nil
}

func (p *plane) config(dir string) JoinConfig {
	return JoinConfig{
		Dir: dir, Server: p.server.URL, Name: "fra1", JoinToken: joinToken, Version: "1.0.0",
		Client: p.client(func() *Store { return nil }), Now: func() time.Time { return noon },
	}
}

// joinedEdge joins with a data directory of its own.
func joinedEdge(t testing.TB, p *plane) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	store, err := Join(context.Background(), p.config(dir))
	if err != nil {
		t.Fatal(err)
	}
	return store, dir
}

func openJournal(t testing.TB, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}
