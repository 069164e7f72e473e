package smtpd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"activerelay/api/admit"
)

// Limits of a message header. They are far above what mail programs write and
// bound what one message costs us to look at.
const (
	maxHeaderBytes  = 256 << 10
	maxHeaderFields = 2000
	// maxReceived is where a message counts as going round in a circle
	// (RFC 5321 6.3).
	maxReceived = 30
)

// header reads the header of a message as it streams by, and keeps the few
// fields that rules ask for. It never writes: the message goes on as it came. Nor
// does it copy what it does not keep: nearly all lines are looked at where they
// lie.
//
// It reads in the widest sense, so that a From field that some other reader
// would find is one that we have found: white space before the colon is
// ignored, and a line of white space does not end the header. What no two
// readers agree on (a line that is no field) is a fault.
//
// The zero value is ready; reset makes a used one so.
type header struct {
	fields   []admit.Field // that rules ask for: unfolded, names in lower case
	froms    int
	received int
	// dated, named and signed: there is a Date, a Message-ID and a DKIM-Signature field, whatever is in it.
	dated, named, signed bool
	eightBit             bool   // a byte above 0x7f, in header or body
	fault                string // why the header cannot be accepted; "" while it can

	done  bool
	bytes int
	count int
	line  []byte // the beginning of a line whose end has not come
	// field is what is known of the field that the next line may continue; current
	// is its unfolded text, unless it is passed over.
	field   fieldState
	current []byte
}

// reset makes h ready for another message. It keeps the memory.
func (h *header) reset() {
	clear(h.fields)
	*h = header{fields: h.fields[:0], line: keptBytes(h.line), current: keptBytes(h.current)}
}

// fieldState is how a field is dealt with.
type fieldState uint8

const (
	fieldNone    fieldState = iota
	fieldUnnamed            // its first line has no colon: it may still come
	fieldPassed
	fieldKept
)

// The names of fields that are looked at, and how the values of list fields
// begin. All are in lower case.
const (
	fieldFrom          = "from"
	fieldReceived      = "received"
	fieldDate          = "date"
	fieldMessageID     = "message-id"
	fieldSignature     = "dkim-signature"
	fieldPrecedence    = "precedence"
	fieldAutoSubmitted = "auto-submitted"
	fieldListPrefix    = "list-"
)

// kept reports whether rules look at a field: who speaks, and the marks of bulk
// mail.
func kept(name []byte) bool {
	return isName(name, fieldFrom) || isName(name, fieldPrecedence) || isName(name, fieldAutoSubmitted) ||
		len(name) >= len(fieldListPrefix) && isName(name[:len(fieldListPrefix)], fieldListPrefix)
}

// isName compares without regard to case. Names are ASCII.
func isName(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// feed takes the next part of the message, whose lines end in CR LF.
func (h *header) feed(p []byte) {
	h.eightBit = h.eightBit || hasEightBit(p)
	for !h.done && len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		whole := n > 0
		if !whole {
			n = len(p)
		}
		if h.bytes += n; h.bytes > maxHeaderBytes {
			h.stop(fmt.Sprintf("it is longer than %d bytes", maxHeaderBytes))
			return
		}
		line := p[:n]
		p = p[n:]
		if !whole || len(h.line) > 0 {
			h.line = append(h.line, line...)
			line = h.line
		}
		if whole {
			h.endLine(line)
			h.line = h.line[:0]
		}
	}
}

// hasEightBit looks at eight bytes at a time.
func hasEightBit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 32 {
		a, b := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])
		c, d := binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])
		if (a|b|c|d)&high != 0 {
			return true
		}
		p = p[32:]
	}
	for _, c := range p {
		if c > 0x7f {
			return true
		}
	}
	return false
}

// stop ends the reading; the first fault is the one that is told.
func (h *header) stop(fault string) {
	h.done, h.field = true, fieldNone
	if h.fault == "" {
		h.fault = fault
	}
}

// endLine deals with one physical line, which may lack its line end.
func (h *header) endLine(line []byte) {
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		h.endField()
		h.stop("")
	case line[0] != ' ' && line[0] != '\t':
		h.endField()
		if !h.done {
			h.beginField(line)
		}
	case h.field == fieldNone:
		h.stop("it begins with a continuation line")
	case h.field != fieldPassed:
		h.current = append(h.current, line...)
	}
}

// beginField looks at the first line of a field, which usually is all it takes.
func (h *header) beginField(line []byte) {
	h.field = fieldUnnamed
	if bytes.IndexByte(line, ':') >= 0 {
		name := h.name(line)
		switch {
		case h.done:
			return
		case !kept(name):
			h.field = fieldPassed
			return
		}
		h.field = fieldKept
	}
	h.current = append(h.current[:0], line...)
}

// endField looks at a whole field.
func (h *header) endField() {
	text := h.current
	switch h.field {
	case fieldNone, fieldPassed:
		h.field = fieldNone
		return
	case fieldUnnamed:
		if name := h.name(text); h.done || !kept(name) {
			h.field = fieldNone
			return
		}
	}
	h.field = fieldNone
	name, _ := fieldName(text)
	h.fields = append(h.fields, admit.Field{Name: lowerName(name), Value: string(text[bytes.IndexByte(text, ':')+1:])})
}

// name counts a field by its name. Once there are too many, or it is none, the header is done.
func (h *header) name(text []byte) []byte {
	if h.count++; h.count > maxHeaderFields {
		h.stop(fmt.Sprintf("it has more than %d fields", maxHeaderFields))
		return nil
	}
	name, ok := fieldName(text)
	switch {
	case !ok:
		h.stop("it has a line that is no field")
	case isName(name, fieldFrom):
		h.froms++
	case isName(name, fieldReceived):
		h.received++
	case isName(name, fieldDate):
		h.dated = true
	case isName(name, fieldMessageID):
		h.named = true
	case isName(name, fieldSignature):
		h.signed = true
	}
	return name
}

// fieldName returns the name of a field: printable ASCII but space
// and colon (RFC 5322 2.2), with the white space before the colon that RFC 5322
// 4.5 tells readers to expect.
func fieldName(text []byte) ([]byte, bool) {
	colon := bytes.IndexByte(text, ':')
	if colon < 0 {
		return nil, false
	}
	name := bytes.TrimRight(text[:colon], " \t")
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return nil, false
		}
	}
	return name, len(name) > 0
}

// lowerName is the name of a kept field in lower case.
func lowerName(name []byte) string {
	for _, known := range [...]string{fieldFrom, fieldPrecedence, fieldAutoSubmitted} {
		if isName(name, known) {
			return known
		}
	}
	return strings.ToLower(string(name))
}

// finish ends a message that may have no body. It returns why the header is not
// accepted, or "".
func (h *header) finish() string {
	if !h.done {
		if len(h.line) > 0 {
			h.endLine(h.line)
		}
		h.endField()
		h.done = true
	}
	switch {
	case h.fault != "":
		return h.fault
	case h.froms == 0:
		return "it has no From field"
	case h.froms > 1:
		return fmt.Sprintf("it has %d From fields", h.froms)
	}
	return ""
}

// from is the value of the first From field.
func (h *header) from() string {
	for _, f := range h.fields {
		if f.Name == fieldFrom {
			return f.Value
		}
	}
	return ""
}
