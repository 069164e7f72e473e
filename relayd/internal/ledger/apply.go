package ledger

import (
	"fmt"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
	"activerelay/relayd/internal/journal"
)

// Apply takes the reply to the last Report. Granted units can be spent when it
// returns, and not before they are on the disk. The reply to any other call is
// ignored: whatever it granted will be in the next one, since counters are
// cumulative. A reply of another generation voids all leases.
func (l *Ledger) Apply(r api.LeaseReply) error {
	l.calls.Lock()
	defer l.calls.Unlock()
	c := l.inFlight
	if c == nil || r.Sequence != c.sequence {
		return nil
	}
	l.inFlight = nil
	if r.Generation != l.Generation() {
		if err := l.startGeneration(r.Generation); err != nil {
			return fmt.Errorf("apply leases: %w", err)
		}
		clear(c.lines) // said of leases that are no more
		c.complete = false
	}
	l.mu.Lock()
	answered := l.clock.local()
	l.clock.set(r.Now, c.local, answered)
	next := l.nextMeta()
	records, grew := l.granted(r.Leases)
	l.mu.Unlock()
	if err := l.store(next, records, grew); err != nil {
		return fmt.Errorf("apply leases: %w", err)
	}
	l.adopt(c, r, next, records)
	return nil
}

// Failed says that the call of the last Report came to nothing: what it
// reported is reported again.
func (l *Ledger) Failed() {
	l.calls.Lock()
	defer l.calls.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetCall()
}

// nextMeta is the state record after this call. The caller holds mu.
func (l *Ledger) nextMeta() meta {
	next := l.meta
	next.BootID = l.bootID
	if drift := l.clock.offset - l.meta.Offset; drift.Abs() >= time.Second {
		next.Offset = l.clock.offset
	}
	return next
}

// granted is the leases as the reply makes them, and whether there are units
// in them that were not on the disk before. The caller holds mu; nothing
// changes yet.
func (l *Ledger) granted(grants []api.LeaseGrant) (records []record, grew bool) {
	for _, g := range grants {
		if g.DayStart == nil || g.DayEnd == nil || g.Granted == nil {
			continue // nothing is lent
		}
		r := record{Domain: g.Domain, Start: *g.DayStart, Unit: quota.UnitMessage}
		if s := l.lease(g.Domain, *g.DayStart); s != nil {
			r = s.record()
		}
		grew = grew || *g.Granted > r.Granted || !g.DayEnd.Equal(r.End)
		r.Granted, r.End = max(r.Granted, *g.Granted), *g.DayEnd
		r.figures(g)
		records = append(records, r)
	}
	return records, grew
}

// lease finds a lease, or nil. The caller holds mu.
func (l *Ledger) lease(domain string, start time.Time) *lease {
	a := l.accounts[domain]
	if a == nil {
		return nil
	}
	return a.leases[start.Unix()]
}

// figures takes over what the reply says besides the counters.
func (r *record) figures(g api.LeaseGrant) {
	if g.Limit != nil {
		r.Limit = *g.Limit
	}
	if g.Used != nil {
		r.Used = *g.Used
	}
	if g.Unit != nil {
		r.Unit = quota.Unit(*g.Unit)
	}
	if g.TimeZone != nil {
		r.Zone = *g.TimeZone
	}
}

// store writes what the reply brought. Units that were lent must be on the
// disk before they are used; figures alone may be lost.
func (l *Ledger) store(next meta, records []record, grew bool) error {
	b := l.journal.NewBatch()
	if err := next.put(b); err != nil {
		b.Discard()
		return err
	}
	commit := l.journal.CommitLazy
	if grew || next.BootID != l.meta.BootID {
		commit = l.journal.Commit
	}
	return putLeases(b, records, commit)
}

func putLeases(b *journal.Batch, records []record, commit func(*journal.Batch) error) error {
	for _, r := range records {
		if err := r.put(b); err != nil {
			b.Discard()
			return err
		}
	}
	return commit(b)
}

// adopt makes what is now on the disk count.
func (l *Ledger) adopt(c *call, r api.LeaseReply, next meta, records []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meta = next
	if l.fenced {
		l.log.Info("control plane reached: leases may be spent again")
	}
	l.fenced = false
	for id, said := range c.lines {
		l.heard(id, said)
	}
	for _, g := range r.Leases {
		a := l.account(g.Domain)
		a.unknown = g.State == api.LeaseGrantStateUnknownDomain
		a.asked = c.local
	}
	for _, rec := range records {
		l.take(c, rec)
	}
	l.answered = l.clock.local()
	l.hear(r.Learning != nil && *r.Learning, c.complete)
	l.announce()
}

// hear notes whether the control plane waits for complete reports. The caller
// holds mu.
func (l *Ledger) hear(learning, complete bool) {
	switch {
	case learning && !l.learning:
		l.log.Warn("control plane was restored: reporting all leases")
		l.owed = true
		l.resend()
	case !learning && complete:
		l.owed = false
	}
	l.learning = learning
}

// heard notes what the control plane now knows of a lease.
func (l *Ledger) heard(id leaseID, said line) {
	a := l.accounts[id.domain]
	if a == nil {
		return
	}
	if s := a.leases[id.day]; s != nil {
		s.reported, s.reportedSpent, s.reportedReturned = true, said.spent, said.returned
		if s.unreported() {
			l.mark(id.domain, routine)
		}
	}
}

// take puts one stored lease into use.
func (l *Ledger) take(c *call, rec record) {
	a := l.account(rec.Domain)
	s := a.leases[rec.Start.Unix()]
	if s == nil {
		s = rec.lease()
		s.reported = true // it comes from there
		a.leases[rec.Start.Unix()] = s
	}
	said, ok := c.lines[leaseID{domain: rec.Domain, day: rec.Start.Unix()}]
	if !ok && s.day.Contains(c.made) {
		said = c.lines[leaseID{domain: rec.Domain}]
	}
	if rec.Limit > s.limit {
		s.near = false
	}
	if s.zone != rec.Zone || !s.day.End.Equal(rec.End) {
		s.day.End = rec.resetsAt()
	}
	s.counters.Granted = max(s.counters.Granted, rec.Granted)
	s.limit, s.used, s.unit, s.zone = rec.Limit, rec.Used, rec.Unit, rec.Zone
	s.spentThen = said.spent
	if s.counters.Granted-said.spent-said.returned < said.want {
		s.near = true
	}
	if s.free() < a.ask(s, l.clock.now()).Want/2 && !s.near {
		l.mark(rec.Domain, soon)
	}
}

// StartGeneration begins generation g if another one is running: every lease
// of the old one is void.
func (l *Ledger) StartGeneration(g int64) error {
	l.calls.Lock()
	defer l.calls.Unlock()
	if g == l.Generation() {
		return nil
	}
	if err := l.startGeneration(g); err != nil {
		return fmt.Errorf("start generation %d: %w", g, err)
	}
	return nil
}

// startGeneration needs calls held.
func (l *Ledger) startGeneration(g int64) error {
	l.mu.Lock()
	next := l.meta
	next.Generation, next.BootID = g, l.bootID
	l.mu.Unlock()
	b := l.journal.NewBatch()
	if err := next.put(b); err != nil {
		b.Discard()
		return err
	}
	deleteAll(b)
	// At its place in the journal: no message after it writes a count of the
	// old life into the new one.
	b.Ordered(func(*journal.Batch) { l.void() })
	if err := l.journal.Commit(b); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.meta.Generation != 0 { // not the first of this edge's life
		l.log.Warn("new generation: old leases are void", "old", l.meta.Generation, "new", g)
	}
	l.meta = next
	l.fenced = false
	return nil
}

func (l *Ledger) void() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, a := range l.accounts {
		for id, s := range a.leases {
			s.void = true
			delete(a.leases, id)
		}
		a.asked = time.Time{}
		if a.use.lately(l.clock.now()) || len(a.waiters) > 0 {
			l.mark(name, soon)
		}
	}
}
