package ledger

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
	"activerelay/relayd/internal/journal"
)

// harness is what *testing.T and *rapid.T share.
type harness interface {
	Helper()
	Fatalf(format string, args ...any)
}

// plane is a control plane in memory, with the arithmetic of api/quota and one
// domain.
type plane struct {
	now    time.Time
	limits map[int64]int64 // by day; a limit only rises
	edges  map[string]*planeEdge
}

type planeEdge struct {
	generation, sequence int64
	leases               map[leaseKeyOfPlane]quota.Counters
}

type leaseKeyOfPlane struct{ generation, day int64 }

const domain = "example.com"

const firstLimit = 20

func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func newPlane() *plane {
	return &plane{now: noon(), limits: map[int64]int64{}, edges: map[string]*planeEdge{}}
}

func (p *plane) day() quota.Day { return quota.DayOf(p.now, time.UTC) }

func (p *plane) limit(day int64) int64 {
	if limit, ok := p.limits[day]; ok {
		return limit
	}
	return firstLimit
}

// net is Σ(granted − returned) over all edges and generations.
func (p *plane) net(day int64) (net, spent int64) {
	for _, e := range p.edges {
		for key, c := range e.leases {
			if key.day == day {
				net, spent = net+c.Net(), spent+c.Spent
			}
		}
	}
	return net, spent
}

// answer is one call at the control plane. An overtaken call has no answer.
func (p *plane) answer(name string, call api.LeaseCall) (reply api.LeaseReply, ok bool) {
	e := p.edges[name]
	if e == nil {
		e = &planeEdge{generation: call.Generation, leases: map[leaseKeyOfPlane]quota.Counters{}}
		p.edges[name] = e
	}
	reply = api.LeaseReply{Generation: e.generation, Sequence: call.Sequence, Now: p.now}
	if call.Generation < e.generation {
		return reply, true
	}
	if call.Sequence <= e.sequence {
		return api.LeaseReply{}, false
	}
	e.sequence = call.Sequence
	for _, r := range call.Leases {
		reply.Leases = append(reply.Leases, p.lend(e, r))
	}
	return reply, true
}

func (p *plane) lend(e *planeEdge, r api.LeaseReport) api.LeaseGrant {
	day := p.day()
	if r.DayStart != nil {
		day = quota.DayOf(*r.DayStart, time.UTC)
	}
	key := leaseKeyOfPlane{generation: e.generation, day: day.Start.Unix()}
	c := e.leases[key].Merge(quota.Counters{Granted: r.Granted, Spent: r.Spent, Returned: r.Returned})
	limit := p.limit(key.day)
	e.leases[key] = c
	if day.Contains(p.now) {
		net, _ := p.net(key.day)
		ask := quota.Ask{Want: r.Want}
		if r.AtLeast != nil {
			ask.AtLeast = *r.AtLeast
		}
		c.Granted += quota.Grant(limit, net, c.Held(), ask)
		e.leases[key] = c
	}
	_, used := p.net(key.day)
	return api.LeaseGrant{
		Domain: r.Domain, DayStart: &day.Start, DayEnd: &day.End, Granted: new(c.Granted), Limit: &limit, Used: &used,
		State: api.LeaseGrantStateGranted, TimeZone: new("UTC"),
	}
}

// writeOff begins a new generation of an edge; what it held stays counted.
func (p *plane) writeOff(name string) {
	if e := p.edges[name]; e != nil {
		e.generation, e.sequence = e.generation+1, 0
	}
}

// edge is a ledger on a journal of its own, and what it has accepted.
type edge struct {
	name   string
	dir    string // changes with each crash
	root   string
	plane  *plane
	boot   string
	trust  bool
	starts int

	journal *journal.Journal
	ledger  *Ledger

	accepted map[leaseKeyOfPlane]int64
	messages int64
}

func newEdge(t harness, p *plane, root, name string) *edge {
	e := &edge{name: name, root: root, plane: p, boot: "boot-1", accepted: map[leaseKeyOfPlane]int64{}}
	e.dir = filepath.Join(root, name+"-0")
	e.open(t)
	return e
}

func (e *edge) open(t harness) {
	t.Helper()
	var err error
	if e.journal, err = journal.Open(journal.Config{Dir: e.dir}); err != nil {
		t.Fatalf("open journal: %v", err)
	}
	e.ledger, err = Open(Config{
		Journal: e.journal, Now: func() time.Time { return e.plane.now }, BootID: e.boot, TrustAcrossBoots: e.trust,
	})
	if err != nil {
		t.Fatalf("open ledger: %v", err)
	}
}

func (e *edge) close() { _ = e.journal.Close() }

// crash starts again from the files as they are, as after kill -9: what the old
// process would have written at its end is not there.
func (e *edge) crash(t harness) {
	t.Helper()
	e.starts++
	next := filepath.Join(e.root, e.name+"-"+time.Duration(e.starts).String())
	copyAtOneMoment(t, e.dir, next)
	e.close()
	e.dir = next
	e.open(t)
}

// loseChanges makes the next start one that finds a damaged log.
func (e *edge) loseChanges(t harness) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(e.dir, "changes-lost"), nil, 0o600); err != nil {
		t.Fatalf("note: %v", err)
	}
}

// copyAtOneMoment copies a directory in which the journal tidies up now and then.
func copyAtOneMoment(t harness, from, to string) {
	t.Helper()
	const tries = 1000
	for range tries {
		before := listing(from)
		err := os.CopyFS(to, os.DirFS(from))
		if err == nil && listing(from) == before {
			return
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatalf("remove a copy: %v", err)
		}
	}
	t.Fatalf("the files of %s never stand still", from)
}

func listing(dir string) string {
	entries, _ := os.ReadDir(dir) // the copy would fail too
	text := ""
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			text += fmt.Sprintln(info.Name(), info.Size(), info.ModTime().UnixNano())
		}
	}
	return text
}

// accept spends n units and stores a message in the same batch. After it, the
// message counts as answered 250.
func (e *edge) accept(t harness, n int64) bool {
	t.Helper()
	spending := e.store(t, n)
	if spending == nil {
		return false
	}
	spending.Commit()
	return true
}

// store is accept up to the end of the sync.
func (e *edge) store(t harness, n int64) *Spending {
	t.Helper()
	b := e.journal.NewBatch()
	spending, d := e.ledger.Spend(b, domain, n)
	if d.Outcome != quota.Granted {
		b.Discard()
		return nil
	}
	e.put(t, b, leaseKeyOfPlane{generation: e.ledger.Generation(), day: spending.Day().Start.Unix()}, n)
	return spending
}

// put stores a message of n units.
func (e *edge) put(t harness, b *journal.Batch, key leaseKeyOfPlane, n int64) {
	t.Helper()
	e.messages++
	record := binary.BigEndian.AppendUint64(nil, uint64(n))
	b.Set(binary.BigEndian.AppendUint64([]byte("x"), uint64(e.messages)), record)
	if err := e.journal.Commit(b); err != nil {
		t.Fatalf("commit: %v", err)
	}
	e.accepted[key] += n
}

// talk makes one call and takes its reply.
func (e *edge) talk(t harness) api.LeaseCall {
	t.Helper()
	return e.call(t, nil)
}

// learn is talk with a control plane that was restored and waits for reports.
func (e *edge) learn(t harness) api.LeaseCall {
	t.Helper()
	return e.call(t, new(true))
}

func (e *edge) call(t harness, learning *bool) api.LeaseCall {
	t.Helper()
	call, _, err := e.ledger.Report()
	if err != nil {
		t.Fatalf("report: %v", err)
	}
	if call.Sequence == 0 {
		return call
	}
	if reply, ok := e.plane.answer(e.name, call); ok {
		reply.Learning = learning
		if err := e.ledger.Apply(reply); err != nil {
			t.Fatalf("apply: %v", err)
		}
	}
	return call
}

// stock brings units into a new ledger.
func (e *edge) stock(t *testing.T, n int64) {
	t.Helper()
	e.want(n)
	e.talk(t)
	e.ledger.mu.Lock()
	e.ledger.account(domain).waiters = nil
	e.ledger.mu.Unlock()
	if d := e.ledger.Peek(domain, n); d.Outcome != quota.Granted {
		t.Fatalf("after the call %d units are %s", n, d.Outcome)
	}
}

func startOne(t *testing.T) *edge {
	t.Helper()
	e := newEdge(t, newPlane(), t.TempDir(), "fra1")
	t.Cleanup(func() { e.close() })
	return e
}
