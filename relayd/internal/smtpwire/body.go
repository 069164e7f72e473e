package smtpwire

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/emersion/go-smtp"
)

// Body is the message that a session's Data reads: everything before CR LF . CR LF
// with the dots of RFC 5321 4.5.2 taken off, CR LF included. It ends with io.EOF,
// and with nothing else, when the message is whole. smtp.ErrTooLongLine and
// smtp.ErrDataTooLarge mean that the message is refused: what the session says
// then is the reply, but it cannot be a success. Any other error is the end of
// the connection.
//
// It looks for three bytes, CR LF and a dot, with the fast search of package
// bytes, and hands out what lies between as it lies in the buffer.
type Body struct {
	conn      *Conn
	run       []byte // found, not yet handed out; in the buffer of conn
	lineStart bool   // the next byte begins a line, so a dot is special
	ended     bool   // the final dot was read
	closed    bool   // Data has returned
	draining  bool
	fault     error // what is wrong with the message
	broken    error // what is wrong with the connection

	line int   // bytes of the line that is not finished
	n    int64 // bytes found
	raw  int64 // bytes that came over the wire
	// began is when the message did, waited how long the client was waited for.
	began  time.Time
	waited time.Duration
}

var (
	_ io.Reader   = (*Body)(nil)
	_ io.WriterTo = (*Body)(nil)

	errBodyClosed = errors.New("reading a message after Data has returned")
)

// Ended reports whether the final dot was read: the message is whole.
func (b *Body) Ended() bool { return b.ended }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := 0
	for n < len(p) {
		if len(b.run) == 0 {
			// What is there already is worth taking, waiting is not.
			if n > 0 && b.conn.r == b.conn.w {
				break
			}
			if err := b.next(); err != nil {
				if n > 0 {
					break // it comes again
				}
				return 0, err
			}
		}
		copied := copy(p[n:], b.run)
		b.run = b.run[copied:]
		n += copied
	}
	return n, nil
}

// WriteTo implements io.WriterTo, which io.Copy uses: it spares a copy.
func (b *Body) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(b.run) == 0 {
			if err := b.next(); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return total, err
			}
		}
		n, err := w.Write(b.run)
		total += int64(n)
		b.run = b.run[n:]
		if err != nil {
			return total, err
		}
	}
}

// drain reads on to the final dot, so that the reply comes where the client
// expects it.
func (b *Body) drain() {
	b.draining = true
	for b.run = nil; b.next() == nil; b.run = nil {
	}
}

// next finds the next run of content.
func (b *Body) next() error {
	for {
		switch {
		case b.closed:
			return errBodyClosed
		case b.broken != nil:
			return b.broken
		case b.fault != nil && !b.draining:
			return b.fault
		case b.ended:
			return io.EOF
		}
		c := b.conn
		if b.lineStart {
			switch b.dot(c.buf[c.r:c.w]) {
			case dotUnclear:
				b.fill()
				continue
			case dotEnd:
				c.r += len(".\r\n")
				b.ended = true
				continue
			case dotStuffed:
				c.r++
			}
			b.lineStart = false
		}
		if !b.find(c.buf[c.r:c.w]) {
			b.fill()
			continue
		}
		if b.check(); b.fault == nil || b.draining {
			return nil
		}
	}
}

func (b *Body) fill() {
	err := b.conn.fill()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	b.broken = err
}

// What a line may begin with.
type dot uint8

const (
	dotNone dot = iota
	dotStuffed
	dotEnd
	dotUnclear // more bytes are needed
)

func (b *Body) dot(p []byte) dot {
	const end = ".\r\n"
	switch {
	case len(p) == 0:
		return dotUnclear
	case p[0] != '.':
		return dotNone
	case len(p) >= len(end) && string(p[:len(end)]) == end:
		return dotEnd
	case len(p) < len(end) && string(p) == end[:len(p)]:
		return dotUnclear
	}
	return dotStuffed
}

// find takes a run off the buffer, up to the next line that begins with a dot. A
// CR at the end stays until it is known what follows.
func (b *Body) find(p []byte) bool {
	if i := bytes.Index(p, []byte("\r\n.")); i >= 0 {
		b.run = p[:i+len("\r\n")]
		b.lineStart = true
	} else {
		if n := len(p); n > 0 && p[n-1] == '\r' {
			p = p[:n-1]
		}
		if len(p) == 0 {
			return false
		}
		b.run = p
		b.lineStart = bytes.HasSuffix(p, []byte("\r\n"))
	}
	b.conn.r += len(b.run)
	return true
}

// check keeps to the limits. A buffer is shorter than the longest line, so only
// a line that began in an earlier one can be too long.
func (b *Body) check() {
	b.n += int64(len(b.run))
	if limit := b.conn.server.config.MaxMessageBytes; limit > 0 && b.n > limit && b.fault == nil {
		b.fault = smtp.ErrDataTooLarge
	}
	first := bytes.IndexByte(b.run, '\n')
	if first < 0 {
		b.line += len(b.run)
	} else {
		b.line += first + 1
	}
	if b.line > MaxLineBytes && b.fault == nil {
		b.fault = smtp.ErrTooLongLine
	}
	if first >= 0 {
		b.line = len(b.run) - 1 - bytes.LastIndexByte(b.run, '\n')
	}
}

// deadline is when the message is too slow if nothing more comes.
func (b *Body) deadline(l *Limits, now time.Time) time.Time {
	idle, grace := b.conn.dataPatience()
	at := now.Add(idle)
	if total := b.began.Add(l.DataTotal); total.Before(at) {
		at = total
	}
	paid := time.Duration(float64(b.raw) / float64(l.DataMinRate) * float64(time.Second))
	if rate := now.Add(grace + paid - b.waited); rate.Before(at) {
		at = rate
	}
	return at
}

// dataPatience is how long a client may be silent within a message, and until its rate counts. A message from the null sender
// anybody can begin, so under stress one from who has neither logged in nor had a message accepted gets no more time than
// silence between commands.
func (c *Conn) dataPatience() (idle, grace time.Duration) {
	l := &c.server.limits
	if !c.nullSender || c.authed || c.progress.After(c.began) || !c.server.config.Stressed() {
		return l.DataIdle, l.DataGrace
	}
	return min(l.DataIdle, l.StressIdle), min(l.DataGrace, l.StressIdle)
}
