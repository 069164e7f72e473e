package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"activerelay/relayd/internal/journal"
)

// Load reads the envelope of a message.
func (s *Spool) Load(id string) (*Message, error) {
	key := envelopeKey(id)
	record, err := s.journal.Get(key)
	if errors.Is(err, journal.ErrCorrupt) {
		return nil, s.damaged(id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", id, err)
	}
	m, err := decodeEnvelope(id, key, record)
	if errors.Is(err, errNotesOnly) {
		if gone, err := s.gone(id); gone || err != nil {
			return nil, fmt.Errorf("message %s: %w", id, cmp.Or(err, ErrNotFound))
		}
	}
	if err != nil {
		return nil, s.damaged(id, err)
	}
	return m, nil
}

// gone tells whether a message of whose envelope only notes are left was removed,
// or put into quarantine, just before they were written. Otherwise the envelope is
// lost.
func (s *Spool) gone(id string) (bool, error) {
	kept, err := s.journal.Has(quarantineKey(id))
	if err != nil || kept {
		return kept, err
	}
	there, err := s.journal.Has(bodyKey(id))
	if errors.Is(err, journal.ErrCorrupt) {
		return false, nil
	}
	return !there && err == nil, err
}

// Update writes the envelope of m into b. The text is not touched. The last
// batch committed wins; the caller keeps one owner for each message.
func (s *Spool) Update(b *journal.Batch, m *Message) error {
	if err := validID(m.ID); err != nil {
		return fmt.Errorf("update message: %w", err)
	}
	s.handover.drop(m.ID)
	setEnvelope(b, m)
	return nil
}

func setEnvelope(b *journal.Batch, m *Message) {
	key := envelopeKey(m.ID)
	b.Set(key, appendEnvelope(key, make([]byte, 0, 256), m))
}

// Remove adds the end of a message to b. Its file, if it has one, goes once
// the batch is durable, so that no crash leaves a message without its text.
func (s *Spool) Remove(b *journal.Batch, id string) {
	s.handover.drop(id)
	b.Delete(envelopeKey(id))
	b.DeleteOnce(bodyKey(id)) // set by Stage and by nobody else
	s.mu.Lock()
	_, isFile := s.files[id]
	s.mu.Unlock()
	if isFile {
		b.OnDurable(func() { s.removeFile(id) })
	}
}

func (s *Spool) removeFile(id string) {
	path := filepath.Join(s.dir, id)
	err := s.faults("remove", path)
	if err == nil {
		err = os.Remove(path)
	}
	s.forget(id)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		// The next start sweeps it away.
		s.log.Warn("removing the body of a settled message", "message_id", id, "err", err)
	}
}

// Each calls fn for every message, oldest first; at start-up it is how the
// queue learns what there is. An envelope that cannot be read goes into
// quarantine and the rest goes on; what a late note of an attempt has left of a
// message that is gone, goes. An error of fn ends it.
func (s *Spool) Each(fn func(*Message) error) error {
	var bad []string
	var gaps []gap
	prefix := envelopeKey("")
	err := s.journal.ScanAround(prefix, envelopeEnd, func(key, record []byte) error {
		id := string(key[len(prefix):])
		m, err := decodeEnvelope(id, key, record)
		if err != nil {
			bad = append(bad, id)
			return nil
		}
		return fn(m)
	}, func(from, to []byte, cause error) error {
		gaps = append(gaps, gap{string(from[len(prefix):]), string(to[len(prefix):]), cause})
		return nil
	})
	for _, id := range bad {
		err = errors.Join(err, s.takeOut(id, fn))
	}
	for _, g := range gaps {
		if err == nil {
			err = s.eachIn(g, fn)
		}
	}
	if errors.Is(err, journal.ErrStop) { // as a scan does
		return nil
	}
	return err
}

// takeOut takes an envelope that could not be read out of Each. It is read once
// more: meanwhile the message may have been released from quarantine, or have gone.
func (s *Spool) takeOut(id string, fn func(*Message) error) error {
	key := envelopeKey(id)
	record, damage := s.journal.Get(key)
	if damage == nil {
		var m *Message
		if m, damage = decodeEnvelope(id, key, record); damage == nil {
			return fn(m)
		}
	}
	switch {
	case errors.Is(damage, ErrNotFound):
		return nil
	case errors.Is(damage, errNotesOnly):
		gone, err := s.gone(id)
		if err != nil {
			return err
		}
		if gone {
			b := s.journal.NewBatch()
			b.Delete(key)
			return s.journal.CommitLazy(b)
		}
	}
	return s.Quarantine(id, damage.Error())
}

// gap is a range of ids in which a table of the journal is damaged; to is empty
// when it has no end.
type gap struct {
	from, to string
	cause    error
}

// eachIn is Each for a range whose envelopes cannot be read in order. That there
// is a message is known from its body, which lies elsewhere; its envelope may
// be readable by itself, from another table.
func (s *Spool) eachIn(g gap, fn func(*Message) error) error {
	ids, unknown, err := s.bodiesIn(g)
	if err != nil {
		return err
	}
	for _, id := range ids {
		m, err := s.Load(id) // quarantines what is damaged
		switch {
		case err == nil:
			err = fn(m)
		case errors.Is(err, ErrCorrupt):
			err = nil
		case errors.Is(err, ErrNotFound):
			err = s.lost(id)
		}
		if err != nil {
			return err
		}
	}
	s.log.Error("envelopes could not be read, the rest goes on: their messages are in quarantine, but for those whose text "+
		"cannot be read either", "from_id", g.from, "to_id", g.to, "messages_found", len(ids), "unreadable_texts", unknown, "err", g.cause)
	return nil
}

// bodiesIn are the ids with a body in the gap, and how many places there are where
// that cannot be told either.
func (s *Spool) bodiesIn(g gap) (ids []string, unknown int, err error) {
	prefix, end := bodyKey(""), bodyKey(g.to)
	if g.to == "" {
		end = bodyEnd
	}
	err = s.journal.ScanAround(bodyKey(g.from), end, func(key, _ []byte) error {
		ids = append(ids, string(key[len(prefix):]))
		return nil
	}, func([]byte, []byte, error) error {
		unknown++
		return nil
	})
	return ids, unknown, err
}

// lost quarantines a message of which only the text is left, unless it is there.
func (s *Spool) lost(id string) error {
	known, err := s.journal.Has(quarantineKey(id))
	if err != nil || known || validID(id) != nil {
		return err
	}
	return s.Quarantine(id, "the envelope is lost")
}
