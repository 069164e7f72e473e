package ledger

import (
	"time"

	"activerelay/api/quota"
	"activerelay/relayd/internal/journal"
)

// Peek says whether n units could be spent for the domain now, and in which
// unit, which is empty while nothing is known of the day. It reserves and asks
// nothing.
func (l *Ledger) Peek(domain string, n int64) quota.Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.decide(domain, n, l.clock.local())
}

// freshness is how old a word of the control plane may be and still count as
// said for the message at hand: a raised limit is felt within it.
const freshness = time.Second

// decide is quota.Decide on what is known. since is the local time at which
// the message at hand first asked. The caller holds mu.
func (l *Ledger) decide(domain string, n int64, since time.Time) quota.Decision {
	a := l.accounts[domain]
	if a == nil {
		return quota.Decision{Outcome: quota.Unavailable}
	}
	now := l.clock.now()
	s := a.today(now)
	if s == nil {
		return quota.Decision{Outcome: quota.Unavailable}
	}
	h := quota.Holding{
		Day: s.day, Unit: s.unit, Limit: s.limit, Used: s.usedNow(), Held: s.free(),
		Confirmed: !a.asked.IsZero() && since.Sub(a.asked) <= freshness,
	}
	if l.fenced {
		h.Held, h.Confirmed = 0, false
	}
	return quota.Decide(h, n, now)
}

// Spending is n units taken out of the ledger for one message. Exactly one of
// Commit and Undo has an effect, the one that is called first.
type Spending struct {
	ledger *Ledger
	lease  *lease
	day    quota.Day // the lease's may change
	units  int64
	over   bool // guarded by ledger.mu
}

// Units is how many are spent.
func (s *Spending) Units() int64 { return s.units }

// Day is the quota day that is charged.
func (s *Spending) Day() quota.Day { return s.day }

// Spend takes n units of the domain and writes that into b. With any outcome
// but Granted nothing was taken, and the Spending is nil. Call Commit once b
// is committed, Undo when it will not be.
func (l *Ledger) Spend(b *journal.Batch, domain string, n int64) (*Spending, quota.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.decide(domain, n, l.clock.local())
	if d.Outcome != quota.Granted {
		return nil, d
	}
	a, now := l.accounts[domain], l.clock.now()
	s := a.today(now)
	s.reserved += n
	a.use.add(n, now)
	l.restock(a, s, now)
	b.Ordered(func(b *journal.Batch) { l.write(b, s, n) })
	return &Spending{ledger: l, lease: s, day: s.day, units: n}, d
}

// write puts the count into the batch at its place in the journal.
func (l *Ledger) write(b *journal.Batch, s *lease, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.void {
		return
	}
	s.ordered += n
	b.Set(spentKey(s.domain, s.day.Start), encodeSpent(s.ordered))
}

// restock calls for the lease loop once half of the stock is gone.
func (l *Ledger) restock(a *account, s *lease, now time.Time) {
	p := routine
	if !s.near && !s.recalled && s.free() < a.ask(s, now).Want/2 {
		p = soon
	}
	l.mark(a.domain, p)
}

// Commit says that the batch is durable.
func (s *Spending) Commit() {
	l := s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	s.lease.reserved -= s.units
	s.lease.counters.Spent += s.units
	l.metrics.spent.Add(float64(s.units))
	l.mark(s.lease.domain, routine)
}

// Undo gives the units back: the batch was not committed.
func (s *Spending) Undo() {
	l := s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	s.lease.reserved -= s.units
	l.announce()
}
