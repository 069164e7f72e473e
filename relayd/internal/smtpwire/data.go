package smtpwire

import (
	"errors"
	"fmt"
	"os"
	"time"

	"activerelay/api/reason"

	"github.com/emersion/go-smtp"
)

var errReadHalf = errors.New("the session accepted a message before its end")

// data hands the message to the session and says what came of it.
func (c *Conn) data() {
	const stage = reason.StageData
	switch {
	case !c.inMail:
		c.badSequence(stage, "DATA without MAIL")
		return
	case c.rcpts == 0:
		c.badSequence(stage, "DATA without a valid recipient")
		return
	}
	c.put(sayData)
	c.flush()
	body := &Body{conn: c, lineStart: true, began: time.Now()}
	c.body = body
	err := c.session.Data(body)
	unread := !body.ended
	if unread && body.broken == nil {
		body.drain()
	}
	body.closed = true
	c.body = nil
	if body.broken != nil {
		c.dataBroken(err, body.broken)
		return
	}
	stored := c.verdict(err, body, unread)
	// A message that is ours must not be sent again: nobody waits for this reply
	// longer than the network makes him.
	c.flush()
	if stored {
		c.progress = time.Now()
		c.junk = 0
	}
	c.reset()
}

// verdict says the reply to the final dot, and whether it is a success.
func (c *Conn) verdict(err error, body *Body, unread bool) bool {
	const stage = reason.StageData
	reply, isReply := errors.AsType[*smtp.SMTPError](err)
	success := err == nil || isReply && reply.Code/100 == 2
	switch {
	case success && body.fault != nil:
		err = body.fault
	case success && unread:
		err = errReadHalf
	case err == nil:
		c.put(sayStored)
		return true
	}
	return c.fail(stage, err)
}

// dataBroken ends a connection that failed within a message. A session that has
// refused has recorded it, so its reply is said; a success cannot be one.
func (c *Conn) dataBroken(err, broken error) {
	c.ended = true
	if !errors.Is(broken, os.ErrDeadlineExceeded) {
		return // nobody is there
	}
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok && reply.Code/100 == 4 {
		c.writeError(reply)
		return
	}
	c.say(Refusal{
		Stage: reason.StageData, Slug: reason.SessionTimeout, Cause: fmt.Errorf("reading a message: %w", broken),
	})
}
