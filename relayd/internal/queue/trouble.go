package queue

import (
	"errors"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/spool"
)

// troublePause is the wait after a failure of our own disk.
const troublePause = time.Minute

// envelope returns the message's envelope, read from the spool when it is not
// in memory. The entry's mu is held.
func (q *Queue) envelope(e *entry) (*spool.Message, error) {
	if e.message != nil {
		return e.message, nil
	}
	m, err := q.Spool.Load(e.id.String())
	if err != nil {
		return nil, err
	}
	e.message = m
	return m, nil
}

// unreadable deals with an envelope that the spool does not give. A message
// that is gone or set aside leaves the queue; trouble with the disk may pass.
// The entry's mu is held.
func (q *Queue) unreadable(e *entry, err error) {
	if errors.Is(err, spool.ErrNotFound) || errors.Is(err, spool.ErrCorrupt) {
		q.leave(e, "unreadable", err)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due.set(e, q.Now().Add(troublePause).UnixNano())
	q.wake()
}

// pause keeps an outcome that could not be recorded from being caused again at
// once. In memory only: the spool is what could not be written.
func (q *Queue) pause(f *flight) {
	m := clone(f.entry.message)
	for _, i := range f.recipients {
		m.Recipients[i].NextAttempt = q.Now().Add(troublePause)
	}
	f.entry.message = m
}

// setAside quarantines a message whose attempts were interrupted too often. It
// reports whether the message has left the queue. The entry's mu is held.
func (q *Queue) setAside(f *flight, panicked error) bool {
	e := f.entry
	most := 0
	for _, i := range f.recipients {
		most = max(most, e.message.Recipients[i].Interrupted)
	}
	return most+1 >= poisonAfter && q.poison(e, panicked)
}

// poison quarantines a message.
func (q *Queue) poison(e *entry, why error) bool {
	if err := q.Spool.Quarantine(e.id.String(), why.Error()); err != nil {
		return false
	}
	q.leave(e, "poison", why)
	return true
}

// leave takes a message out of the queue that the spool keeps for a human.
// The entry's mu is held.
func (q *Queue) leave(e *entry, why string, err error) {
	m := e.message
	if m == nil {
		m = &spool.Message{ID: e.id.String()}
	}
	q.Log.Held(logMessage(m, m.From.String()), why, err)
	q.metrics.count(countHeld)
	if !errors.Is(err, spool.ErrNotFound) || why == "damaged" {
		q.noteQuarantine(m)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(e)
}

// noteQuarantine tells that a message is tried no more. What became of it is
// in the spool whether this is told or not.
func (q *Queue) noteQuarantine(m *spool.Message) {
	if m.Notice {
		return
	}
	b := q.Journal.NewBatch()
	defer b.Discard()
	e := api.EdgeEvent{Kind: api.EdgeEventKindMessageQuarantined, Time: q.Now().UTC(), MessageID: &m.ID}
	if m.Domain != "" {
		e.Domain = &m.Domain
	}
	if q.Note(b, e) == nil {
		_ = q.Journal.CommitLazy(b)
	}
}
