package policysync_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/api/policy"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/policysync"

	"pgregory.net/rapid"
)

// plane is a control plane that knows nothing but policy documents.
type plane struct {
	mu        sync.Mutex
	epoch     string
	revision  int64
	documents map[string]api.PolicyDocument
	pageSize  int
	gone      bool   // answer 410 to whoever comes from another epoch
	raw       string // answer this body instead
	cut       bool   // end the answer in its middle
	kind      string // Content-Type of raw; empty is JSON
	acked     []string
	server    *httptest.Server
}

func newPlane(t testing.TB) *plane {
	p := &plane{epoch: "e1", documents: map[string]api.PolicyDocument{}, pageSize: 2}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.server.Close)
	return p
}

func (p *plane) put(name string, limit int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revision++
	p.documents["domain/"+name] = api.PolicyDocument{Key: "domain/" + name, Revision: p.revision, Domain: &api.DomainPolicy{
		Name: name, Partner: "acme", Status: api.AdministrativeStatusActive, Relaying: api.Relaying{State: api.RelayingStateEnabled}, Limit: limit,
		UsersMaySendAs: api.DomainPolicyUsersMaySendAsOwn, Clients: []api.ClientPolicy{}, Users: []api.UserPolicy{}, Routes: []api.RoutePolicy{}, Contacts: []string{},
	}}
}

func (p *plane) remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revision++
	p.documents["domain/"+name] = api.PolicyDocument{Key: "domain/" + name, Revision: p.revision, Deleted: true}
}

func (p *plane) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for key, d := range p.documents {
		if !d.Deleted {
			names = append(names, fmt.Sprintf("%s=%d", strings.TrimPrefix(key, "domain/"), d.Domain.Limit))
		}
	}
	slices.Sort(names)
	return names
}

func (p *plane) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.raw != "" {
		w.Header().Set("Content-Type", cmp.Or(p.kind, "application/json"))
		if p.cut {
			w.Header().Set("Content-Length", strconv.Itoa(len(p.raw)+100))
		}
		io.WriteString(w, p.raw)
		return
	}
	epoch, after := r.URL.Query().Get("epoch"), r.URL.Query().Get("after")
	p.acked = append(p.acked, after)
	if epoch != "" && epoch != p.epoch && p.gone {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusGone)
		io.WriteString(w, `{"type":"urn:activerelay:reason:policy-gone","title":"Gone","status":410,"reason":"policy-gone","request_id":"r"}`)
		return
	}
	documents := p.after(after)
	if len(documents) == 0 && epoch != "" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	page := api.PolicyPage{
		Epoch: p.epoch, Documents: documents, Instructions: []api.Instruction{}, Now: time.Now(), Next: fmt.Sprintf("%d,~", p.revision),
	}
	if len(documents) > p.pageSize {
		page.Documents, page.More = documents[:p.pageSize], true
		last := page.Documents[p.pageSize-1]
		page.Next = fmt.Sprintf("%d,%s", last.Revision, last.Key)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(page)
}

func (p *plane) after(cursor string) []api.PolicyDocument {
	var revision int64
	fmt.Sscanf(cursor, "%d,", &revision)
	documents := []api.PolicyDocument{}
	for _, key := range slices.Sorted(maps.Keys(p.documents)) {
		if p.documents[key].Revision > revision {
			documents = append(documents, p.documents[key])
		}
	}
	slices.SortFunc(documents, func(a, b api.PolicyDocument) int { return int(a.Revision - b.Revision) })
	return documents
}

type edge struct {
	*policysync.Syncer
	journal *journal.Journal
	now     time.Time
	// instructed are the instructions that were handed on.
	instructed []string
}

func open(t fataler, p *plane, dir string) *edge {
	j, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{URL: p.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{journal: j, now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	e.Syncer, err = policysync.Open(policysync.Config{
		Client: c, Journal: j, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: func() time.Time { return e.now },
		Instruct: func(_ context.Context, instructions []json.RawMessage) error {
			for _, text := range instructions {
				e.instructed = append(e.instructed, string(text))
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *edge) pull(t fataler, times int) {
	for range times {
		if err := e.Pull(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// confirmed is whether a whole policy was confirmed since the start.
func (e *edge) confirmed() bool {
	status := e.Status()
	return status.Complete && !status.LastSuccess.IsZero()
}

func held(table *policy.Table) []string {
	var names []string
	for d := range table.Domains() {
		names = append(names, fmt.Sprintf("%s=%d", d.Name, d.Limit))
	}
	slices.Sort(names)
	return names
}

func TestAnEdgeServesFromItsDiskWhatItLastEnforced(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.put("one.example", 1000)
	p.put("two.example", 2000)
	p.put("three.example", 3000)
	e := open(t, p, dir)
	if e.confirmed() {
		t.Fatal("confirmed before the first pull")
	}
	e.pull(t, 1)
	if e.Status().Complete {
		t.Fatal("complete after half a pass")
	}
	e.pull(t, 1)
	if !e.confirmed() {
		t.Fatalf("status %+v", e.Status())
	}
	e.journal.Close()

	p.server.Close()
	again := open(t, p, dir)
	defer again.journal.Close()
	if got := held(again.Table()); !slices.Equal(got, p.names()) {
		t.Fatalf("after a restart without control plane: %v", got)
	}
	if !again.Status().Complete || again.confirmed() {
		t.Fatal("policy from disk must count as complete and not as confirmed")
	}
}

func TestAHeartbeatConfirmsThePolicyAndAFailedPollDoesNot(t *testing.T) {
	p := newPlane(t)
	p.put("one.example", 1000)
	e := open(t, p, t.TempDir())
	defer e.journal.Close()
	e.pull(t, 1)
	first := e.now
	e.now = e.now.Add(31 * time.Second)
	p.reply(`{}`)
	if err := e.Pull(context.Background(), 0); err == nil || !e.Status().LastSuccess.Equal(first) {
		t.Fatalf("after a failed poll (%v): %+v", err, e.Status())
	}
	p.reply("")
	e.pull(t, 1)
	if !e.Status().LastSuccess.Equal(e.now) {
		t.Fatalf("after a heartbeat: %+v", e.Status())
	}
}

func TestAnEdgeToldToStartAgainKeepsWhatItHoldsUntilTheNewPassIsWhole(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		p.put(name, 1000)
	}
	e := open(t, p, dir)
	e.pull(t, 3)
	before := held(e.Table())

	p.mu.Lock()
	p.epoch, p.gone = "e2", true
	delete(p.documents, "domain/b.example")
	p.mu.Unlock()
	e.pull(t, 1)
	if got := held(e.Table()); !slices.Equal(got, before) {
		t.Fatalf("dropped policy at once: %v", got)
	}
	p.mu.Lock()
	p.pageSize = 1
	p.mu.Unlock()
	e.pull(t, 1)
	if got := held(e.Table()); !slices.Equal(got, before) {
		t.Fatalf("half a pass replaced the whole: %v", got)
	}
	e.pull(t, 1)
	if got := held(e.Table()); !slices.Equal(got, p.names()) {
		t.Fatalf("after the new pass: %v, want %v", got, p.names())
	}
	e.journal.Close()
	again := open(t, p, dir)
	defer again.journal.Close()
	if got := held(again.Table()); !slices.Equal(got, p.names()) || again.Status().Epoch != "e2" {
		t.Fatalf("after a restart: %v in %s", got, again.Status().Epoch)
	}
}

func TestDamagedPolicyOnDiskIsPulledAnewAndNotTrusted(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.put("one.example", 1000)
	e := open(t, p, dir)
	e.pull(t, 1)
	batch := e.journal.NewBatch()
	var key []byte
	err := e.journal.Scan([]byte("pd"), func(k, v []byte) error {
		key = slices.Clone(k)
		v = slices.Clone(v)
		v[len(v)-2] ^= 1
		batch.Set(key, v)
		return nil
	})
	if err != nil || key == nil {
		t.Fatal(err, key)
	}
	if err := e.journal.Commit(batch); err != nil {
		t.Fatal(err)
	}
	e.journal.Close()
	again := open(t, p, dir)
	defer again.journal.Close()
	if got := held(again.Table()); len(got) != 0 || again.Status().Complete {
		t.Fatalf("trusted damaged policy: %v", got)
	}
	again.pull(t, 1)
	if got := held(again.Table()); !slices.Equal(got, p.names()) {
		t.Fatalf("after pulling anew: %v", got)
	}
}

func TestAnyInterleavingOfChangesPullsAndRestartsConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &plane{epoch: "e1", documents: map[string]api.PolicyDocument{}, pageSize: rapid.IntRange(1, 4).Draw(t, "page size"), gone: true}
		p.server = httptest.NewServer(http.HandlerFunc(p.serve))
		defer p.server.Close()
		dir := temp{t}.dir()
		e := open(t, p, dir)
		name := rapid.SampledFrom([]string{"a.example", "b.example", "c.example", "d.example", "e.example"})
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				p.put(name.Draw(t, "name"), rapid.Int64Range(1000, 9000).Draw(t, "limit"))
			case 2:
				p.remove(name.Draw(t, "name"))
			case 3:
				_ = e.Pull(context.Background(), 0)
			case 4:
				e.journal.Close()
				e = open(t, p, dir)
			case 5:
				p.mu.Lock()
				p.epoch += "'"
				p.mu.Unlock()
			}
		}
		for range 40 {
			if err := e.Pull(context.Background(), 0); err != nil {
				t.Fatal(err)
			}
		}
		e.journal.Close()
		if got := held(e.Table()); !slices.Equal(got, p.names()) {
			t.Fatalf("edge holds %v, control plane %v", got, p.names())
		}
	})
}

func TestThePullStopsWithItsContext(t *testing.T) {
	p := newPlane(t)
	p.server.Close()
	e := open(t, p, t.TempDir())
	defer e.journal.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// A newer control plane may limit an operation in ways that this version has no field for.
func TestInstructionsAreHandedOnAsTheyCame(t *testing.T) {
	p := newPlane(t)
	e := open(t, p, t.TempDir())
	defer e.journal.Close()
	const instruction = `{"number":1,"kind":"queue-cancel","queue":{"operation_id":"qop_1","client_address":"192.0.2.1"}}`
	p.raw = `{"epoch":"a","next":"0,","more":false,"now":"2026-11-22T10:00:00Z","documents":[],"instructions":[` + instruction + `]}`
	e.pull(t, 1)
	if !slices.Equal(e.instructed, []string{instruction}) {
		t.Errorf("handed on %q", e.instructed)
	}
}
