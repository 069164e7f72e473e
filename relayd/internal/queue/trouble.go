package queue

import (
	"errors"
	"strings"
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
	q.later(e)
}

// later puts off what the trouble kept from being done.
func (q *Queue) later(e *entry) {
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
		r := &m.Recipients[i]
		r.NextAttempt = q.Now().Add(troublePause)
		if r.LastReply == spool.UnderWay {
			r.LastReply = "" // it was not cut short
		}
	}
	f.entry.message = m
}

// setAside quarantines a message whose attempts were interrupted too often, the
// last one by a panic. It reports whether the message has left the queue. While
// another attempt is under way it has not: what that comes to would be lost. The
// entry's mu is held.
func (q *Queue) setAside(f *flight, panicked error) bool {
	e := f.entry
	if e.flight != f || f.next != nil {
		return false
	}
	most := 0
	for _, i := range f.recipients {
		most = max(most, e.message.Recipients[i].Interrupted)
	}
	return most+1 >= poisonPanics && q.quarantine(e, "poison", panicked)
}

// errEnding is why a message is set aside that did not panic just now.
var errEnding = errors.New("its attempts ended with the process, or with a panic, time after time")

// poisonous reports whether m must not be tried any more. The entry's mu is held.
func poisonous(e *entry, m *spool.Message) bool {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if !r.State.Final() && !r.Cancelling && interrupted(e, r) >= poisonAfter && !e.flying(i) {
			return true
		}
	}
	return false
}

// quarantine sets a message aside. Where the spool fails it is looked at again
// later. The entry's mu is held.
func (q *Queue) quarantine(e *entry, word string, why error) bool {
	if err := q.Spool.Quarantine(e.id.String(), why.Error()); err != nil {
		q.later(e)
		return false
	}
	q.leave(e, word, why)
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
		q.noteQuarantine(m, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(e)
}

// maxDetail is how long the detail of an event may be, in bytes; the contract
// counts characters.
const maxDetail = 1000

// noteQuarantine tells that a message is tried no more. What became of it is
// in the spool whether this is told or not; what a crash takes of it, the next
// start tells.
func (q *Queue) noteQuarantine(m *spool.Message, why error) {
	if m.Notice {
		return
	}
	b := q.Journal.NewBatch()
	defer b.Discard()
	detail := why.Error()
	detail = strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "")
	e := api.EdgeEvent{Kind: api.EdgeEventKindMessageQuarantined, Time: q.Now().UTC(), MessageID: &m.ID, Detail: &detail}
	if m.Domain != "" {
		e.Domain = &m.Domain
	}
	if q.Note(b, e) == nil {
		q.Spool.Told(b, m.ID)
		_ = q.Journal.CommitLazy(b)
	}
}
