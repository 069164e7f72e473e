package spool

import (
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
	if err != nil {
		return nil, s.damaged(id, err)
	}
	return m, nil
}

// Update writes the envelope of m into b. The text is not touched. The last
// batch committed wins; the caller keeps one owner for each message.
func (s *Spool) Update(b *journal.Batch, m *Message) error {
	if err := validID(m.ID); err != nil {
		return fmt.Errorf("update message: %w", err)
	}
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
// quarantine and the rest goes on. An error of fn ends it.
func (s *Spool) Each(fn func(*Message) error) error {
	bad := map[string]error{}
	prefix := envelopeKey("")
	err := s.journal.Scan(prefix, func(key, record []byte) error {
		id := string(key[len(prefix):])
		m, err := decodeEnvelope(id, key, record)
		if err != nil {
			bad[id] = err
			return nil
		}
		return fn(m)
	})
	for id, damage := range bad {
		err = errors.Join(err, s.Quarantine(id, damage.Error()))
	}
	return err
}
