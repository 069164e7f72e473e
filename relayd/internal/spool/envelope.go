package spool

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// An envelope record is a frame of this kind; behind it may be notes of
// attempts. Fields may be added without a new kind, see fields.go; a field that
// an older release must not pass over needs one.
const envelopeKind = 2

// The fields of an envelope. Numbers are for ever.
const (
	fieldDomain     = 1
	fieldPartner    = 2
	fieldFrom       = 3
	fieldRecipients = 4 // how many will follow, so that there is room for them
	fieldRecipient  = 5
	fieldClient     = 6
	fieldUser       = 7
	fieldHelo       = 8
	fieldSize       = 9
	fieldAccepted   = 10
	fieldFlags      = 11
	fieldRet        = 12
	fieldEnvID      = 13
	fieldUnits      = 14
	fieldDayStart   = 15
	fieldRevision   = 16
)

// The flags of an envelope.
const (
	flagUTF8 = 1 << iota
	flagEightBit
	flagRequireTLS
	flagNotice
)

// The fields of a recipient.
const (
	fieldAddress  = 1
	fieldNotify   = 2 // one for each word
	fieldORCPT    = 3
	fieldState    = 4
	fieldAttempts = 5
	fieldNext     = 6
	fieldLast     = 7
	fieldReply    = 8
	fieldMarks    = 9
	fieldCut      = 10
)

// The marks of a recipient.
const (
	markDelayNoticed = 1 << iota
	markHeld
	markCancelling
)

// bitIf is bit if on.
func bitIf(on bool, bit uint64) uint64 {
	if on {
		return bit
	}
	return 0
}

// appendEnvelope appends the record of m, which goes under key.
func appendEnvelope(key, record []byte, m *Message) []byte {
	// The frame's length, which is as long as it is, comes before what it counts:
	// a nested field without its number.
	begin := len(record)
	record = appendNested(record, 0, func(b []byte) []byte { return appendMessage(b, m) })
	record[begin] = envelopeKind
	return sealFrame(key, record, begin)
}

func appendMessage(b []byte, m *Message) []byte {
	b = appendText(b, fieldDomain, m.Domain)
	b = appendText(b, fieldPartner, m.Partner)
	b = appendAddress(b, fieldFrom, m.From)
	b = appendNumber(b, fieldRecipients, uint64(len(m.Recipients)))
	for i := range m.Recipients {
		b = appendNested(b, fieldRecipient, func(b []byte) []byte { return appendRecipient(b, &m.Recipients[i]) })
	}
	b = appendHost(b, fieldClient, m.Client)
	b = appendText(b, fieldUser, m.User)
	b = appendText(b, fieldHelo, m.Helo)
	b = appendNumber(b, fieldSize, uint64(m.Size))
	b = appendTime(b, fieldAccepted, m.AcceptedAt)
	b = appendNumber(b, fieldFlags, bitIf(m.SMTPUTF8, flagUTF8)|bitIf(m.EightBit, flagEightBit)|
		bitIf(m.RequireTLS, flagRequireTLS)|bitIf(m.Notice, flagNotice))
	b = appendText(b, fieldRet, m.Ret)
	b = appendText(b, fieldEnvID, m.EnvID)
	b = appendNumber(b, fieldUnits, uint64(m.Units))
	b = appendTime(b, fieldDayStart, m.DayStart)
	return appendNumber(b, fieldRevision, uint64(m.PolicyRevision))
}

func appendRecipient(b []byte, r *Recipient) []byte {
	b = appendAddress(b, fieldAddress, r.Address)
	for _, word := range r.Notify {
		b = appendItem(b, fieldNotify, word)
	}
	b = appendText(b, fieldORCPT, r.ORCPT)
	b = appendText(b, fieldState, string(r.State))
	b = appendNumber(b, fieldAttempts, uint64(r.Attempts))
	b = appendTime(b, fieldNext, r.NextAttempt)
	b = appendTime(b, fieldLast, r.LastAttempt)
	b = appendText(b, fieldReply, r.LastReply)
	b = appendNumber(b, fieldCut, uint64(r.Interrupted))
	return appendNumber(b, fieldMarks, bitIf(r.DelayNoticed, markDelayNoticed)|bitIf(r.Held, markHeld)|
		bitIf(r.Cancelling, markCancelling))
}

// decodeEnvelope reads the record under key, of the message id. Both slices may
// change afterwards.
func decodeEnvelope(id string, key, record []byte) (*Message, error) {
	if len(record) > 0 && record[0] == jsonVersion {
		return decodeJSON(id, key, record)
	}
	if len(record) > 0 && record[0] == noteKind {
		return nil, errNotesOnly
	}
	if len(record) == 0 || record[0] != envelopeKind {
		return nil, errors.New("envelope record cannot be read")
	}
	content, notes, err := openFrame(key, record)
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	m := &Message{ID: id}
	if !m.read(fields{text: string(content)}) {
		return nil, errors.New("envelope has a field that cannot be read")
	}
	return m, m.applyNotes(key, notes)
}

// read takes in the fields of an envelope; false says that they make no sense.
func (m *Message) read(f fields) bool {
	for {
		field, number, text, more := f.next()
		if !more {
			return !f.bad
		}
		switch field {
		case fieldDomain:
			m.Domain = text
		case fieldPartner:
			m.Partner = text
		case fieldFrom:
			m.From = f.address(text)
		case fieldRecipients:
			m.Recipients = make([]Recipient, 0, min(number, uint64(len(f.text))))
		case fieldRecipient:
			m.Recipients = append(m.Recipients, Recipient{})
			f.bad = f.bad || !m.Recipients[len(m.Recipients)-1].read(fields{text: text})
		case fieldClient:
			m.Client = f.host(text)
		case fieldUser:
			m.User = text
		case fieldHelo:
			m.Helo = text
		case fieldSize:
			m.Size = int64(number)
		case fieldAccepted:
			m.AcceptedAt = f.time(text)
		case fieldFlags:
			m.SMTPUTF8, m.EightBit = number&flagUTF8 != 0, number&flagEightBit != 0
			m.RequireTLS, m.Notice = number&flagRequireTLS != 0, number&flagNotice != 0
		case fieldRet:
			m.Ret = text
		case fieldEnvID:
			m.EnvID = text
		case fieldUnits:
			m.Units = int64(number)
		case fieldDayStart:
			m.DayStart = f.time(text)
		case fieldRevision:
			m.PolicyRevision = int64(number)
		}
	}
}

func (r *Recipient) read(f fields) bool {
	for {
		field, number, text, more := f.next()
		if !more {
			return !f.bad
		}
		switch field {
		case fieldAddress:
			r.Address = f.address(text)
		case fieldNotify:
			r.Notify = append(r.Notify, text)
		case fieldORCPT:
			r.ORCPT = text
		case fieldState:
			r.State = State(text)
		case fieldAttempts:
			r.Attempts = int(number)
		case fieldNext:
			r.NextAttempt = f.time(text)
		case fieldLast:
			r.LastAttempt = f.time(text)
		case fieldReply:
			r.LastReply = text
		case fieldCut:
			r.Interrupted = int(number)
		case fieldMarks:
			r.DelayNoticed, r.Held = number&markDelayNoticed != 0, number&markHeld != 0
			r.Cancelling = number&markCancelling != 0
		}
	}
}

// The first version of the record is a version byte, the checksum of the rest,
// and JSON. It is no longer written: an envelope gets the present form when it
// changes.
const (
	jsonVersion   = 1
	jsonHeadBytes = 1 + 4
)

func decodeJSON(id string, key, record []byte) (*Message, error) {
	if len(record) < jsonHeadBytes {
		return nil, errors.New("envelope record cannot be read")
	}
	text := record[jsonHeadBytes:]
	m := new(Message)
	decoder := json.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(m)
	end := decoder.InputOffset() // notes may follow
	if crc32.Checksum(text[:end], castagnoli) != binary.BigEndian.Uint32(record[1:]) {
		return nil, errors.New("checksum of the envelope")
	}
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if m.ID != id {
		return nil, fmt.Errorf("envelope is of message %q", m.ID)
	}
	return m, m.applyNotes(key, text[end:])
}
