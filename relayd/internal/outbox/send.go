package outbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
)

// Batch is a request to the control plane.
type Batch struct {
	Generation int64
	// FirstKept is the first event that the edge still has, or the first behind a
	// gap that begins with the next event that the control plane waits for.
	FirstKept int64
	// Events is how many there are; First and Last are the numbers of the outer
	// ones, 0 where there are none.
	Events      int
	First, Last int64
	// Body is the JSON of the contract's EventBatch.
	Body []byte
}

// Next is the batch to send: the events after the acknowledged one, at most
// limit of them and BatchBytes. No events: there is nothing to send. The same
// events come again until they are acknowledged.
func (o *Outbox) Next(limit int) (Batch, error) {
	last, err := o.sendable()
	if err != nil {
		return Batch{}, fmt.Errorf("next events: %w", err)
	}
	o.mu.Lock()
	s := o.state
	o.mu.Unlock()
	// From the last that was acknowledged on: if it is not there, it was dropped, and the control plane waits for it.
	batch, err := o.read(s, s.Acknowledged, last, limit)
	if errors.Is(err, journal.ErrCorrupt) {
		batch, err = o.behindDamage(s, batch, last, limit)
	}
	if err != nil {
		return Batch{}, fmt.Errorf("next events: %w", err)
	}
	batch.Body = append(batch.Body, "]}"...)
	o.mu.Lock()
	o.sent = max(o.sent, batch.Last)
	o.mu.Unlock()
	return batch, nil
}

// read makes a batch of the events from a number on to the last one. Damage ends it with ErrCorrupt.
func (o *Outbox) read(s state, from, last int64, limit int) (Batch, error) {
	batch, size, before := Batch{Generation: s.Generation, FirstKept: s.Pruned + 1}, 0, int64(0)
	err := o.journal.ScanFrom(eventKey(from), eventKey(last+1), func(key, record []byte) error {
		n := int64(binary.BigEndian.Uint64(key[len(eventPrefix):]))
		if n == s.Acknowledged {
			before = n
			return nil
		}
		size += len(record)
		switch {
		case batch.Events == limit:
			return journal.ErrStop
		case batch.Events == 0:
			if n != before+1 {
				batch.FirstKept = n
			}
			batch.begin(n, min(limit, int(last-n)+1))
		case size > BatchBytes, n != batch.Last+1:
			return journal.ErrStop
		}
		return batch.add(n, record)
	})
	return batch, err
}

// behindDamage gives up the events that cannot be read, once those before them are told, and goes on behind them.
func (o *Outbox) behindDamage(s state, before Batch, last int64, limit int) (Batch, error) {
	if before.Events > 0 {
		return before, nil
	}
	next := last + 1
	err := o.journal.ScanAround(eventKey(s.Acknowledged+1), eventKey(last+1), func(key, _ []byte) error {
		next = int64(binary.BigEndian.Uint64(key[len(eventPrefix):]))
		return journal.ErrStop
	}, func([]byte, []byte, error) error { return nil })
	if err == nil {
		err = o.Drop(next - 1)
	}
	if err != nil || next > last {
		return before, err
	}
	// Whether the one before is there cannot be told: the batch says that there is a gap, which holds for none, too.
	return o.read(s, next, last, limit)
}

// begin writes what stands before the events, the first of which is n.
func (b *Batch) begin(n int64, events int) {
	b.First = n
	b.Body = make([]byte, 0, (events+1)*eventBytes)
	b.Body = append(b.Body, `{"generation":`...)
	b.Body = strconv.AppendInt(b.Body, b.Generation, 10)
	b.Body = append(b.Body, `,"first_kept":`...)
	b.Body = strconv.AppendInt(b.Body, b.FirstKept, 10)
	b.Body = append(b.Body, `,"events":[`...)
}

func (b *Batch) add(n int64, record []byte) error {
	if b.Events > 0 {
		b.Body = append(b.Body, ',')
	}
	b.Events, b.Last = b.Events+1, n
	b.Body = append(b.Body, `{"sequence":`...)
	b.Body = strconv.AppendInt(b.Body, n, 10)
	if len(record) == 0 || record[0] != '{' {
		b.Body = append(b.Body, record...)
		return nil
	}
	// Journals of before have whole objects, with a sequence of 0 in them.
	var e api.EdgeEvent
	err := json.Unmarshal(record, &e)
	if err == nil {
		b.Body, err = appendEvent(b.Body, &e)
	}
	if err != nil {
		return fmt.Errorf("event %d: %w", n, err)
	}
	return nil
}

// sendable is the last event that a crash cannot take back. If there are newer
// ones it asks the journal for a sync, which commits in progress share.
func (o *Outbox) sendable() (int64, error) {
	o.mu.Lock()
	assigned, durable := o.assigned, o.durable
	o.mu.Unlock()
	if assigned == durable {
		return durable, nil
	}
	if err := o.journal.Sync(); err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.durable = max(o.durable, assigned)
	return assigned, nil
}

// Ack records that the control plane has all events up to n. An n smaller than
// before means that the control plane was restored: events are sent again from
// there, as far as they are still kept. An n that was never sent is ErrAhead,
// even if there is such an event by now: what the control plane has under that
// number is another.
func (o *Outbox) Ack(n int64) error {
	now := o.now()
	err := o.change(o.journal.CommitLazy, func(s *state) error {
		if n > o.sent {
			return fmt.Errorf("%d of %d: %w", n, o.sent, ErrAhead)
		}
		s.Acknowledged = max(n, s.Pruned)
		s.note(now)
		return nil
	})
	if err != nil {
		return fmt.Errorf("acknowledge events: %w", err)
	}
	return nil
}

// note keeps the marks true for the new Acknowledged.
func (s *state) note(now time.Time) {
	until := now.Truncate(markEvery).Add(markEvery)
	kept := make([]mark, 0, len(s.Marks)+1)
	for _, m := range s.Marks {
		if m.Sequence < s.Acknowledged && m.Until.Before(until) {
			kept = append(kept, m)
		}
	}
	if s.Acknowledged > s.Pruned {
		kept = append(kept, mark{Sequence: s.Acknowledged, Until: until})
	}
	s.Marks = kept
}

// Drop gives up event n, the first that is not acknowledged: the control plane
// refuses it for good, and it would hold up all behind it. The next batch
// declares the gap. What was acknowledged before it is kept as long as ever.
func (o *Outbox) Drop(n int64) error {
	o.stateMu.Lock()
	defer o.stateMu.Unlock()
	o.mu.Lock()
	next := o.state
	o.mu.Unlock()
	if n <= next.Acknowledged {
		return nil
	}
	next.Acknowledged = n
	b := o.journal.NewBatch()
	b.Delete(eventKey(n))
	if err := o.save(b, next, o.journal.Commit); err != nil {
		return fmt.Errorf("drop event %d: %w", n, err)
	}
	o.dropped.Inc()
	return nil
}

// Prune removes events acknowledged more than KeepFor ago.
func (o *Outbox) Prune() error {
	horizon := o.now().Add(-KeepFor)
	o.stateMu.Lock()
	defer o.stateMu.Unlock()
	o.mu.Lock()
	next := o.state
	o.mu.Unlock()
	from := next.Pruned + 1
	for len(next.Marks) > 0 && !next.Marks[0].Until.After(horizon) {
		next.Pruned = next.Marks[0].Sequence
		next.Marks = next.Marks[1:]
	}
	if next.Pruned < from {
		return nil
	}
	b := o.journal.NewBatch()
	b.DeleteRange(eventKey(from), eventKey(next.Pruned+1))
	if err := o.save(b, next, o.journal.CommitLazy); err != nil {
		return fmt.Errorf("prune events: %w", err)
	}
	return nil
}

// StartGeneration begins generation g: all that is kept is sent again, under
// g, since what was sent in the old one may have been taken for something
// else. One that is running already, or is over, is no change: generations only
// grow.
func (o *Outbox) StartGeneration(g int64) error {
	err := o.change(o.journal.Commit, func(s *state) error {
		if g <= s.Generation {
			return nil
		}
		s.Generation = g
		s.Acknowledged = s.Pruned
		s.Marks = nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("start generation %d: %w", g, err)
	}
	o.signal()
	return nil
}

// change applies fn to a copy of the state and stores it. Acknowledgements are
// committed lazily: losing one in a crash only repeats a delivery.
func (o *Outbox) change(commit func(*journal.Batch) error, fn func(*state) error) error {
	o.stateMu.Lock()
	defer o.stateMu.Unlock()
	o.mu.Lock()
	next := o.state
	err := fn(&next)
	o.mu.Unlock()
	if err != nil {
		return err
	}
	return o.save(o.journal.NewBatch(), next, commit)
}

func (o *Outbox) save(b *journal.Batch, next state, commit func(*journal.Batch) error) error {
	record, err := json.Marshal(next)
	if err != nil {
		b.Discard()
		return err
	}
	b.Set(stateKey, record)
	if err := commit(b); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = next
	return nil
}
