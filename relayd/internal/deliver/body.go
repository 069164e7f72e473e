package deliver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// blockBytes is how much of the message is read and written at a time.
const blockBytes = 32 << 10

// errShortBody is a message that is not as long as its envelope says.
var errShortBody = errors.New("stored message has another length than its envelope says")

// sendBody sends the message and the final dot, and returns the reply.
//
// Anything that breaks before the last byte is written leaves the message
// unfinished, so the server cannot have taken it. From there to the reply
// nobody can tell: the failure is marked uncertain.
func (c *conn) sendBody(body io.Reader, sizeBytes int64) (reply, *failure) {
	c.limit = time.Now().Add(c.timeouts.DataBlock + time.Duration(sizeBytes/slowestBytesPerSecond)*time.Second)
	stuffer := &dotStuffer{out: deadlineWriter{c}, lineStart: true}
	n, err := copyBlocks(stuffer, body, min(max(sizeBytes, 1), blockBytes))
	if err == nil && n != sizeBytes {
		err = fmt.Errorf("%w: %d, not %d", errShortBody, n, sizeBytes)
	}
	if err == nil {
		err = stuffer.finish()
	}
	c.limit = time.Time{}
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

func copyBlocks(out io.Writer, in io.Reader, blockBytes int64) (n int64, err error) {
	block := make([]byte, blockBytes)
	for {
		m, err := in.Read(block)
		if m > 0 {
			n += int64(m)
			if _, err := out.Write(block[:m]); err != nil {
				return n, err
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, &readError{err}
		}
	}
}

// deadlineWriter gives every write its own deadline.
type deadlineWriter struct{ c *conn }

func (w deadlineWriter) Write(p []byte) (int, error) {
	w.c.within(w.c.timeouts.DataBlock)
	return w.c.out.Write(p)
}

func (w deadlineWriter) flush() error {
	w.c.within(w.c.timeouts.DataBlock)
	return w.c.out.Flush()
}

// dotStuffer writes a message with its leading dots doubled (RFC 5321 4.5.2),
// whole runs at a time. Every LF counts as a line end here, so that no server,
// however it reads bare LF, can find the end of the message early.
type dotStuffer struct {
	out       deadlineWriter
	lineStart bool
	last      [2]byte
}

// Write implements io.Writer.
func (s *dotStuffer) Write(p []byte) (int, error) {
	rest := p
	for len(rest) > 0 {
		if s.lineStart && rest[0] == '.' {
			if _, err := s.out.Write([]byte{'.'}); err != nil {
				return 0, err
			}
		}
		run := nextDotLine(rest)
		if _, err := s.out.Write(run); err != nil {
			return 0, err
		}
		s.lineStart = run[len(run)-1] == '\n'
		rest = rest[len(run):]
	}
	s.remember(p)
	return len(p), nil
}

// nextDotLine returns p up to the first line after the current one that begins
// with a dot, or all of p.
func nextDotLine(p []byte) []byte {
	if i := bytes.Index(p, []byte("\n.")); i >= 0 {
		return p[:i+1]
	}
	return p
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

// finish writes the end of the message. A message whose last line has no end
// gets one: without it the dot would not stand alone.
func (s *dotStuffer) finish() error {
	end := ".\r\n"
	if s.last != [2]byte{'\r', '\n'} && s.last != [2]byte{} {
		end = "\r\n.\r\n"
	}
	if _, err := s.out.Write([]byte(end)); err != nil {
		return err
	}
	return s.out.flush()
}

// headerIsASCII reads the header section and reports whether a server without
// SMTPUTF8 can take it. A message that cannot be read counts as not.
func headerIsASCII(open func() (io.ReadCloser, error)) bool {
	body, err := open()
	if err != nil {
		return false
	}
	defer body.Close()
	in := bufio.NewReaderSize(body, blockBytes)
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
