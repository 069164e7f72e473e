package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm/clause"

	"activerelay/api/quota"
)

const (
	// An edge that was not seen for so long gets no share of what remains kept for it.
	sharerSeen = 10 * time.Minute
	// dayTurn is how long before the end of a day an edge may take it for over, by its own clock.
	dayTurn = time.Minute
)

// claim is what the edge says of one lease: all reports of it together, because an edge may report a day by its start
// and ask for the running day at once.
type claim struct {
	day   *QuotaDay
	lease *QuotaLease
	said  quota.Counters
	ask   quota.Ask
	// blind: the edge took the day for over, so it must not hear of units that it no longer counts.
	blind bool
	// net and spent are what the report adds to the day's counters, granted what it is lent.
	net, spent, granted int64
	answer              quota.Outcome
	dirty               bool
}

// merge keeps the larger counters of both sides, and refuses what only a state that was set back can say.
func (l *leasing) merge() error {
	byKey := map[dayKey]*claim{}
	for _, r := range l.call.Leases {
		day := l.dayOf(r)
		if day == nil {
			continue
		}
		key := keyOf(day.Domain, day.DayStart)
		c := byKey[key]
		if c == nil {
			c = &claim{day: day, lease: l.leaseOf(key, day)}
			byKey[key] = c
			l.claims = append(l.claims, c)
		}
		c.said = c.said.Merge(r.Counters)
		c.ask.Want, c.ask.AtLeast = max(c.ask.Want, min(r.Want, maxCounter)), max(c.ask.AtLeast, r.AtLeast)
	}
	slices.SortFunc(l.claims, func(a, b *claim) int {
		if c := strings.Compare(a.day.Domain, b.day.Domain); c != 0 {
			return c
		}
		return a.day.DayStart.Compare(b.day.DayStart)
	})
	for _, c := range l.claims {
		if err := l.mergeClaim(c); err != nil {
			return err
		}
	}
	return nil
}

// dayOf is the written day that a report is of; nil when there is none.
func (l *leasing) dayOf(r LeaseReport) *QuotaDay {
	if !r.DayStart.IsZero() {
		return l.days[keyOf(r.Domain, r.DayStart)]
	}
	if last := l.last[r.Domain]; last != nil && last.Span().Contains(l.tx.Now) {
		return last
	}
	return nil
}

func (l *leasing) leaseOf(key dayKey, day *QuotaDay) *QuotaLease {
	if lease := l.leases[key]; lease != nil {
		return lease
	}
	return &QuotaLease{Domain: day.Domain, DayStart: day.DayStart, Edge: l.edge.ID, Generation: l.edge.Generation}
}

func (l *leasing) mergeClaim(c *claim) error {
	before := c.lease.Counters()
	if l.standing == callDelayed {
		return nil
	}
	if max(c.said.Granted, c.said.Spent, c.said.Returned) > maxCounter {
		return &setBackError{c.day.Domain, "impossible figures"}
	}
	if c.said == (quota.Counters{}) && before.Spent+before.Returned > 0 && c.day.DayEnd.Sub(l.tx.Now) < dayTurn {
		c.blind = true
		return nil
	}
	if c.said.Spent < before.Spent || c.said.Returned < before.Returned {
		return &setBackError{c.day.Domain, "smaller than they were"}
	}
	// A reply that was lost leaves the edge's granted behind ours, which heals.
	merged := before.Merge(c.said)
	if !merged.Valid() {
		return &setBackError{c.day.Domain, "impossible figures"}
	}
	if merged == before {
		return nil
	}
	c.dirty, c.spent, c.net = true, merged.Spent-before.Spent, merged.Net()-before.Net()
	c.day.Spent += c.spent
	c.day.Held += c.net
	c.lease.Granted, c.lease.Spent, c.lease.Returned = merged.Granted, merged.Spent, merged.Returned
	if merged.Granted > before.Granted {
		// Only a database that was restored can know less than the edge.
		l.ahead = true
		c.day.Recovered = max(c.day.Recovered, c.day.Held-c.day.Limit)
	}
	return nil
}

// learn decides whether units may be granted at all: in a new history not until every edge has said what it holds.
func (l *leasing) learn() error {
	epoch, err := l.tx.Epoch()
	if err != nil {
		return err
	}
	// In a history in which the edge has not reported yet, that it knows more is what is waited for.
	if l.ahead && l.edge.ReportedEpoch == epoch {
		if epoch, err = l.claimEpoch(epoch); err != nil {
			return err
		}
	}
	if l.call.Complete && l.standing != callDelayed && l.edge.ReportedEpoch != epoch {
		l.edge.ReportedEpoch = epoch
		if err := l.tx.updateEdge(l.edge, "reported_epoch"); err != nil {
			return err
		}
	}
	l.learning = l.edge.ReportedEpoch != epoch
	var others []Edge
	err = l.tx.db.Select("id", "partners", "last_seen_at", "joined_at", "reported_epoch").
		Where("status = ? AND id <> ?", EdgeActive, l.edge.ID).Find(&others).Error
	if err != nil {
		return err
	}
	for _, other := range others {
		l.learning = l.learning || other.ReportedEpoch != epoch
		seen := other.JoinedAt
		if other.LastSeenAt != nil {
			seen = *other.LastSeenAt
		}
		if l.tx.Now.Sub(seen) < sharerSeen {
			l.sharers = append(l.sharers, other)
		}
	}
	return nil
}

// claimEpoch begins a new epoch, unless the edge did that a short while ago. Its counters count all the same.
func (l *leasing) claimEpoch(epoch string) (string, error) {
	begun, err := l.tx.ClaimEpoch(l.edge.ID)
	if err != nil {
		return "", err
	}
	if !begun {
		l.claim = EpochRefused
		return epoch, nil
	}
	l.claim = EpochBegun
	l.tx.Audit(AuditRow{
		TokenID: l.edge.ID, ActorName: l.edge.Name, ActorRole: "edge", Action: "leaseQuota", Object: "platform/epoch",
		Reason: "the edge reports grants that the database does not know: it was restored",
	})
	return l.tx.Epoch()
}

// grant lends units of the running days, and says of each claim how it stands.
func (l *leasing) grant() error {
	for _, c := range l.claims {
		if c.day.Span().Contains(l.tx.Now) {
			if err := l.grantClaim(c); err != nil {
				return err
			}
		} else {
			c.answer = quota.Granted // nothing can be wanted of a day that is over
		}
	}
	return nil
}

func (l *leasing) grantClaim(c *claim) error {
	domain, served := l.domains[c.day.Domain]
	if served {
		limit := quota.Standing{Limit: c.day.Limit, Granted: c.day.Held}.InForce(l.rules.limit(domain, l.tx.Now), c.day.Span(), l.tx.Now)
		if limit != c.day.Limit && l.standing != callDelayed {
			c.day.Limit, c.dirty = limit, true
		}
	}
	held := c.lease.Counters().Held()
	if served && !l.learning && !c.blind && l.standing != callDelayed {
		c.granted = quota.Grant(c.day.Limit, c.day.Held, held, l.share(c, held))
	}
	if c.granted > 0 {
		c.lease.Granted += c.granted
		c.day.Held += c.granted
		held += c.granted
		c.dirty, l.granted = true, true
	}
	need := c.ask.AtLeast
	if need == 0 && c.ask.Want > 0 {
		need = 1
	}
	c.answer = quota.Answer(c.day.Limit, c.day.Spent, held, need)
	if c.blind {
		c.answer = quota.Unavailable
	}
	if served && l.standing != callDelayed && (c.spent > 0 || c.answer == quota.Reached) {
		return l.notify(c, domain)
	}
	return nil
}

// share keeps what one edge takes at once to half of what remains while others serve the same domain, so that the
// want of one does not leave the next without a unit. What it needs at least it gets whole.
func (l *leasing) share(c *claim, held int64) quota.Ask {
	ask := c.ask
	if !slices.ContainsFunc(l.sharers, func(e Edge) bool { return e.serves(c.day.Partner) }) {
		return ask
	}
	remaining := max(c.day.Limit-c.day.Held, 0)
	ask.Want = min(ask.Want, held+max((remaining+1)/2, ask.AtLeast-held))
	return ask
}

// save writes what changed, days in order, and answers the reports.
func (l *leasing) save() error {
	var leases []*QuotaLease
	for _, c := range l.claims {
		if !c.dirty {
			continue
		}
		if err := l.saveDay(c); err != nil {
			return err
		}
		c.lease.UpdatedAt = l.tx.Now
		leases = append(leases, c.lease)
	}
	if len(leases) > 0 {
		err := l.tx.db.Clauses(clause.OnConflict{
			Columns:   []clause.Column{{Name: "domain"}, {Name: "day_start"}, {Name: "edge"}, {Name: "generation"}},
			DoUpdates: clause.AssignmentColumns([]string{"granted", "spent", "returned", "updated_at"}),
		}).CreateInBatches(leases, 500).Error
		if err != nil {
			return err
		}
	}
	if l.granted {
		if err := l.tx.advancePosition(); err != nil {
			return err
		}
	}
	return l.reply()
}

// saveDay is the guarded update: the database itself refuses what would pass the limit.
func (l *leasing) saveDay(c *claim) error {
	d, change := c.day, c.net+c.granted
	result := l.tx.db.Exec(`UPDATE quota_days SET quota_limit = ?, recovered = ?, spent = spent + ?, held = held + ?
		WHERE domain = ? AND day_start = ? AND (CAST(? AS BIGINT) = 0 OR held + ? <= ?)`,
		d.Limit, d.Recovered, c.spent, change, d.Domain, d.DayStart, c.granted, change, d.Limit)
	if result.Error == nil && result.RowsAffected != 1 {
		return fmt.Errorf("grant %d units of %s: the row of the day does not allow it", c.granted, d.Domain)
	}
	return result.Error
}

// reply answers the reports in their order.
func (l *leasing) reply() error {
	byKey := make(map[dayKey]*claim, len(l.claims))
	for _, c := range l.claims {
		byKey[keyOf(c.day.Domain, c.day.DayStart)] = c
	}
	l.grants = make([]LeaseGrant, 0, len(l.call.Leases))
	for _, r := range l.call.Leases {
		var c *claim
		if day := l.dayOf(r); day != nil {
			c = byKey[keyOf(day.Domain, day.DayStart)]
		}
		grant, err := l.replyTo(r, c)
		if err != nil {
			return err
		}
		l.grants = append(l.grants, grant)
	}
	return nil
}

func (l *leasing) replyTo(r LeaseReport, c *claim) (LeaseGrant, error) {
	domain, served := l.domains[r.Domain]
	grant := LeaseGrant{Domain: r.Domain, State: LeaseUnknownDomain}
	if c != nil {
		grant.Day = *c.day
		if !c.blind {
			grant.Granted = &c.lease.Granted
		}
		if served {
			grant.State = string(c.answer)
		}
		return grant, nil
	}
	if !served {
		return grant, nil
	}
	// Nothing is written of the day: nothing was wanted of it, or nobody believes that it was.
	day, err := l.rules.dayAt(domain, l.last[r.Domain], l.tx.Now)
	if err != nil {
		return grant, err
	}
	grant.State, grant.Day = string(quota.Granted), day
	if r.Want > 0 || r.AtLeast > 0 {
		grant.State = string(quota.Unavailable)
	}
	return grant, nil
}
