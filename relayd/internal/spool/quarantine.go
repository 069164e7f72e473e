package spool

import (
	"encoding/json"
	"errors"
	"fmt"

	"activerelay/relayd/internal/journal"
)

// Quarantined is a message that is kept but no longer tried.
type Quarantined struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
	// Message is nil when the envelope itself is what is damaged.
	Message *Message `json:"message"`
}

// Quarantine takes a message out of Load and Each and keeps it for a human.
func (s *Spool) Quarantine(id, reason string) error {
	q := Quarantined{ID: id, Reason: reason}
	key := envelopeKey(id)
	if record, err := s.journal.Get(key); err == nil {
		q.Message, _ = decodeEnvelope(id, key, record) // nil says that it cannot be read
	}
	text, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("quarantine %s: %w", id, err)
	}
	b := s.journal.NewBatch()
	b.Set(quarantineKey(id), text)
	b.Delete(envelopeKey(id))
	if err := s.journal.Commit(b); err != nil {
		return fmt.Errorf("quarantine %s: %w", id, err)
	}
	s.metrics.quarantined.Inc()
	s.log.Error("message put into quarantine", "message_id", id, "reason", reason)
	return nil
}

// damaged quarantines a message and is the error to return for it.
func (s *Spool) damaged(id string, cause error) error {
	err := fmt.Errorf("message %s: %w: %w", id, ErrCorrupt, cause)
	if qerr := s.Quarantine(id, cause.Error()); qerr != nil {
		return errors.Join(err, qerr)
	}
	return err
}

// EachQuarantined calls fn for every message in quarantine.
func (s *Spool) EachQuarantined(fn func(Quarantined) error) error {
	return s.journal.Scan(quarantineKey(""), func(key, text []byte) error {
		var q Quarantined
		if err := json.Unmarshal(text, &q); err != nil {
			return fmt.Errorf("quarantine record %q: %w", key, err)
		}
		return fn(q)
	})
}

// RemoveQuarantined adds the end of a message in quarantine to b.
func (s *Spool) RemoveQuarantined(b *journal.Batch, id string) {
	b.Delete(quarantineKey(id))
	s.Remove(b, id)
}
