package smtpwire

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"activerelay/api/reason"
)

// input is what has been read and not yet used: buf[r:w]. A full buffer, and a message, get a big one from the pool, but
// only while there is something to read: whoever is waited for holds the small array, or just what it has sent of a line.
type input struct {
	small   [smallBuffer]byte
	pooled  *[bigBuffer]byte
	buf     []byte
	r, w    int
	scanned int  // of buf[r:w], known to hold no line end
	full    bool // the last read filled the buffer: more is coming

	now  time.Time // of the last read
	body *Body     // the message that is being read, or nil
	// lineEnds is the deadline of the command line, or of what comes before; zero before its first read. Guarded by Conn.mu
	// while the Conn waits.
	lineEnds time.Time
}

// Why no line could be read.
var (
	errLineTooLong = errors.New("line is too long")
	errAuthTooLong = errors.New("line of AUTH is too long")
	errEndless     = errors.New("line does not end")
	errNotSMTP     = errors.New("not SMTP")
	errClosing     = errors.New("server is closing")
)

// readLine returns the next command without its CR LF. It is valid until the
// next read.
func (c *Conn) readLine() ([]byte, error) {
	c.busy() // after a line that was refused, or a handshake, it is not yet
	for {
		if c.r < c.w && c.buf[c.r] == tlsHandshake {
			return nil, errNotSMTP
		}
		line, found := c.cutLine()
		limit, tooLong := maxCommandBytes, errLineTooLong
		if c.isAuthLine(line, found) {
			limit, tooLong = maxAuthBytes, errAuthTooLong
		}
		switch {
		case found && len(line)+len("\r\n") <= limit:
			return line, nil
		case found:
			return nil, tooLong
		case c.w-c.r >= limit:
			return nil, c.skipLine(tooLong)
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// tlsHandshake is the first byte of a TLS record with a ClientHello: a client
// that wants TLS from the first byte on the wrong port. It would wait for ever.
const tlsHandshake = 0x16

// cutLine takes one line off the buffer, if there is a whole one.
func (c *Conn) cutLine() (line []byte, found bool) {
	window := c.buf[c.r:c.w]
	from := c.scanned
	for {
		i := bytes.IndexByte(window[from:], '\n')
		if i < 0 {
			c.scanned = len(window)
			return nil, false
		}
		i += from
		if i > 0 && window[i-1] == '\r' {
			c.r += i + 1
			c.scanned = 0
			return window[:i-1], true
		}
		from = i + 1
	}
}

func (c *Conn) isAuthLine(line []byte, found bool) bool {
	if c.authing {
		return true
	}
	if !found {
		line = c.buf[c.r:c.w]
	}
	return len(line) > 5 && bytes.EqualFold(line[:5], []byte("AUTH "))
}

// skipLine drops the rest of a line that is too long. It always fails.
func (c *Conn) skipLine(tooLong error) error {
	for skipped := 0; skipped <= maxSkippedBytes; {
		window := c.buf[c.r:c.w]
		if i := bytes.Index(window, []byte("\r\n")); i >= 0 {
			if skipped+i > maxSkippedBytes {
				break
			}
			c.r += i + len("\r\n")
			c.scanned = 0
			return tooLong
		}
		drop := len(window)
		if bytes.HasSuffix(window, []byte("\r")) {
			drop--
		}
		c.r += drop
		skipped += drop
		c.scanned = 0
		if err := c.fill(); err != nil {
			return err
		}
	}
	return errEndless
}

// fill reads once, after everything that was said has been sent.
func (c *Conn) fill() error {
	c.flush()
	if c.broken != nil {
		return c.broken
	}
	if c.body != nil {
		return c.fillBody()
	}
	if err := c.armLine(); err != nil {
		return err
	}
	_, err := c.read()
	return err
}

func (c *Conn) fillBody() error {
	began := time.Now()
	if err := c.conn.SetReadDeadline(c.body.deadline(&c.server.limits, began)); err != nil {
		return err
	}
	n, err := c.read()
	c.body.waited += c.now.Sub(began)
	c.body.raw += int64(n)
	return err
}

// maxEmptyReads is how often a connection may return nothing without an error.
const maxEmptyReads = 100

// read is one read of the network. Bytes that come with an error count.
func (c *Conn) read() (int, error) {
	for range maxEmptyReads {
		n, err := c.receive()
		c.now = time.Now()
		c.w += n
		c.full = c.w == len(c.buf)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// armLine sets the deadline of a command line. It stands for the whole line:
// dripping bytes gains no time.
func (c *Conn) armLine() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lineEnds.IsZero() {
		idle := c.server.limits.CommandIdle
		if c.server.config.Stressed() {
			idle = min(idle, c.server.limits.StressIdle)
		}
		c.lineEnds = time.Now().Add(idle)
		if until := c.until(); until.Before(c.lineEnds) {
			c.lineEnds = until
		}
	}
	if c.server.closing.Load() {
		return errClosing
	}
	c.waiting = true
	return c.conn.SetReadDeadline(c.lineEnds)
}

// hurry gives a client that waits between commands, or has not finished its handshake, no more time than those have
// who come to wait under stress.
func (c *Conn) hurry() {
	until := time.Now().Add(c.server.limits.StressIdle)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting && until.Before(c.lineEnds) && !c.server.closing.Load() {
		c.lineEnds = until
		_ = c.raw.SetReadDeadline(until) // a broken socket wakes by itself
	}
}

// busy keeps others from interrupting. The next line has its time from its own
// beginning on.
func (c *Conn) busy() {
	c.mu.Lock()
	c.waiting = false
	c.lineEnds = time.Time{}
	c.mu.Unlock()
}

// makeRoom leaves space behind the unread bytes: much, where much is to be expected.
func (c *Conn) makeRoom(much bool) {
	switch empty := c.r == c.w; {
	case empty && !much:
		c.release()
	case c.pooled == nil && (much || c.w == len(c.buf)):
		c.big()
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
}

// big moves the unread bytes to a big buffer.
func (c *Conn) big() {
	if c.pooled != nil {
		return
	}
	c.pooled = c.server.buffers.Get().(*[bigBuffer]byte)
	c.w = copy(c.pooled[:], c.buf[c.r:c.w])
	c.r = 0
	c.buf = c.pooled[:]
}

// slim keeps the unread bytes and gives the big buffer back.
func (c *Conn) slim() {
	if c.pooled == nil {
		return
	}
	kept := c.small[:]
	if n := c.w - c.r; n > len(kept) {
		kept = make([]byte, n) // what there is of a long line
	}
	c.w = copy(kept, c.buf[c.r:c.w])
	c.r = 0
	c.buf = kept
	c.putBack()
}

// release gives the big buffer back. What was in it is gone.
func (c *Conn) release() {
	c.putBack()
	c.buf = c.small[:]
	c.r, c.w, c.scanned = 0, 0, 0
}

func (c *Conn) putBack() {
	if c.pooled != nil {
		c.server.buffers.Put(c.pooled)
		c.pooled = nil
	}
}

// readFailed deals with a line that could not be read. It reports whether the
// connection goes on.
func (c *Conn) readFailed(err error) bool {
	stage := reason.StageConnect
	switch {
	case errors.Is(err, errLineTooLong):
		c.refuse(Refusal{
			Stage: stage, Slug: reason.LineTooLong, Args: reason.Args{Limit: maxCommandBytes},
		})
		return !c.ended
	case errors.Is(err, errAuthTooLong):
		c.refuse(Refusal{
			Stage: reason.StageAuth, Slug: reason.LineTooLong,
			Args: reason.Args{Variant: reason.InAuth, Limit: maxAuthBytes},
		})
		return !c.ended
	case errors.Is(err, errEndless):
		c.hangUp(stage, reason.TooManyErrors)
	case errors.Is(err, errNotSMTP):
		c.hangUp(stage, reason.NotSMTP)
	case errors.Is(err, errClosing), errors.Is(err, os.ErrDeadlineExceeded) && c.server.closing.Load():
		c.hangUp(stage, reason.ShuttingDown)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.hangUp(stage, reason.SessionTimeout)
	}
	return false
}
