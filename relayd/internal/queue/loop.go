package queue

import (
	"context"
	"fmt"
	"time"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"

	"github.com/oklog/ulid/v2"
)

const (
	// maxSleep bounds how long a clock that was set goes unnoticed.
	maxSleep = time.Minute
	// promoteAtOnce is how many due messages are read before the loop looks at
	// other things.
	promoteAtOnce = 128
	// deferAtOnce is how many messages for dead destinations are deferred before
	// the loop looks at other things.
	deferAtOnce = 32
	// settledMemory is how long a session may take from its commit to Add.
	settledMemory = 10 * time.Second
)

// loop does what time brings: attempts that are due again, destinations that
// open. Mail that comes in and workers that become free do not need it.
func (q *Queue) loop(ctx context.Context, read <-chan error) error {
	var forget <-chan time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		q.ringAlarms()
		q.promote(ctx)
		q.refill(ctx)
		q.deferAsleep(ctx)
		timer.Reset(q.untilDue())
		select {
		case <-ctx.Done():
			return nil
		case <-q.Journal.Failed():
			return fmt.Errorf("queue stopped: %w", q.Journal.Err())
		case err := <-read:
			if err != nil {
				return fmt.Errorf("read the queue: %w", err)
			}
			read, forget = nil, time.After(settledMemory)
			q.mu.Lock()
			q.read = true
			q.mu.Unlock()
		case <-forget:
			forget = nil
			q.mu.Lock()
			q.settled = nil
			q.mu.Unlock()
		case <-q.wakeup:
		case <-timer.C:
		}
	}
}

// untilDue is how long the loop may sleep.
func (q *Queue) untilDue() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lanes.asleep.len() > 0 || q.lanes.refill.len() > 0 {
		return 0
	}
	until := int64(maxSleep)
	now := q.Now().UnixNano()
	if q.due.Len() > 0 {
		until = min(until, q.due.first().due-now)
	}
	if len(q.lanes.alarms) > 0 {
		until = min(until, q.lanes.alarms[0].at-now)
	}
	return time.Duration(max(0, until))
}

func (q *Queue) ringAlarms() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lanes.alarms) > 0 {
		q.lanes.ring(q.Now().UnixNano())
		q.dispatch()
	}
}

// load builds the index from the spool, and hands out what is due on the way.
func (q *Queue) load(ctx context.Context) error {
	err := q.Spool.Each(func(m *spool.Message) error {
		if ctx.Err() != nil {
			return journal.ErrStop
		}
		id, err := ulid.ParseStrict(m.ID)
		if err != nil {
			return fmt.Errorf("message %q: %w", m.ID, err)
		}
		// What this process accepts is handed over by its session: Add. What it
		// has accepted before the reading began counts as tried once more.
		q.take(&entry{id: id, message: m, index: -1, loaded: true}, m)
		return nil
	})
	if err != nil || ctx.Err() != nil {
		return err
	}
	return q.tellAside(ctx)
}

// take takes in a message that was read from the spool.
func (q *Queue) take(e *entry, m *spool.Message) {
	var p plan
	q.plan(&p, e, m, q.Now())
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.knows(e.id) {
		return
	}
	q.entries[e.id] = e
	q.place(&p, e, m)
	q.dispatch()
}

// promote moves messages that are due into the lanes.
func (q *Queue) promote(ctx context.Context) {
	for range promoteAtOnce {
		e := q.nextDue()
		if e == nil || ctx.Err() != nil {
			return
		}
		q.replace(e)
	}
}

func (q *Queue) nextDue() *entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.due.Len() == 0 || q.due.first().due > q.Now().UnixNano() {
		return nil
	}
	return q.due.pop()
}

// replace looks at a message anew, and puts it where it belongs.
func (q *Queue) replace(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return
	}
	m, err := q.envelope(e)
	if err != nil {
		q.unreadable(e, err)
		return
	}
	if e.flight == nil && poisonous(e, m) {
		q.quarantine(e, "poison", errEnding)
		return
	}
	var p plan
	q.plan(&p, e, m, q.Now())
	q.mu.Lock()
	defer q.mu.Unlock()
	q.place(&p, e, m)
	if p.limited {
		q.lanes.asleep.pushBack(e)
	}
	q.dispatch()
}

// refill sorts what waits unsorted because its customer had mail for too many
// destinations.
func (q *Queue) refill(ctx context.Context) {
	for range promoteAtOnce {
		q.mu.Lock()
		e := q.lanes.nextExcess()
		q.mu.Unlock()
		if e == nil || ctx.Err() != nil {
			return
		}
		q.replace(e)
	}
}
