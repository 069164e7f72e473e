package queue

import (
	"context"
	"fmt"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/spool"
)

// busyAfter is how long mail waits for limits of its destination before that is
// told.
const busyAfter = time.Minute

// deferAsleep defers mail without trying it: because its destination is dead, or
// because an operator's limits of the destination have been used up for long. It
// stays in its lane, and goes on with it as soon as a probe finds the destination
// alive, or it is its turn.
func (q *Queue) deferAsleep(ctx context.Context) {
	for range deferAtOnce {
		q.mu.Lock()
		var e *entry
		if q.lanes.asleep.len() > 0 {
			e = q.lanes.asleep.popFront()
		}
		q.mu.Unlock()
		if e == nil || ctx.Err() != nil {
			return
		}
		e.mu.Lock()
		if err := q.deferOne(e); err != nil {
			q.unreadable(e, err)
		}
		e.mu.Unlock()
	}
}

// deferOne defers those recipients of a message that are due and are not tried.
// The entry's mu is held.
func (q *Queue) deferOne(e *entry) error {
	if e.gone {
		return nil
	}
	stored, err := q.envelope(e)
	if err != nil {
		return err
	}
	s := &settlement{q: q, m: clone(stored), batch: q.Journal.NewBatch(), now: q.Now()}
	defer s.batch.Discard()
	for i := range s.m.Recipients {
		r := &s.m.Recipients[i]
		due := q.recipientDue(e, r)
		if r.State.Final() || r.Held && !r.Cancelling || e.flying(i) || due.After(s.now) {
			continue
		}
		waited := min(s.now.Sub(due), s.now.Sub(s.m.AcceptedAt))
		var cause Result
		if cause, s.untried = q.notTried(q.wayOf(e, stored, r), customerOf(stored), waited); s.untried != "" {
			if r.LastReply == spool.UnderWay {
				r.Interrupted = interrupted(e, r) // LastReply will not tell it any more
			}
			s.recipient(i, cause)
		}
	}
	if len(s.outcomes) > 0 {
		if err := s.conclude(); err != nil {
			return fmt.Errorf("defer %s: %w", s.m.ID, err)
		}
		e.message = s.m
	}
	var p plan
	q.plan(&p, e, s.m, s.now)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.place(&p, e, s.m)
	q.dispatch()
	return nil
}

// notTried says why a customer's mail for a destination that has been due for so
// long is not tried; empty when it may be its turn.
func (q *Queue) notTried(w way, customer string, waited time.Duration) (Result, delay) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch d := q.lanes.destinations[w]; {
	case d == nil:
	case d.dead():
		cause := *d.cause
		cause.Class, cause.Uncertain, cause.StatusPassedOn = TempFail, false, false
		cause.Text = "not tried, since others found: " + cause.Text
		return cause, api.DelayReasonDestinationDown
	case waited >= busyAfter && q.lanes.limited(d):
		if way := d.lanes[q.lanes.customers[customer]]; way != nil && !q.lanes.mayStart(way) {
			return Result{Enhanced: "4.4.5", Text: "not tried, since the limits of the destination are used up"}, api.DelayReasonDestinationBusy
		}
	}
	return Result{}, ""
}

// untilUntried is the wait of mail that is not tried: as long as it is old,
// within the bounds of Backoff.
func untilUntried(r *spool.Recipient, age time.Duration, backoff func(int, float64) time.Duration, random float64) time.Duration {
	wait := backoff(r.Attempts+1, random)
	for n := r.Attempts + 2; wait < age; n++ {
		longer := backoff(n, random)
		if longer <= wait {
			break
		}
		wait = longer
	}
	return wait
}
