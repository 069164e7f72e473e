package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
)

const (
	// callLeases is the most leases that one call carries, as the contract says.
	callLeases = 1000
	// silence is how long an edge without anything to report does not call. Only
	// in a reply does it hear that the control plane was restored, and until it
	// has then reported, nobody is granted anything.
	silence = 30 * time.Second
)

// call is a report on its way: what to remember when its reply comes.
type call struct {
	sequence int64
	local    time.Time // when it was made, by the local clock
	made     time.Time // the same, by the control plane's
	domains  map[string]priority
	lines    map[leaseID]line
	complete bool
}

type leaseID struct {
	domain string
	day    int64 // Unix second of the start; 0 asks for the running day
}

// line is what the call said of one lease.
type line struct {
	spent, returned, want int64
}

// Report is the next call to make: the counters of every domain that has
// something to say, the most pressing first, and what it wishes to hold. When it
// returns, the call's sequence and the units that it gives back are noted on the
// disk. A call without a sequence is not to be made, for there is nothing to
// say; one without leases is: it says that there are none left to report, or
// asks how the control plane is. More means that not all fitted in. A call
// whose reply never came counts as Failed.
func (l *Ledger) Report() (c api.LeaseCall, more bool, err error) {
	l.calls.Lock()
	defer l.calls.Unlock()
	l.mu.Lock()
	l.forgetCall()
	next := l.meta
	next.Sequence++
	made := &call{
		sequence: next.Sequence, local: l.clock.local(), made: l.clock.now(),
		domains: map[string]priority{}, lines: map[leaseID]line{},
	}
	leases, returning := l.fill(made)
	c = api.LeaseCall{
		BootNonce: l.nonce, Generation: next.Generation, Sequence: next.Sequence, Leases: leases,
	}
	if made.complete = l.owed && l.complete(made); made.complete {
		c.Complete = new(true)
	}
	more = len(l.dirty) > 0
	due := made.complete || made.local.Sub(l.answered) >= silence
	l.mu.Unlock()
	if len(leases) == 0 && !due {
		return api.LeaseCall{Leases: leases}, more, nil
	}
	b := l.journal.NewBatch()
	if err := next.put(b); err != nil {
		b.Discard()
		return api.LeaseCall{}, false, fmt.Errorf("report leases: %w", err)
	}
	if err := putLeases(b, returning, l.journal.Commit); err != nil {
		return api.LeaseCall{}, false, fmt.Errorf("report leases: %w", err)
	}
	l.inFlight = made
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meta.Sequence = next.Sequence
	return c, more, nil
}

// complete reports whether, with this call, the control plane has heard of every
// lease that is here. It is said only where it is owed: one that was restored
// meanwhile would take what its predecessor had heard for its own. The caller
// holds mu.
func (l *Ledger) complete(c *call) bool {
	for name, a := range l.accounts {
		for day, s := range a.leases {
			if _, said := c.lines[leaseID{domain: name, day: day}]; !said && !s.reported {
				return false
			}
		}
	}
	return true
}

// forgetCall puts what the last call said into the next one. A complete report
// begins anew: the control plane may have been restored while it was away, and
// have forgotten the part that it heard. The caller holds calls and mu.
func (l *Ledger) forgetCall() {
	if l.inFlight == nil {
		return
	}
	if l.owed {
		l.resend()
	}
	for name, p := range l.inFlight.domains {
		l.dirty[name] = max(l.dirty[name], p)
	}
	l.inFlight = nil
}

// fill moves domains from dirty into the call. The caller holds mu.
func (l *Ledger) fill(c *call) (reports []api.LeaseReport, returning []record) {
	reports = []api.LeaseReport{}
	for _, name := range l.byPriority() {
		a := l.accounts[name]
		if a == nil { // its generation and its use are over
			delete(l.dirty, name)
			continue
		}
		if len(reports)+len(a.leases)+1 > callLeases && len(reports) > 0 {
			break
		}
		c.domains[name] = l.dirty[name]
		delete(l.dirty, name)
		r, back := a.report(c)
		reports = append(reports, r...)
		returning = append(returning, back...)
	}
	return reports, returning
}

func (l *Ledger) byPriority() []string {
	names := make([]string, 0, len(l.dirty))
	for name := range l.dirty {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(l.dirty[y], l.dirty[x]), cmp.Compare(x, y))
	})
	return names
}

// report says all that there is to say of one domain.
func (a *account) report(c *call) (reports []api.LeaseReport, returning []record) {
	today := a.today(c.made)
	for _, s := range a.sorted() {
		if s != today && s.unreported() {
			reports = append(reports, s.report(c, quota.Ask{Want: max(s.free(), 0)}))
		}
	}
	ask := a.ask(today, c.made)
	if today == nil {
		if ask.Want > 0 || a.use.lately(c.made) {
			reports = append(reports, api.LeaseReport{Domain: a.domain, Want: ask.Want, AtLeast: atLeast(ask.AtLeast)})
			c.lines[leaseID{domain: a.domain}] = line{want: ask.Want}
		}
		return reports, nil
	}
	if ask.Return > 0 {
		today.counters.Returned += ask.Return
		returning = append(returning, today.record())
	}
	today.recalled = false
	return append(reports, today.report(c, ask)), returning
}

// report is one line of the call. What is reserved is held in the eyes of the
// control plane, so it is added to the wish.
func (s *lease) report(c *call, ask quota.Ask) api.LeaseReport {
	start := s.day.Start
	r := api.LeaseReport{
		Domain: s.domain, DayStart: &start,
		Granted: s.counters.Granted, Spent: s.counters.Spent, Returned: s.counters.Returned,
		Want: ask.Want + s.reserved,
	}
	if ask.AtLeast > 0 {
		r.AtLeast = atLeast(ask.AtLeast + s.reserved)
	}
	c.lines[leaseID{domain: s.domain, day: start.Unix()}] = line{spent: r.Spent, returned: r.Returned, want: r.Want}
	return r
}

func atLeast(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

// sorted is the leases by day, oldest first.
func (a *account) sorted() []*lease {
	all := make([]*lease, 0, len(a.leases))
	for _, s := range a.leases {
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y *lease) int { return x.day.Start.Compare(y.day.Start) })
	return all
}

// Recall makes the next call give back what the domain holds and no session
// needs: the control plane's instruction when another edge is short.
func (l *Ledger) Recall(domain string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[domain]
	if a == nil {
		return
	}
	if s := a.today(l.clock.now()); s != nil {
		s.near, s.recalled = true, true
		l.mark(domain, urgent)
	}
}

// resend puts every lease into the next calls again, for a control plane that
// was restored and has to hear all counters. The caller holds mu.
func (l *Ledger) resend() {
	for name, a := range l.accounts {
		for _, s := range a.leases {
			s.reported = false
		}
		l.mark(name, soon)
	}
}

// keepDays is how long the counters of a day that is over are kept, for a
// control plane that was restored.
const keepDays = 48 * time.Hour

// Refresh does what only time brings about: domains in use whose day is over
// are put into the next call, and what is too old to matter is dropped. The
// lease loop calls it at its regular times.
func (l *Ledger) Refresh() error {
	var drop []*lease
	l.mu.Lock()
	now := l.clock.now()
	for name, a := range l.accounts {
		if a.today(now) == nil && a.use.lately(now) {
			l.mark(name, routine)
		}
		for id, s := range a.leases {
			if now.After(s.day.End.Add(keepDays)) && s.reserved == 0 {
				delete(a.leases, id)
				drop = append(drop, s)
			}
		}
		if len(a.leases) == 0 && len(a.waiters) == 0 && !a.use.lately(now) {
			delete(l.accounts, name)
			delete(l.dirty, name)
		}
	}
	l.mu.Unlock()
	if len(drop) == 0 {
		return nil
	}
	b := l.journal.NewBatch()
	for _, s := range drop {
		b.Delete(leaseKey(s.domain, s.day.Start))
		b.Delete(spentKey(s.domain, s.day.Start))
	}
	if err := l.journal.CommitLazy(b); err != nil {
		return fmt.Errorf("drop old leases: %w", err)
	}
	return nil
}
