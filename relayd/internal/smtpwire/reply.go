package smtpwire

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"activerelay/api/reason"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// output is what has been said and not yet sent.
type output struct {
	out       []byte
	broken    error       // of the last write: nothing more is sent
	after     func(error) // to be told when the last reply is out
	writeEnds time.Time   // deadline of writes
}

// What the engine says when all is well. RFC 2034 3: no enhanced code in the
// greeting, in replies to EHLO and HELO, and in 3yz.
const (
	sayMail      = "250 2.1.0 Sender ok\r\n"
	sayRcpt      = "250 2.1.5 Recipient ok\r\n"
	sayData      = "354 End data with <CR><LF>.<CR><LF>\r\n"
	sayStored    = "250 2.0.0 Ok\r\n"
	sayReset     = "250 2.0.0 Ok\r\n"
	sayVrfy      = "252 2.5.0 Send some mail, and it will be tried\r\n"
	sayHelp      = "214 2.0.0 See RFC 5321\r\n"
	sayBye       = "221 2.0.0 Bye\r\n"
	sayTLS       = "220 2.0.0 Ready to start TLS\r\n"
	sayAuthed    = "235 2.7.0 Authentication succeeded\r\n"
	maxReplyText = reason.MaxLineBytes - len("250-") - len("\r\n")
)

// put holds a finished reply back until flush.
func (c *Conn) put(reply string) {
	c.out = append(c.out, reply...)
	if len(c.out) >= flushBytes {
		c.flush()
	}
}

// flush sends what was said.
func (c *Conn) flush() {
	if len(c.out) == 0 {
		return
	}
	// A write to a client that has left succeeds all the same.
	left := c.after != nil && c.peek() == peekEnd
	if c.broken == nil {
		c.armWrite()
		if _, c.broken = c.conn.Write(c.out); c.broken != nil {
			c.ended = true
		}
	}
	c.out = c.out[:0]
	err := c.broken
	if err == nil && left {
		err = errLeft
	}
	c.undelivered(err)
}

// armWrite gives the client time to read. The deadline stands until it is too near, so that replies do not move it each time:
// a write may take at most an eighth longer than the limit.
func (c *Conn) armWrite() {
	limit, now := c.server.limits.Write, time.Now()
	if c.writeEnds.Sub(now) < limit {
		c.writeEnds = now.Add(limit + limit/8)
		_ = c.conn.SetWriteDeadline(c.writeEnds) // the write fails too
	}
}

var errLeft = errors.New("the client had closed the connection")

// undelivered tells whoever waits for the last reply; err is nil when it is out.
func (c *Conn) undelivered(err error) {
	if f := c.after; f != nil {
		c.after = nil
		f(err)
	}
}

// write says a reply, from the registry or from a session: each line with code and enhanced code.
func (c *Conn) write(code int, enhanced smtp.EnhancedCode, text string) {
	for more := true; more; {
		var line string
		line, text, more = strings.Cut(text, "\n")
		c.out = strconv.AppendInt(c.out, int64(code), 10)
		if more {
			c.out = append(c.out, '-')
		} else {
			c.out = append(c.out, ' ')
		}
		before := len(c.out)
		if enhanced != smtp.NoEnhancedCode {
			c.out = append(strconv.AppendInt(c.out, int64(enhanced[0]), 10), '.')
			c.out = append(strconv.AppendInt(c.out, int64(enhanced[1]), 10), '.')
			c.out = append(strconv.AppendInt(c.out, int64(enhanced[2]), 10), ' ')
		}
		c.out = appendClean(c.out, line, maxReplyText-(len(c.out)-before))
		c.out = append(c.out, '\r', '\n')
	}
	if len(c.out) >= flushBytes {
		c.flush()
	}
}

// appendClean appends a line that cannot become two.
func appendClean(dst []byte, s string, limit int) []byte {
	for i := 0; i < len(s) && i < limit; i++ {
		if b := s[i]; b >= ' ' && b <= '~' {
			dst = append(dst, b)
		} else {
			dst = append(dst, '?')
		}
	}
	return dst
}

// refuse says a "no" of the engine's own, and counts it.
func (c *Conn) refuse(r Refusal) {
	c.say(r)
	c.countError()
}

// say is refuse without counting.
func (c *Conn) say(r Refusal) {
	reply := c.server.config.Refuse(c, r)
	c.write(reply.Code, smtp.EnhancedCode(reply.Enhanced), reply.Message())
	if reply.Code == 421 {
		c.ended = true
	}
}

// hangUp says why, and that was it.
func (c *Conn) hangUp(stage reason.Stage, slug reason.Slug) {
	args := reason.Args{}
	if slug == reason.TooManyConnections {
		args.Client = c.RemoteAddr().String()
	}
	c.say(Refusal{Stage: stage, Slug: slug, Args: args})
	c.ended = true
}

func (c *Conn) countError() {
	c.errors++
	limit := c.server.limits.Errors
	if c.server.config.Stressed() {
		limit = c.server.limits.StressErrors
	}
	if c.errors > limit && !c.ended {
		c.hangUp(reason.StageConnect, reason.TooManyErrors)
	}
}

// countJunk counts a command that brings no message nearer.
func (c *Conn) countJunk() {
	c.junk++
	limit := c.server.limits.Junk
	if c.server.config.Stressed() {
		limit = c.server.limits.StressJunk
	}
	if c.junk > limit && !c.ended {
		c.hangUp(reason.StageConnect, reason.TooManyErrors)
	}
}

// fail says what a session's error says, and reports whether that is a success
// in disguise: a session gives a success its own text by an error of a 2xx code.
func (c *Conn) fail(stage reason.Stage, err error) (success bool) {
	reply, ok := errors.AsType[*smtp.SMTPError](err)
	switch {
	case errors.Is(err, smtp.ErrDataTooLarge):
		c.refuse(Refusal{
			Stage: stage, Slug: reason.MessageTooLarge, Args: reason.Args{Limit: c.server.config.MaxMessageBytes},
		})
		return false
	case errors.Is(err, smtp.ErrTooLongLine):
		c.refuse(Refusal{
			Stage: stage, Slug: reason.LineTooLong,
			Args: reason.Args{Variant: reason.InMessage, Limit: MaxLineBytes},
		})
		return false
	case errors.Is(err, sasl.ErrUnexpectedClientResponse):
		c.refuse(Refusal{
			Stage: stage, Slug: reason.CommandSyntax, Args: reason.Args{Detail: "unexpected response"},
		})
		return false
	case !ok, reply.Code < 200, reply.Code > 599:
		c.say(Refusal{Stage: stage, Slug: reason.Internal, Cause: err})
		return false
	}
	c.writeError(reply)
	if reply.Code == 421 {
		c.ended = true
	}
	if reply.Code >= 500 {
		c.countError()
	}
	return reply.Code < 300
}

// writeError says what a session says. RFC 2034 3: no enhanced code in 3yz.
func (c *Conn) writeError(e *smtp.SMTPError) {
	enhanced := e.EnhancedCode
	switch {
	case e.Code/100 == 3:
		enhanced = smtp.NoEnhancedCode
	case enhanced == smtp.EnhancedCodeNotSet:
		enhanced = smtp.EnhancedCode{e.Code / 100, 0, 0}
	}
	c.write(e.Code, enhanced, e.Message)
}
