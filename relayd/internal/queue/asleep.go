package queue

import (
	"context"
	"fmt"
	"time"

	"activerelay/relayd/internal/spool"
)

// deferAsleep defers mail whose destination is dead without trying it. It stays
// in its lane, and goes on with it as soon as a probe finds the destination
// alive.
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

// deferOne defers those recipients of a message that are due and whose
// destination is dead. The entry's mu is held.
func (q *Queue) deferOne(e *entry) error {
	if e.gone {
		return nil
	}
	stored, err := q.envelope(e)
	if err != nil {
		return err
	}
	s := &settlement{q: q, m: clone(stored), batch: q.Journal.NewBatch(), now: q.Now(), untried: true}
	defer s.batch.Discard()
	for i := range s.m.Recipients {
		r := &s.m.Recipients[i]
		if r.State.Final() || r.Held || e.flying(i) || q.recipientDue(e, r).After(s.now) {
			continue
		}
		if cause, dead := q.deadCause(q.wayOf(e, stored, r)); dead {
			s.recipient(i, cause)
		}
	}
	if len(s.outcomes) == 0 {
		return nil
	}
	if err := s.conclude(); err != nil {
		return fmt.Errorf("defer %s: %w", s.m.ID, err)
	}
	e.message = s.m
	var p plan
	q.plan(&p, e, s.m, s.now)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.place(&p, e, s.m)
	q.dispatch()
	return nil
}

// deadCause says why a destination is dead, if it is.
func (q *Queue) deadCause(w way) (Result, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.lanes.destinations[w]
	if d == nil || !d.dead() {
		return Result{}, false
	}
	cause := *d.cause
	cause.Class, cause.Uncertain, cause.StatusPassedOn = TempFail, false, false
	cause.Text = "not tried, since others found: " + cause.Text
	return cause, true
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
