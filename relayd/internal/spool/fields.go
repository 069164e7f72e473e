package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"time"

	"activerelay/api/mailaddr"
)

// Records that we write ourselves are made of frames: a byte that says what
// kind it is, the length of the content as a varint, the content, and a checksum
// over the record's key and all that, so that a frame under the wrong key is as
// damaged as one with a flipped bit.
//
// The content of an envelope is a sequence of fields, in any order: a varint of
// twice the field's number, plus one if a length and as many bytes follow, else
// a varint follows. So a reader can pass over a field that it does not know. A
// field that is not there has its zero value.
const frameSumBytes = 4

var errFrame = errors.New("record cannot be read")

// sealFrame appends the checksum to the frame that begins at begin.
func sealFrame(key, record []byte, begin int) []byte {
	return binary.BigEndian.AppendUint32(record, frameSum(key, record[begin:]))
}

func frameSum(key, frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, frame)
}

// openFrame checks the frame that record begins with, and returns its content
// and what comes after it.
func openFrame(key, record []byte) (content, rest []byte, err error) {
	if len(record) == 0 {
		return nil, nil, errFrame
	}
	size, n := binary.Uvarint(record[1:])
	if n <= 0 || size > uint64(len(record)) {
		return nil, nil, errFrame
	}
	begin, end := 1+n, 1+n+int(size)
	if len(record) < end+frameSumBytes {
		return nil, nil, errFrame
	}
	if frameSum(key, record[:end]) != binary.BigEndian.Uint32(record[end:]) {
		return nil, nil, errors.New("checksum of the record")
	}
	return record[begin:end], record[end+frameSumBytes:], nil
}

// Writing of fields. Zero values are left out.

func appendNumber(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(append(b, byte(field<<1)), v)
}

func appendText(b []byte, field int, text string) []byte {
	if text == "" {
		return b
	}
	return appendItem(b, field, text)
}

// appendItem is appendText for a member of a list, which may be empty.
func appendItem(b []byte, field int, text string) []byte {
	b = binary.AppendUvarint(append(b, byte(field<<1|1)), uint64(len(text)))
	return append(b, text...)
}

// appendNested appends a field whose content write appends.
func appendNested(b []byte, field int, write func([]byte) []byte) []byte {
	b = append(b, byte(field<<1|1), 0) // one byte is enough for most lengths
	begin := len(b)
	b = write(b)
	size := len(b) - begin
	if size < 0x80 {
		b[begin-1] = byte(size)
		return b
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(size))
	b = append(b, length[:n-1]...)
	copy(b[begin+n-1:], b[begin:begin+size])
	copy(b[begin-1:], length[:n])
	return b
}

// appendTime writes seconds since 1970 and nanoseconds.
func appendTime(b []byte, field int, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendNested(b, field, func(b []byte) []byte { return appendMoment(b, t) })
}

func appendMoment(b []byte, t time.Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, t.Unix()), uint64(t.Nanosecond()))
}

// appendAddress writes the length of the local part, and both parts.
func appendAddress(b []byte, field int, a mailaddr.Address) []byte {
	if a.IsNull() {
		return b
	}
	return appendNested(b, field, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(len(a.Local)))
		return append(append(b, a.Local...), a.Domain...)
	})
}

func appendHost(b []byte, field int, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	return appendNested(b, field, func(b []byte) []byte {
		b, _ = a.AppendBinary(b) // never fails
		return b
	})
}

// fields reads fields from a text that all strings of the message share.
type fields struct {
	text string
	bad  bool // what was read last is not there
}

// next reads the front of the next field. The value is in number or in bytes.
func (f *fields) next() (field int, number uint64, bytes string, more bool) {
	if f.text == "" || f.bad {
		return 0, 0, "", false
	}
	tag := f.uvarint()
	if tag&1 == 0 {
		return int(tag >> 1), f.uvarint(), "", !f.bad
	}
	return int(tag >> 1), 0, f.take(f.uvarint()), !f.bad
}

func (f *fields) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(f.text) && i < binary.MaxVarintLen64; i++ {
		c := f.text[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			f.text = f.text[i+1:]
			return v
		}
	}
	f.bad = true
	return 0
}

func (f *fields) take(n uint64) string {
	if f.bad || n > uint64(len(f.text)) {
		f.bad = true
		return ""
	}
	text := f.text[:n]
	f.text = f.text[n:]
	return text
}

func (f *fields) moment() time.Time {
	zigzag, nanoseconds := f.uvarint(), f.uvarint()
	seconds := int64(zigzag>>1) ^ -int64(zigzag&1)
	if f.bad || nanoseconds >= 1e9 {
		f.bad = true
		return time.Time{}
	}
	return time.Unix(seconds, int64(nanoseconds)).UTC()
}

// The values of fields. Each takes what next gave, and marks f when it is bad.

func (f *fields) time(text string) time.Time {
	inner := fields{text: text}
	t := inner.moment()
	f.bad = f.bad || inner.bad
	return t
}

func (f *fields) address(text string) mailaddr.Address {
	inner := fields{text: text}
	a := mailaddr.Address{Local: inner.take(inner.uvarint()), Domain: inner.text}
	f.bad = f.bad || inner.bad
	return a
}

func (f *fields) host(text string) (a netip.Addr) {
	f.bad = f.bad || a.UnmarshalBinary([]byte(text)) != nil
	return a
}
