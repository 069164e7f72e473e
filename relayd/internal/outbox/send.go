package outbox

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
)

// Next is the batch to send: the events after the acknowledged one, at most
// limit of them and BatchBytes. No events: there is nothing to send. The same
// events come again until they are acknowledged.
func (o *Outbox) Next(limit int) (api.EventBatch, error) {
	last, err := o.sendable()
	if err != nil {
		return api.EventBatch{}, fmt.Errorf("next events: %w", err)
	}
	o.mu.Lock()
	s := o.state
	o.mu.Unlock()
	batch := api.EventBatch{Generation: s.Generation, FirstKept: s.Pruned + 1, Events: []api.EdgeEvent{}}
	bytes := 0
	err = o.journal.ScanFrom(eventKey(s.Acknowledged+1), eventKey(last+1), func(key, text []byte) error {
		bytes += len(text)
		if len(batch.Events) == limit || (bytes > BatchBytes && len(batch.Events) > 0) {
			return journal.ErrStop
		}
		e, err := decode(key, text)
		if err != nil {
			return err
		}
		batch.Events = append(batch.Events, e)
		return nil
	})
	if err != nil {
		return api.EventBatch{}, fmt.Errorf("next events: %w", err)
	}
	if n := len(batch.Events); n > 0 {
		o.mu.Lock()
		o.sent = max(o.sent, batch.Events[n-1].Sequence)
		o.mu.Unlock()
	}
	return batch, nil
}

func decode(key, text []byte) (api.EdgeEvent, error) {
	var e api.EdgeEvent
	n := int64(binary.BigEndian.Uint64(key[len(eventPrefix):]))
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("event %d: %w", n, err)
	}
	e.Sequence = n
	return e, nil
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
