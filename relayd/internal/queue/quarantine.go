package queue

import (
	"context"
	"errors"

	"activerelay/api"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/spool"

	"github.com/oklog/ulid/v2"
)

// concernsQuarantine reports whether an action is also about what was set aside.
func (a Action) concernsQuarantine() bool { return a == Release || a == Cancel }

// aside acts on a message in quarantine, if there is such a one: it is released
// whole, or what is selected of it is cancelled. Of one that cannot be read just
// now nothing is changed.
func (o *operating) aside(id string) error {
	if !o.op.Action.concernsQuarantine() {
		return nil
	}
	kept, err := o.q.Spool.LoadQuarantined(id)
	switch {
	case err != nil:
		return nil
	case kept.Message == nil:
		return o.dispose(id)
	case !o.op.covers(kept.Message):
		return nil
	}
	s := &settlement{q: o.q, m: clone(kept.Message), batch: o.batch, now: o.now}
	var changed []string
	for i := range s.m.Recipients {
		r := &s.m.Recipients[i]
		switch {
		case r.State.Final():
		case o.op.Action == Release:
			o.freshen(s, i)
			changed = append(changed, r.Address.Domain)
		case o.op.coversRecipient(r):
			s.cancel(i, Result{}, "operator")
			changed = append(changed, r.Address.Domain)
		}
	}
	o.count(len(changed))
	o.note(s, changed)
	switch {
	case o.op.Action == Release:
		s.fail(o.q.Spool.Release(o.batch, s.m))
	case s.m.Settled():
		o.q.Spool.RemoveQuarantined(o.batch, id)
	default:
		kept.Message = s.m
		s.fail(o.q.Spool.UpdateQuarantined(o.batch, kept))
	}
	o.then = append(o.then, func() {
		s.tellLog()
		if o.op.Action == Release {
			o.q.restore(s.m)
		}
	})
	return s.err
}

// freshen makes the i-th recipient due now, and its attempts that were
// interrupted count no more.
func (o *operating) freshen(s *settlement, i int) {
	r := &s.m.Recipients[i]
	r.Held, r.Interrupted, r.NextAttempt = false, 0, o.now
	if r.LastReply == spool.UnderWay {
		r.LastReply = ""
	}
	o.log(s, i, countReleased)
}

// tellAside tells at the start of what is in quarantine and was not told, but for
// what this queue has set aside itself: of what the reading has just found damaged
// nobody else does, and of what was set aside before, a crash may have taken the
// event. An operation that releases a message has the last word. The domain of a
// message is told where its envelope can be read: one under a wrong checksum may
// name anybody's.
func (q *Queue) tellAside(ctx context.Context) error {
	untold, err := q.Spool.Untold()
	for _, id := range untold {
		if err != nil || ctx.Err() != nil {
			break
		}
		err = q.tellOneAside(id)
	}
	return err
}

// tellOneAside keeps operations from the message meanwhile.
func (q *Queue) tellOneAside(id string) error {
	q.operations.Lock()
	defer q.operations.Unlock()
	if known, err := ulid.ParseStrict(id); err == nil && q.has(known) {
		return nil
	}
	kept, err := q.Spool.LoadQuarantined(id)
	switch {
	case errors.Is(err, spool.ErrNotFound):
		return nil // released or cancelled meanwhile
	case err != nil:
		return err
	}
	m, why := kept.Message, errors.New(kept.Reason)
	if m == nil {
		m = &spool.Message{ID: id}
		q.Log.Held(logMessage(m, ""), "damaged, of a domain that cannot be told", why)
	}
	q.noteQuarantine(m, why)
	return nil
}

// has reports whether a message is, or was since the start, in the queue.
func (q *Queue) has(id ulid.ULID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.knows(id)
}

// dispose ends a message in quarantine of which nothing is known but its id. It
// must be named, and by nothing else: whose mail it is cannot be told.
func (o *operating) dispose(id string) error {
	about := o.op.Selection
	if o.op.Action != Cancel || about.Partner != "" || about.Domain != "" || about.Destination != "" || about.Sender != "" {
		return nil
	}
	o.count(0)
	o.q.Spool.RemoveQuarantined(o.batch, id)
	o.then = append(o.then, func() { o.q.Log.Cancelled(maillog.Message{ID: id}, "", "operator") })
	return o.q.Note(o.batch, api.EdgeEvent{Kind: api.EdgeEventKindMessageCancelled, Time: o.now.UTC(), MessageID: &id})
}

// restore takes in a message that has left quarantine.
func (q *Queue) restore(m *spool.Message) {
	id, err := ulid.ParseStrict(m.ID)
	if err != nil {
		return // the spool takes no such message
	}
	e := &entry{id: id, message: m, index: -1}
	var p plan
	q.plan(&p, e, m, q.Now())
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entries[id] = e // also when it is among those that have settled: it had left
	q.place(&p, e, m)
	q.lanes.probe(e)
	q.dispatch()
}
