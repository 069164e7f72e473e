package smtpd

// ending finds the end of a message that the engine does not see. Where a line
// ends in CR CR LF the engine is still within that line, and so takes the dot of
// a CR LF . CR LF that follows for text; the client, having sent all, waits for
// ever. Every other server ends the message there, and so do we.
//
// The zero value stands before the first byte of the message as the engine gives
// it out.
type ending struct {
	line engineLine
	last byte
	// matched is how much of the end has been seen: the line before it, the dot,
	// the CR. The dot and the CR are kept back until it is clear what they are.
	matched endMatch
	out     []byte // reused
}

// engineLine is where the engine believes to be.
type engineLine uint8

const (
	atBegin engineLine = iota
	afterCR
	within
)

type endMatch uint8

const (
	noMatch endMatch = iota
	missedLine
	missedDot
	missedCR
)

// held is the text that is kept back.
func (m endMatch) held() string {
	switch m {
	case missedDot:
		return "."
	case missedCR:
		return ".\r"
	}
	return ""
}

// pass returns what belongs to the message, and whether it is over. The result
// is valid until the next call.
func (e *ending) pass(p []byte) (text []byte, over bool) {
	e.out = e.out[:0]
	from := 0 // what comes before it in p is in out, or held
	copied := e.matched.held() != ""
	for i, c := range p {
		before := e.matched
		e.step(c)
		switch {
		case before == missedCR && c == '\n':
			return e.out, true
		case before == missedLine && e.matched == missedDot:
			e.out, copied = append(e.out, p[from:i]...), true
			from = i + 1
		case before == missedDot && e.matched == missedCR:
			from = i + 1
		case before.held() != "":
			e.out = append(e.out, before.held()...)
			from = i
		}
	}
	if !copied {
		return p, false
	}
	if e.matched.held() == "" {
		e.out = append(e.out, p[from:]...)
	}
	return e.out, false
}

// step follows the engine by one byte.
func (e *ending) step(c byte) {
	switch {
	case e.matched == missedLine && c == '.':
		e.matched = missedDot
	case e.matched == missedDot && c == '\r':
		e.matched = missedCR
	default:
		e.matched = noMatch
	}
	switch {
	case e.line == afterCR && c == '\n':
		e.line = atBegin
	case e.line != afterCR && c == '\r':
		e.line = afterCR
	default:
		e.line = within
	}
	if c == '\n' && e.last == '\r' && e.line == within {
		e.matched = missedLine
	}
	e.last = c
}
