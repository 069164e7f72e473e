package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// The kinds of events that are counted here.
const (
	EventAccepted = "message-accepted"
	EventRefused  = "message-refused"
)

// The kinds of senders that usage is counted by.
const (
	SenderClientAddress = "client_address"
	SenderUser          = "user"
	SenderAddress       = "sender_address"
)

// maxSenderKeys bounds how many refused senders are told apart on one day of a domain: what strangers make up must not
// fill the database. New ones beyond it are counted under the empty key.
const maxSenderKeys = 5000

// clockSlack is how far an edge's clock may be ahead and what it tells again is still known by its time.
const clockSlack = 2 * time.Minute

// EventBatch is what an edge reports of its messages.
type EventBatch struct {
	// Generation scopes the numbers: an edge that was set back numbers anew in the next one.
	Generation int64
	// FirstKept is the first event that the edge still has.
	FirstKept int64
	Events    []Event
}

// Event is one thing that happened to a message. Empty fields are unknown.
type Event struct {
	Sequence       int64
	Time           time.Time
	Kind           string
	Domain         string
	Ref            string
	Reason         string
	Stage          string
	Reply          string
	ClientAddress  string
	User           string
	Sender         string
	Recipient      string
	Recipients     int64
	PolicyRevision int64
	Detail         string
	MessageID      string
	// RecipientDomains are the destinations of an accepted message, one for each recipient, or those that are held or released.
	RecipientDomains []string
	RemoteHost       string
	// TLS and DelayReason are of an attempt.
	TLS, DelayReason string
	Attempts         int64
	NextAttemptAt    time.Time
	// Messages is how many a queue operation changed.
	Messages int64
	// DayStart is the quota day that was charged; zero where none was.
	DayStart time.Time
}

// EventOutcome says what became of a batch.
type EventOutcome struct {
	// Fenced: the batch is of a generation that is over.
	Fenced bool
	// Acknowledged is the event up to which nothing is missing any more.
	Acknowledged int64
	// GapFrom and GapTo are the events that are lost for good; 0 when none are.
	GapFrom, GapTo int64
	// Taken are the events of the batch that were new, in order.
	Taken []Event
	// Rejections are the rejected policy documents that were not reported before.
	Rejections []Rejection
}

// RecordEvents takes what is new and contiguous of a batch of the tenant's edge and counts it.
func (tx *Tx) RecordEvents(batch EventBatch) (EventOutcome, error) {
	edge, err := tx.LockEdge(tx.Tenant.Edge)
	if err != nil {
		return EventOutcome{}, err
	}
	var outcome EventOutcome
	switch {
	case batch.Generation < edge.EventGeneration:
		return EventOutcome{Fenced: true, Acknowledged: edge.EventAcknowledged}, nil
	case batch.Generation > edge.EventGeneration:
		// The numbers of the new generation are the edge's to give; nothing before its first is missing.
		edge.EventRepeatTo, edge.EventRepeatBefore = max(edge.EventRepeatTo, edge.EventAcknowledged), edge.EventLatest
		edge.EventGeneration, edge.EventAcknowledged = batch.Generation, batch.FirstKept-1
	case batch.FirstKept-1 > edge.EventAcknowledged:
		outcome.GapFrom, outcome.GapTo = edge.EventAcknowledged+1, batch.FirstKept-1
		edge.EventAcknowledged = outcome.GapTo
	}
	outcome.Taken = following(batch.Events, edge.EventAcknowledged)
	edge.EventAcknowledged += int64(len(outcome.Taken))
	fresh := edge.freshOf(outcome.Taken, tx.Now)
	outcome.Acknowledged = edge.EventAcknowledged
	if outcome.GapTo > 0 {
		tx.Audit(AuditRow{
			TokenID: edge.ID, ActorName: edge.Name, ActorRole: "edge", Action: "reportEvents", Object: "edge/" + edge.ID,
			Reason: fmt.Sprintf("events %d to %d are lost", outcome.GapFrom, outcome.GapTo),
		})
	}
	err = tx.updateEdge(&edge, "event_generation", "event_acknowledged", "event_latest", "event_repeat_to", "event_repeat_before")
	if err != nil {
		return EventOutcome{}, err
	}
	c := &counting{tx: tx, edge: edge.ID, days: map[string][]QuotaDay{}, domains: map[string]*Domain{}}
	if err := c.load(outcome.Taken); err != nil {
		return EventOutcome{}, err
	}
	if err := c.count(fresh); err != nil {
		return EventOutcome{}, err
	}
	if outcome.Rejections, err = tx.keepRejections(&edge, fresh); err != nil {
		return EventOutcome{}, err
	}
	q := &queueing{tx: tx, edge: edge.ID, domains: c.domains, repeatTo: edge.EventRepeatTo}
	return outcome, q.follow(outcome.Taken)
}

// following returns the events that follow a number without a gap, in order. An event that is told twice counts once.
func following(events []Event, number int64) []Event {
	bySequence := func(a, b Event) int { return cmp.Compare(a.Sequence, b.Sequence) }
	if !slices.IsSortedFunc(events, bySequence) {
		slices.SortStableFunc(events, bySequence)
	}
	events = slices.CompactFunc(events, func(a, b Event) bool { return a.Sequence == b.Sequence })
	begin, _ := slices.BinarySearchFunc(events, number+1, func(e Event, n int64) int { return cmp.Compare(e.Sequence, n) })
	end := begin
	for end < len(events) && events[end].Sequence == number+1+int64(end-begin) {
		end++
	}
	return events[begin:end]
}

// freshOf returns the events that were not counted in an earlier generation, and notes the latest. An edge that was set back
// numbers on from an older state of its disk: what has a number of before and a time of before is what was told before, and what
// has such a number but is younger than all of that was made since. A time that a clock far ahead gave says nothing: better to
// count what is told again twice than to lose what is new until that time has come. A refusal is known by its reference.
func (e *Edge) freshOf(events []Event, now time.Time) []Event {
	stored := func(at time.Time) time.Time { return at.UTC().Truncate(time.Microsecond) }
	latest := e.EventLatest
	for i := range events {
		if at := &events[i].Time; latest == nil || at.After(*latest) {
			latest = at
		}
	}
	if latest != nil {
		at := stored(*latest)
		if most := now.Add(clockSlack); at.After(most) {
			at = most
		}
		e.EventLatest = &at
	}
	if e.EventRepeatBefore == nil || len(events) == 0 || events[0].Sequence > e.EventRepeatTo {
		return events
	}
	fresh := make([]Event, 0, len(events))
	for i := range events {
		event := &events[i]
		if event.hasReference() || event.Sequence > e.EventRepeatTo || stored(event.Time).After(*e.EventRepeatBefore) {
			fresh = append(fresh, *event)
		}
	}
	return fresh
}

// hasReference reports whether the event is a decision that is kept under its reference, so that it is known when it is told again.
func (e *Event) hasReference() bool { return e.Ref != "" && e.Reason != "" }

// counts reports whether the event counts for a day.
func (e *Event) counts() bool { return e.Kind == EventAccepted || e.Kind == EventRefused }

// counting adds up a batch before it writes, so that a batch of one busy sender is a handful of rows.
type counting struct {
	tx   *Tx
	edge string

	domains map[string]*Domain
	// rules are of all these domains; they are read when a day is to be written.
	rules *quotaRules
	// days are the known days of each domain.
	days map[string][]QuotaDay

	accepted       map[dayKey]*QuotaDay
	refusals       map[refusalKey]*usageRefusal
	senders        map[senderKey]*senderUsage
	senderRefusals map[senderKey]*senderRefusal
	// crowded are the days on which no more refused senders are told apart.
	crowded   map[dayKey]bool
	decisions []Decision
}

func (c *counting) count(events []Event) error {
	c.accepted, c.refusals = map[dayKey]*QuotaDay{}, map[refusalKey]*usageRefusal{}
	c.senders, c.senderRefusals = map[senderKey]*senderUsage{}, map[senderKey]*senderRefusal{}
	c.crowded = map[dayKey]bool{}
	fresh, err := c.freshRefusals(events)
	if err != nil {
		return err
	}
	if err := c.loadDays(events); err != nil {
		return err
	}
	for i := range events {
		if err := c.add(&events[i], fresh); err != nil {
			return err
		}
	}
	return c.save()
}

// load reads the domains that are named, as far as the edge may serve them.
func (c *counting) load(events []Event) error {
	named := map[string]bool{}
	for i := range events {
		named[events[i].Domain], named[events[i].decisionDomain()] = true, true
	}
	delete(named, "")
	if len(named) == 0 {
		return nil
	}
	var rows []Domain
	err := c.tx.scoped(c.tx.db, "partner", "name").Where("name IN ?", sortedKeys(named)).Find(&rows).Error
	for i := range rows {
		c.domains[rows[i].Name] = &rows[i]
	}
	return err
}

// loadDays reads the running day of each domain that has something to count: most events count for it.
func (c *counting) loadDays(events []Event) error {
	counted := map[string]bool{}
	for i := range events {
		if _, served := c.domains[events[i].Domain]; served && events[i].counts() {
			counted[events[i].Domain] = true
		}
	}
	if len(counted) == 0 {
		return nil
	}
	var rows []QuotaDay
	err := c.tx.db.Where("domain IN ? AND day_start <= ? AND day_end > ?", sortedKeys(counted), c.tx.Now, c.tx.Now).
		Order("domain, day_start DESC").Find(&rows).Error
	for _, day := range rows {
		c.days[day.Domain] = append(c.days[day.Domain], day)
	}
	return err
}

// freshRefusals returns the references of refusals that were not recorded before: a reference is given once.
func (c *counting) freshRefusals(events []Event) (map[string]bool, error) {
	fresh := map[string]bool{}
	var refs []string
	for i := range events {
		if ref := events[i].Ref; ref != "" {
			fresh[ref] = true
			refs = append(refs, ref)
		}
	}
	if len(refs) == 0 {
		return fresh, nil
	}
	var known []string
	err := c.tx.db.Model(&Decision{}).Where("ref IN ?", refs).Pluck("ref", &known).Error
	for _, ref := range known {
		fresh[ref] = false
	}
	return fresh, err
}

func (c *counting) add(e *Event, fresh map[string]bool) error {
	domain, served := c.domains[e.Domain]
	if e.hasReference() {
		if !fresh[e.Ref] {
			return nil
		}
		fresh[e.Ref] = false
		c.decisions = append(c.decisions, c.decisionOf(e))
	}
	if !served || !e.counts() {
		return nil
	}
	day, err := c.dayOf(domain, e)
	if err != nil {
		return err
	}
	if e.Kind == EventRefused {
		return c.addRefused(day, e)
	}
	c.addAccepted(day, e)
	return nil
}

// dayOf is the day that an event counts for: the one that was charged, else the one it happened on.
func (c *counting) dayOf(domain *Domain, e *Event) (*QuotaDay, error) {
	at := e.DayStart
	if at.IsZero() {
		at = e.Time
	}
	if at.After(c.tx.Now) {
		at = c.tx.Now // the edge's clock is ahead
	}
	for i := range c.days[domain.Name] {
		if day := &c.days[domain.Name][i]; day.Span().Contains(at) {
			return day, nil
		}
	}
	if c.rules == nil {
		all := make([]Domain, 0, len(c.domains))
		for _, name := range sortedKeys(c.domains) {
			all = append(all, *c.domains[name])
		}
		var err error
		if c.rules, err = c.tx.quotaRules(all); err != nil {
			return nil, err
		}
	}
	day, err := c.tx.dayFor(c.rules, *domain, at)
	if err != nil {
		return nil, err
	}
	c.days[domain.Name] = append(c.days[domain.Name], day)
	return &day, nil
}

// dayFor returns the day of a domain that contains an instant, and writes it down when it is not.
func (tx *Tx) dayFor(rules *quotaRules, domain Domain, at time.Time) (QuotaDay, error) {
	var day QuotaDay
	err := tx.db.Where("domain = ? AND day_start <= ? AND day_end > ?", domain.Name, at, at).
		Order("day_start DESC").Limit(1).Find(&day).Error
	if err != nil || day.Domain != "" {
		return day, err
	}
	if opened, err := tx.openDay(rules, domain); err != nil || opened.Span().Contains(at) {
		return opened, err
	}
	// A day that is over and on which nothing was leased, only refused: its row bears the refusals.
	span, loc, err := rules.spanOf(domain, at)
	if err != nil {
		return QuotaDay{}, err
	}
	day = newDay(domain, span, loc, rules.limit(domain, tx.Now), rules.settings.QuotaUnit)
	return day, tx.insertDay(&day)
}

func (c *counting) addAccepted(day *QuotaDay, e *Event) {
	key := keyOf(day.Domain, day.DayStart)
	total := c.accepted[key]
	if total == nil {
		total = &QuotaDay{Domain: day.Domain, DayStart: day.DayStart}
		c.accepted[key] = total
	}
	total.Messages++
	total.Recipients += e.Recipients
	for _, s := range sendersOf(e) {
		if s.sender == "" {
			continue
		}
		key := senderKey{dayKey: key, kind: s.kind, sender: s.sender}
		row := c.senders[key]
		if row == nil {
			row = &senderUsage{Domain: day.Domain, DayStart: day.DayStart, Kind: s.kind, Key: s.sender}
			c.senders[key] = row
		}
		row.Messages++
		row.Recipients += e.Recipients
	}
}

func (c *counting) addRefused(day *QuotaDay, e *Event) error {
	key := keyOf(day.Domain, day.DayStart)
	total := c.refusals[refusalKey{key, e.Reason}]
	if total == nil {
		total = &usageRefusal{Domain: day.Domain, DayStart: day.DayStart, Reason: e.Reason, Partner: day.Partner}
		c.refusals[refusalKey{key, e.Reason}] = total
	}
	total.Messages++
	for _, s := range sendersOf(e) {
		if s.sender == "" {
			continue
		}
		key := senderKey{dayKey: key, kind: s.kind, sender: s.sender, reason: e.Reason}
		var err error
		if key.sender, err = c.refusedSender(day, key); err != nil {
			return err
		}
		row := c.senderRefusals[key]
		if row == nil {
			row = &senderRefusal{Domain: day.Domain, DayStart: day.DayStart, Kind: s.kind, Key: key.sender, Reason: e.Reason}
			c.senderRefusals[key] = row
		}
		row.Messages++
	}
	return nil
}

// sendersOf are those that an event counts for; empty ones are unknown.
func sendersOf(e *Event) [3]senderKey {
	return [3]senderKey{
		{kind: SenderClientAddress, sender: e.ClientAddress}, {kind: SenderUser, sender: e.User}, {kind: SenderAddress, sender: e.Sender},
	}
}

// decisionDomain is the domain that a refusal is shown to: where the sender's is none of ours, that of the user who is logged in, so
// that his partner can look up what he was told. It counts for no domain then.
func (e *Event) decisionDomain() string {
	if e.Domain != "" || !e.hasReference() {
		return e.Domain
	}
	return e.User[strings.LastIndexByte(e.User, '@')+1:]
}

func (c *counting) decisionOf(e *Event) Decision {
	d := Decision{
		Ref: e.Ref, OccurredAt: e.Time.UTC(), Edge: c.edge, Domain: e.Domain, Reason: e.Reason, Stage: e.Stage,
		Reply: e.Reply, ClientAddress: e.ClientAddress, UserAddress: e.User, Sender: e.Sender, Recipient: e.Recipient,
		PolicyRevision: e.PolicyRevision, Detail: e.Detail,
	}
	if domain, served := c.domains[e.decisionDomain()]; served {
		d.Domain, d.Partner = domain.Name, domain.Partner
	}
	return d
}

// save writes the sums, each table in the order of its key, so that batches of several edges do not wait in a circle.
func (c *counting) save() error {
	for _, total := range inOrder(c.accepted, func(t *QuotaDay) string { return rowKey(t.Domain, t.DayStart) }) {
		err := c.tx.db.Model(&QuotaDay{}).Where("domain = ? AND day_start = ?", total.Domain, total.DayStart).
			UpdateColumns(map[string]any{
				"messages": gorm.Expr("messages + ?", total.Messages), "recipients": gorm.Expr("recipients + ?", total.Recipients),
			}).Error
		if err != nil {
			return err
		}
	}
	refusals := inOrder(c.refusals, func(r *usageRefusal) string { return rowKey(r.Domain, r.DayStart, r.Reason) })
	if err := addUp(c.tx, refusals, "messages"); err != nil {
		return err
	}
	senders := inOrder(c.senders, func(r *senderUsage) string { return rowKey(r.Domain, r.DayStart, r.Kind, r.Key) })
	if err := addUp(c.tx, senders, "messages", "recipients"); err != nil {
		return err
	}
	refused := inOrder(c.senderRefusals, func(r *senderRefusal) string {
		return rowKey(r.Domain, r.DayStart, r.Kind, r.Key, r.Reason)
	})
	if err := addUp(c.tx, refused, "messages"); err != nil {
		return err
	}
	if len(c.decisions) == 0 {
		return nil
	}
	return c.tx.db.Clauses(clause.OnConflict{DoNothing: true}).CreateInBatches(c.decisions, 200).Error
}
