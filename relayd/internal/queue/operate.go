package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/spool"

	"github.com/oklog/ulid/v2"
)

// Action is what an operator does with recipients that wait.
type Action string

// The actions. Each is about recipients that have not reached their final
// state, and doing it again changes nothing.
const (
	// Retry makes due now what waits for its next attempt.
	Retry Action = "retry"
	// Hold keeps recipients from being tried, and from expiring. An attempt
	// that is under way goes on.
	Hold Action = "hold"
	// Release undoes Hold; the next attempt is due now. A message in quarantine
	// is released whole, unless its envelope is damaged.
	Release Action = "release"
	// Cancel ends recipients as cancelled, in quarantine too. Nobody is notified.
	// A recipient whose attempt is under way may still be delivered; else it is
	// cancelled.
	Cancel Action = "cancel"
)

// Selection says which recipients an operation is about: those that fit
// everything that is named. Names of domains are in canonical form.
type Selection struct {
	// Messages are ids; none means whichever messages.
	Messages []string
	// Partner and Domain are whose mail it is, Destination is the recipients'
	// domain. Empty means any.
	Partner, Domain, Destination string
	// Sender is the envelope sender, "<>" for the null one. Empty means any.
	Sender string
}

// Operation is one act of an operator.
type Operation struct {
	// ID names it in events and the mail log.
	ID     string
	Action Action
	Selection
	// Reason is the operator's; it may be empty.
	Reason string
}

// Tally is what an operation has changed so far.
type Tally struct {
	Messages   int64 `json:"messages"`
	Recipients int64 `json:"recipients"`
}

// operateAtOnce is how many messages an operation changes in one batch: many
// share a sync, and none is kept from its attempt for long.
const operateAtOnce = 200

// Operate carries out an operation on what waits at this moment. It changes
// messages in batches of a bounded size; record adds to each of them what is
// to be true together with it, and is told by done which one is the last. What
// a process that was killed has not done the next one does, when it is called
// with the tally that it recorded.
func (q *Queue) Operate(ctx context.Context, op Operation, tally Tally, record func(b *journal.Batch, t Tally, done bool) error) error {
	q.operations.Lock()
	defer q.operations.Unlock()
	ids, err := q.selected(ctx, op)
	if err != nil {
		return fmt.Errorf("%s %s: %w", op.Action, op.ID, err)
	}
	for {
		n := min(len(ids), operateAtOnce)
		o := &operating{q: q, op: op, now: q.Now(), batch: q.Journal.NewBatch(), tally: tally}
		err := o.run(ids[:n], func() error { return record(o.batch, o.tally, n == len(ids)) })
		if err != nil {
			return fmt.Errorf("%s %s: %w", op.Action, op.ID, err)
		}
		if ids, tally = ids[n:], o.tally; len(ids) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// selected lists the messages that an operation may be about, each once.
func (q *Queue) selected(ctx context.Context, op Operation) ([]string, error) {
	if len(op.Messages) > 0 {
		return canonical(op.Messages), nil
	}
	var ids []string
	note := func(m *spool.Message) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if op.covers(m) {
			ids = append(ids, m.ID)
		}
		return nil
	}
	err := q.Spool.Each(note)
	if err == nil && op.Action.concernsQuarantine() {
		err = q.Spool.EachQuarantined(func(kept spool.Quarantined) error {
			if kept.Message == nil {
				return nil
			}
			return note(kept.Message)
		})
	}
	return canonical(ids), err
}

// canonical lists each message once, whatever the spelling of its name. What is
// no id is left out.
func canonical(names []string) (ids []string) {
	for _, name := range names {
		if id, err := ulid.ParseStrict(name); err == nil {
			ids = append(ids, id.String())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// covers reports whether some recipient of m is selected.
func (s Selection) covers(m *spool.Message) bool {
	sender := m.From.String()
	if m.From.IsNull() {
		sender = "<>"
	}
	if s.Partner != "" && s.Partner != m.Partner || s.Domain != "" && s.Domain != m.Domain || s.Sender != "" && !strings.EqualFold(s.Sender, sender) {
		return false
	}
	return slices.ContainsFunc(m.Recipients, func(r spool.Recipient) bool { return s.coversRecipient(&r) })
}

func (s Selection) coversRecipient(r *spool.Recipient) bool {
	return !r.State.Final() && (s.Destination == "" || s.Destination == r.Address.Domain)
}

// operating is one batch of an operation. Nothing outside changes until it is
// committed; the entries that it is about are locked meanwhile.
type operating struct {
	q      *Queue
	op     Operation
	now    time.Time
	batch  *journal.Batch
	tally  Tally
	locked []*entry
	then   []func() // once it is committed
}

// run changes the messages and commits. More than one entry is locked here and
// nowhere else, and operations run one after the other, so nobody waits in a
// circle.
func (o *operating) run(ids []string, record func() error) (err error) {
	defer o.batch.Discard()
	defer func() {
		for _, e := range o.locked {
			if err != nil {
				o.q.unclaim(e)
			}
			e.mu.Unlock()
		}
	}()
	for _, id := range ids {
		if err := o.message(id); err != nil {
			return err
		}
	}
	if err := record(); err != nil {
		return err
	}
	if err := o.q.Journal.Commit(o.batch); err != nil {
		return err
	}
	for _, do := range o.then {
		do()
	}
	return nil
}

// message changes the selected recipients of one message.
func (o *operating) message(id string) error {
	e := o.q.claim(id)
	if e == nil {
		return nil // no message has such an id
	}
	o.locked = append(o.locked, e)
	stored, err := o.q.envelope(e)
	if errors.Is(err, spool.ErrNotFound) {
		o.q.forget(e)
		return o.aside(id)
	}
	if err != nil {
		o.q.unreadable(e, err)
		return nil
	}
	s := &settlement{q: o.q, m: clone(stored), batch: o.batch, now: o.now}
	var changed []string
	if o.op.covers(stored) {
		for i := range s.m.Recipients {
			r := &s.m.Recipients[i]
			if o.op.coversRecipient(r) && o.recipient(e, s, i) {
				changed = append(changed, r.Address.Domain)
			}
		}
	}
	if len(changed) > 0 {
		o.count(len(changed))
		o.note(s, changed)
		if s.err == nil {
			s.fail(s.write())
		}
		if s.err != nil {
			return s.err
		}
	}
	o.then = append(o.then, func() {
		s.tellLog()
		o.q.put(e, s.m, o.op.Action == Retry || o.op.Action == Release)
	})
	return nil
}

func (o *operating) count(recipients int) {
	o.tally.Messages++
	o.tally.Recipients += int64(recipients)
}

// recipient applies the action to the i-th recipient and reports whether that
// changed it.
func (o *operating) recipient(e *entry, s *settlement, i int) bool {
	r := &s.m.Recipients[i]
	flying := e.flying(i)
	if r.Cancelling {
		return false
	}
	switch o.op.Action {
	case Retry:
		if r.Held || flying || !o.q.recipientDue(e, r).After(o.now) {
			return false
		}
		o.due(e, r, flying)
	case Hold:
		if r.Held {
			return false
		}
		r.Held = true
		o.log(s, i, countOnHold)
	case Release:
		if !r.Held {
			return false
		}
		r.Held = false
		o.due(e, r, flying)
		o.log(s, i, countReleased)
	case Cancel:
		if flying {
			r.Cancelling = true
			return true
		}
		s.cancel(i, Result{}, "operator")
	default:
		return false
	}
	return true
}

func (o *operating) log(s *settlement, i int, what counted) {
	to := maillog.Attempt{To: s.m.Recipients[i].Address.String()}
	s.outcomes = append(s.outcomes, outcome{state: what, recipient: i, log: to, ref: o.op.ID})
}

// due makes r due now, unless an attempt is under way. One that was interrupted
// is counted, since it is no longer seen.
func (o *operating) due(e *entry, r *spool.Recipient, flying bool) {
	if flying {
		return
	}
	r.NextAttempt = o.now
	if r.LastReply == spool.UnderWay {
		r.Interrupted, r.LastReply = interrupted(e, r), ""
	}
}

// note tells of destinations that are held or not any more. What is cancelled
// has told of itself, and what is due again tells of it by its attempt.
func (o *operating) note(s *settlement, destinations []string) {
	kind := api.EdgeEventKindMessageHeld
	switch {
	case s.m.Notice || o.op.Action == Retry || o.op.Action == Cancel:
		return
	case o.op.Action == Release:
		kind = api.EdgeEventKindMessageReleased
	}
	e := api.EdgeEvent{
		Kind: kind, Time: s.now.UTC(), MessageID: &s.m.ID, Domain: &s.m.Domain, Ref: &o.op.ID,
		Recipients: new(int64(len(destinations))), RecipientDomains: slices.Compact(slices.Sorted(slices.Values(destinations))),
	}
	if o.op.Reason != "" {
		e.Detail = &o.op.Reason
	}
	s.fail(s.q.Note(s.batch, e))
}

// claim returns the entry of a message with its mu held; nil for what is no id.
// A message that the queue does not know, because it was accepted a moment ago,
// is still to be read at the start, or was set aside, becomes known.
func (q *Queue) claim(id string) *entry {
	key, err := ulid.ParseStrict(id)
	if err != nil {
		return nil
	}
	for {
		q.mu.Lock()
		e, known := q.entries[key]
		if !known {
			e = &entry{id: key, index: -1, loaded: true}
			q.entries[key] = e
		}
		q.mu.Unlock()
		e.mu.Lock()
		if !e.gone {
			return e
		}
		e.mu.Unlock() // it left meanwhile, settled or set aside
	}
}

// unclaim leaves e as it was found: one that was not known is looked at again.
// The entry's mu is held.
func (q *Queue) unclaim(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !e.gone && e.index < 0 && e.lane == nil && e.flight == nil && !e.rests {
		q.due.set(e, q.Now().Add(troublePause).UnixNano())
		q.wake()
	}
}

// forget drops the entry of a message that is not in the spool. The entry's mu
// is held.
func (q *Queue) forget(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(e)
}

// put makes m the envelope of e and puts e where it belongs. The entry's mu is
// held. An operator who wants it tried now wants to know whether a dead
// destination is alive.
func (q *Queue) put(e *entry, m *spool.Message, probe bool) {
	e.message = m
	var p plan
	q.plan(&p, e, m, q.Now())
	q.mu.Lock()
	defer q.mu.Unlock()
	q.place(&p, e, m)
	if probe {
		q.lanes.probe(e)
	}
	q.dispatch()
}

// endCancelled ends the recipients whose cancelling an attempt outlived, in
// this process or in one before. The entry's mu is held.
func (q *Queue) endCancelled(e *entry, m *spool.Message) (*spool.Message, error) {
	if !slices.ContainsFunc(m.Recipients, func(r spool.Recipient) bool { return r.Cancelling }) {
		return m, nil
	}
	s := &settlement{q: q, m: clone(m), batch: q.Journal.NewBatch(), now: q.Now()}
	defer s.batch.Discard()
	for i := range s.m.Recipients {
		r := &s.m.Recipients[i]
		if r.Cancelling && !e.flying(i) && !r.State.Final() {
			s.cancel(i, Result{}, "operator")
		}
	}
	if !s.final {
		return m, nil
	}
	if err := s.conclude(); err != nil {
		return nil, fmt.Errorf("cancel %s: %w", m.ID, err)
	}
	return s.m, nil
}
