package spool

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// An envelope record is a version byte, the checksum of the rest, and JSON;
// behind it may be notes of attempts. The checksum is there because a
// flipped bit in an address would still be an address, of somebody else.
const (
	envelopeVersion   = 1
	envelopeHeadBytes = 1 + 4
)

func encodeEnvelope(m *Message) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode envelope %s: %w", m.ID, err)
	}
	record := binary.BigEndian.AppendUint32([]byte{envelopeVersion}, crc32.Checksum(text, castagnoli))
	return append(record, text...), nil
}

// decodeEnvelope reads the record of the message id.
func decodeEnvelope(id string, record []byte) (*Message, error) {
	if len(record) < envelopeHeadBytes || record[0] != envelopeVersion {
		return nil, errors.New("envelope record cannot be read")
	}
	text := record[envelopeHeadBytes:]
	m := new(Message)
	decoder := json.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(m)
	end := decoder.InputOffset()
	if crc32.Checksum(text[:end], castagnoli) != binary.BigEndian.Uint32(record[1:]) {
		return nil, errors.New("checksum of the envelope")
	}
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if m.ID != id {
		return nil, fmt.Errorf("envelope is of message %q", m.ID)
	}
	return m, m.applyNotes(text[end:])
}
