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

// quarantineEnd is the end of the range of keys.
var quarantineEnd = []byte("sr")

// Quarantine takes a message out of Load and Each and keeps it for a human. One
// that is in quarantine stays there as it is. After an error nothing has changed.
func (s *Spool) Quarantine(id, reason string) error {
	s.handover.drop(id)
	changed, err := s.quarantine(id, reason)
	if err != nil {
		return fmt.Errorf("quarantine %s: %w", id, err)
	}
	if changed {
		s.metrics.quarantined.Inc()
		s.log.Error("message put into quarantine", "message_id", id, "reason", reason)
	}
	return nil
}

func (s *Spool) quarantine(id, reason string) (changed bool, err error) {
	if err := s.faults("quarantine", s.dir); err != nil {
		return false, err
	}
	q := Quarantined{ID: id, Reason: reason}
	key := envelopeKey(id)
	record, err := s.journal.Get(key)
	switch {
	case err == nil:
		q.Message, _ = decodeEnvelope(id, key, record) // nil says that it cannot be read
	case !errors.Is(err, ErrNotFound) && !errors.Is(err, journal.ErrCorrupt):
		return false, err // the envelope may be there the next time
	}
	if q.Message == nil {
		// Of two who find the same damage the second must not undo what the first has
		// kept; nor must a note that came too late and now stands for an envelope.
		if known, err := s.journal.Has(quarantineKey(id)); known || err != nil && !errors.Is(err, journal.ErrCorrupt) {
			return false, err
		}
	}
	b := s.journal.NewBatch()
	defer b.Discard()
	if err := s.setQuarantined(b, q); err != nil {
		return false, err
	}
	b.Delete(key)
	b.Delete(toldKey(id)) // that of an earlier quarantine, which came too late
	return true, s.journal.Commit(b)
}

func (s *Spool) setQuarantined(b *journal.Batch, q Quarantined) error {
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	b.Set(quarantineKey(q.ID), text)
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

// LoadQuarantined reads a message in quarantine.
func (s *Spool) LoadQuarantined(id string) (Quarantined, error) {
	text, err := s.journal.Get(quarantineKey(id))
	if err != nil && !errors.Is(err, journal.ErrCorrupt) {
		return Quarantined{}, fmt.Errorf("message %s in quarantine: %w", id, err)
	}
	return decodeQuarantined(id, text), nil
}

// EachQuarantined calls fn for every message in quarantine. An error of fn ends it.
func (s *Spool) EachQuarantined(fn func(Quarantined) error) error {
	prefix := quarantineKey("")
	return s.journal.ScanAround(prefix, quarantineEnd, func(key, text []byte) error {
		return fn(decodeQuarantined(string(key[len(prefix):]), text))
	}, func(from, to []byte, cause error) error {
		s.log.Error("records of the quarantine could not be read, the rest goes on", "from_id", string(from[len(prefix):]),
			"to_id", string(to[len(prefix):]), "err", cause)
		return nil
	})
}

// Told adds to b that its events tell of a message in quarantine.
func (s *Spool) Told(b *journal.Batch, id string) { b.Set(toldKey(id), nil) }

// Untold are the ids of the messages in quarantine of which Told does not say that
// they were told, or where that cannot be read.
func (s *Spool) Untold() (ids []string, err error) {
	err = s.EachQuarantined(func(q Quarantined) error {
		told, err := s.journal.Has(toldKey(q.ID))
		if errors.Is(err, journal.ErrCorrupt) {
			told, err = false, nil
		}
		if err == nil && !told {
			ids = append(ids, q.ID)
		}
		return err
	})
	return ids, err
}

// decodeQuarantined reads the record of a message in quarantine. One that is
// itself damaged tells of no more than that the message is there.
func decodeQuarantined(id string, text []byte) Quarantined {
	var q Quarantined
	if err := json.Unmarshal(text, &q); err != nil || q.ID != id {
		return Quarantined{ID: id, Reason: "the record of the quarantine is damaged"}
	}
	if q.Message != nil && q.Message.ID != id {
		q.Message = nil
	}
	return q
}

// UpdateQuarantined writes what a message in quarantine is now into b.
func (s *Spool) UpdateQuarantined(b *journal.Batch, q Quarantined) error {
	if err := s.setQuarantined(b, q); err != nil {
		return fmt.Errorf("update %s in quarantine: %w", q.ID, err)
	}
	return nil
}

// Release adds to b that m leaves quarantine and goes on as it is now.
func (s *Spool) Release(b *journal.Batch, m *Message) error {
	if err := s.Update(b, m); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	b.Delete(quarantineKey(m.ID))
	b.Delete(toldKey(m.ID))
	return nil
}

// RemoveQuarantined adds the end of a message in quarantine to b.
func (s *Spool) RemoveQuarantined(b *journal.Batch, id string) {
	b.Delete(quarantineKey(id))
	b.Delete(toldKey(id))
	s.Remove(b, id)
}
