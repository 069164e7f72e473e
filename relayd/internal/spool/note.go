package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"activerelay/relayd/internal/journal"
)

// A note of an attempt is, behind the envelope in the same record: its mark, the
// length of the rest without the checksum, seconds and nanoseconds of the
// moment, then index and number of attempts of each recipient, all as varints;
// then the checksum of everything before.
const noteMark = 0xa7

var errNote = errors.New("note of an attempt cannot be read")

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
	b.Append(envelopeKey(m.ID), appendNote(nil, m, recipients))
	return nil
}

func appendNote(record []byte, m *Message, recipients []int) []byte {
	at := m.Recipients[recipients[0]].LastAttempt
	body := binary.AppendVarint(nil, at.Unix())
	body = binary.AppendUvarint(body, uint64(at.Nanosecond()))
	for _, i := range recipients {
		body = binary.AppendUvarint(body, uint64(i))
		body = binary.AppendUvarint(body, uint64(m.Recipients[i].Attempts))
	}
	begin := len(record)
	record = append(record, noteMark)
	record = binary.AppendUvarint(record, uint64(len(body)))
	record = append(record, body...)
	return binary.BigEndian.AppendUint32(record, crc32.Checksum(record[begin:], castagnoli))
}

// applyNotes reads what is behind the envelope.
func (m *Message) applyNotes(rest []byte) error {
	for len(rest) > 0 {
		size, n := binary.Uvarint(rest[1:])
		if rest[0] != noteMark || n <= 0 || size > uint64(len(rest)) {
			return errNote
		}
		body, end := 1+n, 1+n+int(size)
		if len(rest) < end+4 || crc32.Checksum(rest[:end], castagnoli) != binary.BigEndian.Uint32(rest[end:]) {
			return errNote
		}
		if err := m.applyNote(rest[body:end]); err != nil {
			return err
		}
		rest = rest[end+4:]
	}
	return nil
}

func (m *Message) applyNote(body []byte) error {
	seconds, n := binary.Varint(body)
	if n <= 0 {
		return errNote
	}
	body = body[n:]
	nanoseconds, n := binary.Uvarint(body)
	if n <= 0 {
		return errNote
	}
	body = body[n:]
	at := time.Unix(seconds, int64(nanoseconds)).UTC()
	for len(body) > 0 {
		i, n := binary.Uvarint(body)
		attempts, k := binary.Uvarint(body[max(n, 0):])
		if n <= 0 || k <= 0 || i >= uint64(len(m.Recipients)) {
			return errNote
		}
		body = body[n+k:]
		r := &m.Recipients[i]
		r.Attempts, r.LastAttempt, r.LastReply = int(attempts), at, UnderWay
	}
	return nil
}
