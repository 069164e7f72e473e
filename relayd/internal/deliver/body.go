package deliver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// blockBytes is how much of the message is written at a time.
	blockBytes = 256 << 10
	// readBytes is how much of a message that is not in memory is read, and
	// then written, at a time.
	readBytes = 64 << 10
)

// errShortBody is a message that is not as long as its envelope says.
var errShortBody = errors.New("stored message has another length than its envelope says")

// sendBody sends the message and the final dot, and returns the reply.
//
// Anything that breaks before the last byte is written leaves the message
// unfinished, so the server cannot have taken it. From there to the reply
// nobody can tell: the failure is marked uncertain.
func (c *conn) sendBody(body io.Reader, sizeBytes int64) (reply, *failure) {
	c.wire.limit = time.Now().Add(c.timeouts.DataBlock + time.Duration(sizeBytes/slowestBytesPerSecond)*time.Second)
	err := c.writeBody(body, sizeBytes)
	c.wire.limit = time.Time{}
	if err != nil {
		return c.bodyBroke(err)
	}
	r, f := c.reply("the end of the message", c.timeouts.DataDone)
	if f != nil {
		f.uncertain, f.transport = true, false
	}
	return r, f
}

// bodyBroke ends the connection without a final dot. A server that answered
// early and stopped reading (552, 421) has said why, if we listen.
func (c *conn) bodyBroke(err error) (reply, *failure) {
	if _, spool := errors.AsType[*readError](err); spool || errors.Is(err, errShortBody) {
		c.broken = true
		return reply{}, temporary("4.3.0", "the message cannot be read from the spool", err)
	}
	f := c.fail("the message", err)
	r, unheard := c.reply("the message", c.timeouts.Quit)
	c.broken = true
	if unheard == nil && r.code >= 400 {
		return r, nil
	}
	f.transport = false
	return reply{}, f
}

// readError tells a failure of the spool from one of the network.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// inMemory is a message whose whole text can be had without reading it. Bytes
// returns nil when it cannot be had.
type inMemory interface{ Bytes() []byte }

// writeBody writes the message and the end of it. The final dot leaves together
// with the last bytes, and only when all of the message was there.
func (c *conn) writeBody(body io.Reader, sizeBytes int64) error {
	s := &dotStuffer{c: c, lineStart: true}
	if m, ok := body.(inMemory); ok {
		if text := m.Bytes(); text != nil {
			return s.all(text, sizeBytes)
		}
	}
	buffer := make([]byte, min(max(sizeBytes, 0)+1, readBytes))
	for n := int64(0); ; {
		m, err := io.ReadFull(body, buffer)
		n += int64(m)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		switch {
		case err != nil && !end:
			return &readError{err}
		case end && n != sizeBytes:
			return fmt.Errorf("%w: %d, not %d", errShortBody, n, sizeBytes)
		}
		if err := s.block(buffer[:m], end); err != nil || end {
			return err
		}
	}
}

// dotStuffer writes a message with its leading dots doubled (RFC 5321 4.5.2).
// Every LF counts as a line end here, so that no server, however it reads bare
// LF, can find the end of the message early.
type dotStuffer struct {
	c         *conn
	lineStart bool
	last      [2]byte
}

// all writes a whole message.
func (s *dotStuffer) all(text []byte, sizeBytes int64) error {
	if int64(len(text)) != sizeBytes {
		return fmt.Errorf("%w: %d, not %d", errShortBody, len(text), sizeBytes)
	}
	for len(text) > blockBytes {
		if err := s.block(text[:blockBytes], false); err != nil {
			return err
		}
		text = text[blockBytes:]
	}
	return s.block(text, true)
}

// block writes the next part of the message, with its end behind the last.
func (s *dotStuffer) block(p []byte, last bool) error {
	s.remember(p)
	tail := ""
	switch {
	case last && s.last != [2]byte{'\r', '\n'} && s.last != [2]byte{}:
		// A message whose last line has no end gets one: without it the dot
		// would not stand alone.
		tail = "\r\n.\r\n"
	case last:
		tail = ".\r\n"
	}
	dot := nextDot(p, 0, s.lineStart)
	if len(p) > 0 {
		s.lineStart = p[len(p)-1] == '\n'
	}
	if dot < 0 {
		return s.c.writeBlock(p, tail)
	}
	stuffed := make([]byte, 0, len(p)+len(p)/16+len(tail)+16)
	for from := 0; ; {
		if dot < 0 {
			return s.c.writeBlock(append(stuffed, p[from:]...), tail)
		}
		stuffed = append(append(stuffed, p[from:dot]...), '.')
		from, dot = dot, nextDot(p, dot+1, false)
	}
}

// nextDot returns where in p, not before from, a line begins with a dot, or -1.
// Dots are rarer than line ends in what is long: base64 has none.
func nextDot(p []byte, from int, lineStart bool) int {
	if lineStart && from == 0 && len(p) > 0 && p[0] == '.' {
		return 0
	}
	for {
		i := bytes.IndexByte(p[from:], '.')
		if i < 0 {
			return -1
		}
		if from += i; from > 0 && p[from-1] == '\n' {
			return from
		}
		from++
	}
}

func (s *dotStuffer) remember(p []byte) {
	if len(p) >= 2 {
		s.last = [2]byte(p[len(p)-2:])
		return
	}
	for _, c := range p {
		s.last = [2]byte{s.last[1], c}
	}
}

// writeBlock writes p and tail with one system call, as far as the server takes
// them at once.
func (c *conn) writeBlock(p []byte, tail string) error {
	c.wire.offer(c.timeouts.DataBlock)
	c.out = append(c.out[:0], tail...)
	defer func() { c.out = c.out[:0] }()
	if c.tls == "" {
		return c.wire.writeBoth(p, c.out)
	}
	c.wire.hold()
	_, err := c.net.Write(p)
	if err == nil && tail != "" {
		_, err = c.net.Write(c.out)
	}
	return errors.Join(err, c.wire.release())
}

// headerIsASCII reads the header section and reports whether a server without
// SMTPUTF8 can take it. A message that cannot be read counts as not.
func headerIsASCII(open func() (io.ReadCloser, error)) bool {
	body, err := open()
	if err != nil {
		return false
	}
	defer body.Close()
	in := bufio.NewReaderSize(body, readBytes)
	for {
		line, err := in.ReadSlice('\n')
		for _, c := range line {
			if c >= 0x80 {
				return false
			}
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil || len(bytes.TrimRight(line, "\r\n")) == 0 {
			return err == nil || errors.Is(err, io.EOF)
		}
	}
}
