package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"activerelay/api/quota"
)

// LeaseCall is what an edge reports of its leases, and what it wants of them.
type LeaseCall struct {
	BootNonce  string
	Generation int64
	Sequence   int64
	// Complete says that this call is the last of a series that reported every lease that the edge holds counters of.
	Complete bool
	Leases   []LeaseReport
}

// LeaseReport is the edge's side of one lease.
type LeaseReport struct {
	Domain string
	// DayStart is the day that the counters are of; zero means the running day, of which the edge knows nothing.
	DayStart time.Time
	Counters quota.Counters
	Want     int64
	AtLeast  int64
}

// LeaseReply is the control plane's side of a call.
type LeaseReply struct {
	// Fenced is not empty when the call is refused, and says why: the edge is a copy, or was set back. What the reply
	// says beside it is nothing, but the transaction is to be committed all the same.
	Fenced     string
	Sequence   int64
	Generation int64
	// Learning: the database was restored. Nothing is granted until every edge has made a complete report.
	Learning bool
	// Leases answer the reports in their order.
	Leases []LeaseGrant
	// Instructed: the call gave the edge an instruction.
	Instructed bool
	// Claim is what came of a report that shows that the database was restored; empty without one.
	Claim EpochClaim
}

// EpochClaim is what came of an edge's word that the database was restored.
type EpochClaim string

// The outcomes of a claim.
const (
	EpochBegun   EpochClaim = "begun"
	EpochRefused EpochClaim = "refused" // see [Tx.ClaimEpoch]
)

// Lease states, as the contract names them; the others are those of quota.Outcome.
const LeaseUnknownDomain = "unknown-domain"

// LeaseGrant is the control plane's side of one lease.
type LeaseGrant struct {
	Domain string
	State  string
	// Day is the quota with the limit in force; zero for an unknown domain.
	Day QuotaDay
	// Granted is cumulative for the edge and day; nil when the edge must not act on it.
	Granted *int64
}

// The edge counts above this only if something is forged: it keeps sums far from overflow.
const maxCounter = 1 << 50

// Lease takes the report of the tenant's edge and grants what it may have.
//
// What is safe here is safe by three rules. Counters only grow, on both sides. Units are granted only while the sum of
// granted less returned stays within the limit, under the lock of the day's row. And whoever may not know what was
// spent (a copy, an edge or a database that was set back) is granted nothing until it is sure that the units which
// it may have spent are counted.
func (tx *Tx) Lease(call LeaseCall) (LeaseReply, error) {
	edge, err := tx.LockEdge(tx.Tenant.Edge)
	if err != nil {
		return LeaseReply{}, err
	}
	if edge.Status != EdgeActive {
		return LeaseReply{}, ErrNotFound
	}
	reply := LeaseReply{Sequence: call.Sequence}
	l := &leasing{tx: tx, edge: &edge, call: call, standing: edge.judge(call)}
	switch l.standing {
	case callOfCopy:
		edge.adoptNonce(call.BootNonce)
		return tx.fence(&edge, "the edge also runs elsewhere, with another boot nonce")
	case callOfSetBack:
		edge.adoptNonce(call.BootNonce)
		return tx.fence(&edge, "the edge has forgotten calls that it made before its restart")
	case callOfDead:
		return LeaseReply{Fenced: "a later start of the edge has taken over"}, nil
	}
	if err := l.adopt(); err != nil {
		return LeaseReply{}, err
	}
	if l.standing == callOfOldGeneration {
		reply.Generation = edge.Generation
		reply.Leases = []LeaseGrant{}
		return reply, nil
	}
	if err := l.run(); err != nil {
		var setBack *setBackError
		if errors.As(err, &setBack) {
			return tx.fence(&edge, setBack.Error())
		}
		return LeaseReply{}, err
	}
	reply.Sequence, reply.Generation = edge.LeaseSequence, edge.Generation
	reply.Learning, reply.Leases, reply.Instructed, reply.Claim = l.learning, l.grants, l.instructed, l.claim
	return reply, nil
}

// callStanding is how a call relates to what the edge said before.
type callStanding int

const (
	callInOrder         callStanding = iota // the next call of the running relayd
	callOfRestart                           // the first call of a new start
	callDelayed                             // seen before, or overtaken: applied no more, answered with what stands
	callOfOldGeneration                     // the edge does not know yet that its leases were written off
	callOfDead                              // a late call of a start that is over
	callOfCopy                              // two are running at once
	callOfSetBack                           // the first call of a start on an older state of the disk
)

// judge places a call. A boot nonce that was replaced by another one comes back only when two run at once, or when a
// call of the one that ended was held up on its way: the sequence, which goes on over restarts, tells them apart. A new
// start that does not go on with the sequence has lost what came after, and perhaps what it spent of it.
func (e *Edge) judge(call LeaseCall) callStanding {
	newStart := call.BootNonce != e.BootNonce
	switch {
	case newStart && slices.Contains(e.PreviousBootNonces, call.BootNonce):
		if call.Sequence <= e.LeaseSequence {
			return callOfDead
		}
		return callOfCopy
	case newStart && call.Generation < e.Generation && e.LeaseSequence > 0:
		// It called in the generation that it does not know, and may have spent what it was granted there.
		return callOfSetBack
	case call.Generation < e.Generation:
		return callOfOldGeneration
	case newStart && call.Generation == e.Generation && call.Sequence <= e.LeaseSequence:
		return callOfSetBack
	case newStart:
		return callOfRestart
	case call.Generation == e.Generation && call.Sequence <= e.LeaseSequence:
		return callDelayed
	default:
		return callInOrder
	}
}

// fence writes off the leases of an edge that cannot say what it spent: its next call finds a new generation, whose
// leases start from nothing, while the old rows stay as they are and so stay counted.
func (tx *Tx) fence(edge *Edge, why string) (LeaseReply, error) {
	before := edge.Generation
	// An edge that was set back may have begun the next generation of its events by itself.
	edge.Generation, edge.LeaseSequence = max(edge.Generation, edge.EventGeneration)+1, 0
	if err := tx.updateEdge(edge, "generation", "lease_sequence", "boot_nonce", "previous_boot_nonces"); err != nil {
		return LeaseReply{}, err
	}
	tx.Audit(AuditRow{
		TokenID: edge.ID, ActorName: edge.Name, ActorRole: "edge", Action: "leaseQuota", Object: "edge/" + edge.ID, Reason: why,
		Changes: fmt.Sprintf(`{"generation":{"from":%d,"to":%d}}`, before, edge.Generation),
	})
	return LeaseReply{Fenced: why}, nil
}

// setBackError says how a report shows that the edge's state went back in time.
type setBackError struct{ domain, what string }

func (e *setBackError) Error() string { return "counters of " + e.domain + ": " + e.what }

// leasing is one call in work.
type leasing struct {
	tx       *Tx
	edge     *Edge
	call     LeaseCall
	standing callStanding

	rules   *quotaRules
	domains map[string]Domain
	days    map[dayKey]*QuotaDay
	// last is the latest written day of each domain.
	last   map[string]*QuotaDay
	leases map[dayKey]*QuotaLease
	// claims are the reports of each lease, in order.
	claims []*claim

	// ahead: the edge knows of grants that the database does not.
	ahead      bool
	learning   bool
	sharers    []Edge // the other active edges
	instructed bool
	claim      EpochClaim
	granted    bool
	grants     []LeaseGrant
}

type dayKey struct {
	domain string
	start  int64 // Unix seconds
}

func keyOf(domain string, start time.Time) dayKey { return dayKey{domain: domain, start: start.Unix()} }

// adoptNonce makes a start of the edge the running one. Of two that run at once it is the last that called: if the other
// was only a late call, this one goes on in the next generation, and if it calls again, both are refused again.
func (e *Edge) adoptNonce(nonce string) {
	if nonce == e.BootNonce {
		return
	}
	e.PreviousBootNonces = slices.DeleteFunc(e.PreviousBootNonces, func(previous string) bool { return previous == nonce })
	if e.BootNonce != "" {
		e.PreviousBootNonces = append(e.PreviousBootNonces, e.BootNonce)
		e.PreviousBootNonces = e.PreviousBootNonces[max(0, len(e.PreviousBootNonces)-maxPreviousBootNonces):]
	}
	e.BootNonce = nonce
}

// adopt makes the boot nonce, the generation and the sequence of the call those of the edge.
func (l *leasing) adopt() error {
	e := l.edge
	if l.standing == callDelayed {
		return nil
	}
	e.adoptNonce(l.call.BootNonce)
	if l.standing != callOfOldGeneration {
		// An edge that finds out by itself that it was set back starts the next generation itself.
		e.Generation, e.LeaseSequence = l.call.Generation, l.call.Sequence
	}
	return l.tx.updateEdge(e, "boot_nonce", "previous_boot_nonces", "generation", "lease_sequence")
}

// run does the call's work in the order in which rows are locked: domains without a running day, then days.
func (l *leasing) run() error {
	for _, step := range []func() error{l.load, l.openDays, l.lock, l.merge, l.learn, l.grant, l.save} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// load reads the domains that the edge may serve.
func (l *leasing) load() error {
	var rows []Domain
	err := l.tx.scoped(l.tx.db, "partner", "name").Where("name IN ?", l.names()).Order("name").Find(&rows).Error
	if err != nil {
		return err
	}
	l.domains = make(map[string]Domain, len(rows))
	for _, d := range rows {
		l.domains[d.Name] = d
	}
	l.rules, err = l.tx.quotaRules(rows)
	return err
}

// openDays writes down the running days that somebody wants units of, and the days that only the edge knows of.
func (l *leasing) openDays() error {
	if l.standing == callDelayed {
		return nil
	}
	known, err := l.lastDays()
	if err != nil {
		return err
	}
	reports := slices.Clone(l.call.Leases)
	slices.SortStableFunc(reports, func(a, b LeaseReport) int { return strings.Compare(a.Domain, b.Domain) })
	for _, r := range reports {
		if domain, served := l.domains[r.Domain]; served {
			if err := l.openDay(r, domain, known); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *leasing) openDay(r LeaseReport, domain Domain, known map[string]*QuotaDay) error {
	last := known[r.Domain]
	if (r.Want > 0 || r.AtLeast > 0) && (last == nil || !last.Span().Contains(l.tx.Now)) {
		day, err := l.tx.openDay(l.rules, domain)
		if err != nil {
			return err
		}
		last, known[r.Domain] = &day, &day
	}
	if r.Counters == (quota.Counters{}) || r.DayStart.IsZero() || last != nil && last.DayStart.Equal(r.DayStart) {
		return nil
	}
	day, plausible, err := l.rules.forgottenDay(domain, r.DayStart, l.tx.Now)
	if err != nil || !plausible {
		return err
	}
	return l.tx.insertDay(&day)
}

// lastDays reads the latest written day of each domain, without a lock.
func (l *leasing) lastDays() (map[string]*QuotaDay, error) {
	known := map[string]*QuotaDay{}
	var rows []QuotaDay
	last := l.tx.db.Model(&QuotaDay{}).Select("domain, MAX(day_start)").Where("domain IN ?", l.names()).Group("domain")
	if err := l.tx.db.Where("(domain, day_start) IN (?)", last).Find(&rows).Error; err != nil {
		return nil, err
	}
	for i := range rows {
		known[rows[i].Domain] = &rows[i]
	}
	return known, nil
}

// names are all domains of the call, in order, whether the edge may serve them or not: a domain that was deleted
// still has days.
func (l *leasing) names() []string {
	names := make([]string, 0, len(l.call.Leases))
	for _, r := range l.call.Leases {
		names = append(names, r.Domain)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// lock takes the locks of all days that the call is about, in order, and reads the edge's leases of them.
func (l *leasing) lock() error {
	var starts []time.Time
	for _, r := range l.call.Leases {
		if !r.DayStart.IsZero() && !slices.ContainsFunc(starts, r.DayStart.Equal) {
			starts = append(starts, r.DayStart.UTC())
		}
	}
	rows, err := l.tx.lockDays(l.names(), starts)
	if err != nil {
		return err
	}
	l.days, l.leases, l.last = map[dayKey]*QuotaDay{}, map[dayKey]*QuotaLease{}, map[string]*QuotaDay{}
	for i := range rows {
		day := &rows[i]
		// A day is the edge's business when the domain is, or was on that day.
		if _, served := l.domains[day.Domain]; served || l.edge.serves(day.Partner) {
			l.days[keyOf(day.Domain, day.DayStart)], l.last[day.Domain] = day, day
		}
	}
	var leases []QuotaLease
	if len(rows) > 0 {
		err = l.tx.db.Where("edge = ? AND generation = ? AND domain IN ?", l.edge.ID, l.edge.Generation, l.names()).
			Where("day_start >= ?", oldest(rows)).Find(&leases).Error
	}
	for i := range leases {
		l.leases[keyOf(leases[i].Domain, leases[i].DayStart)] = &leases[i]
	}
	return err
}

func oldest(days []QuotaDay) time.Time {
	return slices.MinFunc(days, func(a, b QuotaDay) int { return a.DayStart.Compare(b.DayStart) }).DayStart
}
