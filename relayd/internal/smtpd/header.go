package smtpd

import (
	"bytes"
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
// fields that rules ask for. It never writes: the message goes on as it came.
//
// It reads in the widest sense, so that a From field that some other reader
// would find is one that we have found: white space before the colon is
// ignored, and a line of white space does not end the header. What no two
// readers agree on (a line that is no field) is a fault.
type header struct {
	fields   []admit.Field // that rules ask for: unfolded, names in lower case
	froms    int
	received int
	eightBit bool   // a byte above 0x7f, in header or body
	fault    string // why the header cannot be accepted; "" while it can

	done    bool
	bytes   int
	count   int
	line    []byte // the physical line read so far
	current []byte // the unfolded field that the next line may continue; nil: none
}

// kept reports whether rules look at a field: who speaks, and the marks of bulk
// mail.
func kept(name string) bool {
	return name == "from" || name == "precedence" || name == "auto-submitted" || strings.HasPrefix(name, "list-")
}

// feed takes the next part of the message, whose lines end in CR LF.
func (h *header) feed(p []byte) {
	h.eightBit = h.eightBit || hasEightBit(p)
	for !h.done && len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			h.take(p)
			return
		}
		h.take(p[:end+1])
		if !h.done {
			h.endLine()
		}
		p = p[end+1:]
	}
}

func hasEightBit(p []byte) bool {
	for _, c := range p {
		if c > 0x7f {
			return true
		}
	}
	return false
}

// take adds to the physical line, within the limit of the whole header.
func (h *header) take(p []byte) {
	h.bytes += len(p)
	if h.bytes > maxHeaderBytes {
		h.stop(fmt.Sprintf("it is longer than %d bytes", maxHeaderBytes))
		return
	}
	h.line = append(h.line, p...)
}

// stop ends the reading; the first fault is the one that is told.
func (h *header) stop(fault string) {
	h.done = true
	if h.fault == "" {
		h.fault = fault
	}
	h.line, h.current = nil, nil
}

// endLine deals with one physical line.
func (h *header) endLine() {
	line := bytes.TrimSuffix(bytes.TrimSuffix(h.line, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		h.endField()
		h.stop("")
	case line[0] == ' ' || line[0] == '\t':
		if h.current == nil {
			h.stop("it begins with a continuation line")
			return
		}
		h.current = append(h.current, line...)
	default:
		h.endField()
		h.current = append(make([]byte, 0, len(line)), line...)
	}
	h.line = h.line[:0]
}

// endField looks at a whole field.
func (h *header) endField() {
	if h.current == nil || h.done {
		return
	}
	text := h.current
	h.current = nil
	if h.count++; h.count > maxHeaderFields {
		h.stop(fmt.Sprintf("it has more than %d fields", maxHeaderFields))
		return
	}
	name, ok := fieldName(text)
	if !ok {
		h.stop("it has a line that is no field")
		return
	}
	switch name {
	case "from":
		h.froms++
	case "received":
		h.received++
	}
	if kept(name) {
		h.fields = append(h.fields, admit.Field{Name: name, Value: string(text[bytes.IndexByte(text, ':')+1:])})
	}
}

// fieldName returns the lower-case name of a field: printable ASCII but space
// and colon (RFC 5322 2.2), with the white space before the colon that RFC 5322
// 4.5 tells readers to expect.
func fieldName(text []byte) (string, bool) {
	colon := bytes.IndexByte(text, ':')
	if colon < 0 {
		return "", false
	}
	name := bytes.TrimRight(text[:colon], " \t")
	if len(name) == 0 {
		return "", false
	}
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return "", false
		}
	}
	return strings.ToLower(string(name)), true
}

// finish ends a message that may have no body. It returns why the header is not
// accepted, or "".
func (h *header) finish() string {
	if !h.done {
		if len(h.line) > 0 {
			h.endLine()
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

// values returns the values of a kept field.
func (h *header) values(name string) []string {
	var out []string
	for _, f := range h.fields {
		if f.Name == name {
			out = append(out, f.Value)
		}
	}
	return out
}
