package ledger

import (
	"fmt"
	"os"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
	"activerelay/relayd/internal/journal"

	"pgregory.net/rapid"
)

// fleet is two edges, a control plane, and a network that loses, repeats and
// reorders what is sent.
type fleet struct {
	plane   *plane
	edges   []*edge
	calls   []sent
	replies []answered
	begun   []begun
}

// begun is a message that has its units and is not stored yet.
type begun struct {
	edge     *edge
	start    int // of the edge: a crash ends what was begun
	batch    *journal.Batch
	spending *Spending
	units    int64
}

type sent struct {
	edge int
	call api.LeaseCall
}

type answered struct {
	edge  int
	reply api.LeaseReply
}

// TestFleetNeverAcceptsMoreThanTheLimit drives edges through every mishap that
// the protocol is made for, and checks after each step that what was accepted
// stays within the limit of its day, and that no edge has forgotten a message.
func TestFleetNeverAcceptsMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp("", "ledger-fleet-")
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer func() { _ = os.RemoveAll(root) }()
		f := &fleet{plane: newPlane()}
		for i := range 2 {
			e := newEdge(t, f.plane, root, fmt.Sprintf("edge%d", i))
			defer func() { e.close() }()
			f.edges = append(f.edges, e)
		}
		t.Repeat(f.actions())
	})
}

func (f *fleet) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":            f.check,
		"accept":      f.accept,
		"accept more": f.accept,
		"want":        f.want,
		"begin":       f.begin,
		"begin more":  f.begin,
		"finish":      f.finish,
		"call":        f.call,
		"arrive":      f.arrive,
		"apply":       f.apply,
		"talk":        func(t *rapid.T) { f.pick(t).talk(t) },
		"talk more":   func(t *rapid.T) { f.pick(t).talk(t) },
		"lose":        func(t *rapid.T) { f.pick(t).ledger.Failed() },
		"crash":       func(t *rapid.T) { f.pick(t).crash(t) },
		"crash after the sync, before the 250": func(t *rapid.T) {
			e := f.pick(t)
			if e.store(t, units(t)) == nil {
				t.Skip("no units")
			}
			e.crash(t)
		},
		"recall":    func(t *rapid.T) { f.pick(t).ledger.Recall(domain) },
		"write off": func(t *rapid.T) { f.plane.writeOff(f.pick(t).name) },
		"raise": func(t *rapid.T) {
			day := f.plane.day().Start.Unix()
			f.plane.limits[day] = f.plane.limit(day) + rapid.Int64Range(1, 5).Draw(t, "by")
		},
		"pass time": func(t *rapid.T) {
			f.plane.now = f.plane.now.Add(time.Duration(rapid.IntRange(1, 180).Draw(t, "minutes")) * time.Minute)
			if err := f.pick(t).ledger.Refresh(); err != nil {
				t.Fatalf("refresh: %v", err)
			}
		},
	}
}

func units(t *rapid.T) int64 { return rapid.Int64Range(1, 4).Draw(t, "units") }

func (f *fleet) pick(t *rapid.T) *edge {
	return f.edges[rapid.IntRange(0, len(f.edges)-1).Draw(t, "edge")]
}

func (f *fleet) accept(t *rapid.T) {
	e, n := f.pick(t), units(t)
	if !e.accept(t, n) {
		e.want(n)
		e.talk(t)
		e.accept(t, n)
	}
}

func (f *fleet) want(t *rapid.T) { f.pick(t).want(units(t)) }

// want stands for a session that waits.
func (e *edge) want(n int64) {
	e.ledger.mu.Lock()
	e.ledger.account(domain).waiters = []int64{n}
	e.ledger.mark(domain, urgent)
	e.ledger.mu.Unlock()
}

// begin takes units for a message that is stored, or given up, later.
func (f *fleet) begin(t *rapid.T) {
	e, n := f.pick(t), rapid.Int64Range(1, firstLimit/2).Draw(t, "units")
	b := e.journal.NewBatch()
	spending, d := e.ledger.Spend(b, domain, n)
	if d.Outcome != quota.Granted {
		b.Discard()
		e.want(n)
		e.talk(t)
		return
	}
	f.begun = append(f.begun, begun{edge: e, start: e.starts, batch: b, spending: spending, units: n})
}

// finish ends one of them.
func (f *fleet) finish(t *rapid.T) {
	if len(f.begun) == 0 {
		t.Skip("nothing was begun")
	}
	m := f.begun[0]
	f.begun = f.begun[1:]
	if m.start != m.edge.starts {
		return
	}
	if rapid.Bool().Draw(t, "give up") {
		m.batch.Discard()
		m.spending.Undo()
		return
	}
	key := leaseKeyOfPlane{generation: m.edge.ledger.Generation(), day: m.spending.Day().Start.Unix()}
	if m.spending.lease.void {
		key.generation = -1 // charged to a lease that was written off whole
	}
	m.edge.put(t, m.batch, key, m.units)
	m.spending.Commit()
}

// call sends a report, which may arrive much later or never.
func (f *fleet) call(t *rapid.T) {
	i := rapid.IntRange(0, len(f.edges)-1).Draw(t, "edge")
	call, _, err := f.edges[i].ledger.Report()
	if err != nil {
		t.Fatalf("report: %v", err)
	}
	if len(call.Leases) == 0 {
		t.Skip("nothing to say")
	}
	f.calls = append(f.calls, sent{edge: i, call: call})
}

func (f *fleet) arrive(t *rapid.T) {
	if len(f.calls) == 0 {
		t.Skip("no call")
	}
	c := rapid.SampledFrom(f.calls).Draw(t, "call")
	if reply, ok := f.plane.answer(f.edges[c.edge].name, c.call); ok {
		f.replies = append(f.replies, answered{edge: c.edge, reply: reply})
	}
}

func (f *fleet) apply(t *rapid.T) {
	if len(f.replies) == 0 {
		t.Skip("no reply")
	}
	r := rapid.SampledFrom(f.replies).Draw(t, "reply")
	if err := f.edges[r.edge].ledger.Apply(r.reply); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

func (f *fleet) check(t *rapid.T) {
	total := map[int64]int64{}
	for _, e := range f.edges {
		for key, n := range e.accepted {
			total[key.day] += n
		}
		e.check(t)
	}
	for day, n := range total {
		if limit := f.plane.limit(day); n > limit {
			t.Fatalf("on day %d %d units were accepted, the limit is %d", day, n, limit)
		}
		if net, _ := f.plane.net(day); net > f.plane.limit(day) {
			t.Fatalf("on day %d %d units are lent, the limit is %d", day, net, f.plane.limit(day))
		}
	}
}

// check holds that the ledger knows every message of the generation that runs,
// and holds no more than was lent.
func (e *edge) check(t harness) {
	t.Helper()
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	a := e.ledger.accounts[domain]
	for key, n := range e.accepted {
		if key.generation != e.ledger.meta.Generation {
			continue
		}
		if a == nil || a.leases[key.day] == nil {
			if e.plane.now.Before(time.Unix(key.day, 0).Add(24*time.Hour + keepDays)) {
				t.Fatalf("%s has forgotten the lease of day %d", e.name, key.day)
			}
			continue
		}
		if c := a.leases[key.day].counters; c.Spent != n || !c.Valid() {
			t.Fatalf("%s counts %+v on day %d, accepted were %d", e.name, c, key.day, n)
		}
	}
}
