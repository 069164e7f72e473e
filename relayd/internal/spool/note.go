package spool

import (
	"encoding/binary"
	"errors"
	"fmt"

	"activerelay/relayd/internal/journal"
)

// A note of an attempt is a frame behind the envelope in the same record: the
// moment, then index and number of attempts of each recipient, as varints.
const noteKind = 0xa7

var (
	errNote = errors.New("note of an attempt cannot be read")
	// errNotesOnly means that there is no envelope in front of the notes: it is
	// lost, or the message went while the note was on its way.
	errNotesOnly = errors.New("there are notes of attempts, but no envelope")
)

// NoteAttempt adds to b that attempts on these recipients of m have begun: what
// m says of their Attempts and LastAttempt (one moment for all), and UnderWay as
// their LastReply. It is an Update of no more than that, at a fraction of the
// cost: Load and Each give the message as Update would have left it. The next
// Update or Remove of m ends the note, so whoever calls Update passes a message
// that has what was noted.
func (s *Spool) NoteAttempt(b *journal.Batch, m *Message, recipients []int) error {
	if err := validID(m.ID); err != nil {
		return fmt.Errorf("note attempt: %w", err)
	}
	if len(recipients) == 0 {
		return nil
	}
	key := envelopeKey(m.ID)
	b.Append(key, appendNote(key, nil, m, recipients))
	return nil
}

func appendNote(key, record []byte, m *Message, recipients []int) []byte {
	begin := len(record)
	record = appendNested(record, 0, func(b []byte) []byte {
		b = appendMoment(b, m.Recipients[recipients[0]].LastAttempt)
		for _, i := range recipients {
			b = binary.AppendUvarint(b, uint64(i))
			b = binary.AppendUvarint(b, uint64(m.Recipients[i].Attempts))
		}
		return b
	})
	record[begin] = noteKind
	return sealFrame(key, record, begin)
}

// applyNotes reads what is behind the envelope.
func (m *Message) applyNotes(key, rest []byte) error {
	for len(rest) > 0 {
		kind := rest[0]
		content, after, err := openFrame(key, rest)
		if err != nil || kind != noteKind {
			return errNote
		}
		if !m.applyNote(fields{text: string(content)}) {
			return errNote
		}
		rest = after
	}
	return nil
}

func (m *Message) applyNote(f fields) bool {
	at := f.moment()
	for f.text != "" && !f.bad {
		i, attempts := f.uvarint(), f.uvarint()
		if f.bad || i >= uint64(len(m.Recipients)) {
			return false
		}
		r := &m.Recipients[i]
		r.Attempts, r.LastAttempt, r.LastReply = int(attempts), at, UnderWay
	}
	return !f.bad
}
