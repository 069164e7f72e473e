package ledger

import (
	"time"

	"activerelay/api/quota"
)

// account is one domain at this edge: its leases and its recent use.
type account struct {
	domain  string
	leases  map[int64]*lease // by the Unix second at which the day starts
	use     use
	waiters []int64 // units that each waiting session needs
	// unknown: the control plane last said that it has no such domain.
	unknown bool
	// asked is when the last answered call was made, by the local clock.
	asked time.Time
}

// lease is one domain, one day, at this edge.
type lease struct {
	domain string
	day    quota.Day
	// counters hold what is durable. Units in batches on their way are in
	// reserved until the batch is committed or given up.
	counters quota.Counters
	reserved int64
	// ordered is the cumulative spent as last written into a batch. It is
	// ahead of counters.Spent by what is between its place in the journal and
	// the end of its sync.
	ordered int64
	// void: the generation that lent it is over. Messages that were on their
	// way are charged to a lease that was written off whole.
	void bool

	unit  quota.Unit
	zone  string
	limit int64
	// used is Σ spent over all edges at the last answer, with spentThen of our
	// own in it.
	used, spentThen int64
	near            bool // quota.Demand.NearLimit
	recalled        bool // the control plane wants idle units back

	// What the control plane has heard of.
	reportedSpent, reportedReturned int64
	reported                        bool
}

// free is what a new message may spend.
func (s *lease) free() int64 { return s.counters.Held() - s.reserved }

// usedNow is Σ spent over all edges, as far as can be known: what was said,
// and what this edge has added since.
func (s *lease) usedNow() int64 {
	return max(s.used+s.counters.Spent-s.spentThen, s.counters.Spent)
}

func (s *lease) unreported() bool {
	return !s.reported || s.reportedSpent != s.counters.Spent || s.reportedReturned != s.counters.Returned
}

// today is the lease whose day contains now, or nil.
func (a *account) today(now time.Time) *lease {
	for _, s := range a.leases {
		if s.day.Contains(now) {
			return s
		}
	}
	return nil
}

// ask sizes what to ask for the running day. s is nil when there is no lease
// of it yet.
func (a *account) ask(s *lease, now time.Time) quota.Ask {
	d := quota.Demand{
		PeakPerMinute: a.use.peak(now),
		RelayedLately: a.use.lately(now),
	}
	total, smallest := int64(0), int64(0)
	for _, n := range a.waiters {
		total += n
		if smallest == 0 || n < smallest {
			smallest = n
		}
	}
	d.Message = total
	if s == nil {
		return quota.Ask{Want: total}
	}
	d.Limit, d.Held, d.NearLimit = s.limit, s.free(), s.near || s.recalled
	if !d.NearLimit {
		ask := d.Ask()
		// More than the day has left cannot be had, and to ask for it would
		// look like being near the limit all day long.
		ask.Want = min(ask.Want, max(s.limit-s.usedNow()-s.reserved, total))
		return ask
	}
	d.Message = smallest
	ask := d.Ask()
	if ask.AtLeast == 0 {
		ask.Return = max(d.Held-total, 0)
	}
	// One message decides whether anything is granted; the others that wait
	// are no less needed.
	ask.Want = total
	return ask
}

// use is how a domain has relayed lately: units by minute, newest first.
type use struct {
	minute int64
	units  [useMinutes]int64
	last   time.Time
}

// useMinutes is how far "recent" goes back when stocks are sized.
const useMinutes = 15

// lateness is how long after its last message a domain keeps a reserve.
const lateness = 24 * time.Hour

func (u *use) add(n int64, now time.Time) {
	u.roll(now)
	u.units[0] += n
	u.last = now
}

func (u *use) roll(now time.Time) {
	minute := now.Unix() / 60
	if shift := minute - u.minute; shift > 0 {
		shift = min(shift, useMinutes)
		copy(u.units[shift:], u.units[:useMinutes-shift])
		clear(u.units[:shift])
		u.minute = minute
	}
}

func (u *use) peak(now time.Time) int64 {
	u.roll(now)
	highest := int64(0)
	for _, n := range u.units {
		highest = max(highest, n)
	}
	return highest
}

func (u *use) lately(now time.Time) bool {
	return !u.last.IsZero() && now.Sub(u.last) < lateness
}

// restarted guesses the use from the leases: a domain that spent on a day not
// long over is taken to have relayed lately.
func (a *account) restarted(now time.Time) {
	for _, s := range a.leases {
		if s.counters.Spent > 0 && now.Before(s.day.End.Add(lateness)) {
			a.use.last = now
		}
	}
}
