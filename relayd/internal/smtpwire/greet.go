package smtpwire

import (
	"time"

	"activerelay/api/reason"
)

// preface reads what comes before SMTP and TLS.
func (c *Conn) preface() bool {
	p, ok := capability[Prefacer](c.raw)
	if !ok {
		return true
	}
	if !c.arm(c.server.limits.Preface) {
		return false
	}
	if err := p.Preface(); err != nil {
		c.server.config.Log.Debug("before SMTP", "client", c.RemoteAddr(), "err", err)
		return false
	}
	return true
}

// greet says who we are, to clients that waited for it.
func (c *Conn) greet() bool {
	switch {
	case c.server.closing.Load():
		c.hangUp(reason.StageConnect, reason.ShuttingDown)
		return false
	case c.tls == nil && c.server.config.RefuseEarlyTalkers && c.talksEarly():
		c.hangUp(reason.StageConnect, reason.EarlyTalker)
		return false
	}
	c.put("220 " + c.server.config.Hostname + " ESMTP\r\n")
	return true
}

// talksEarly reports whether the client has sent something before the greeting.
// Without a delay it only looks, which needs a real socket.
func (c *Conn) talksEarly() bool {
	if delay := c.server.config.GreetDelay; delay > 0 {
		_ = c.raw.SetReadDeadline(time.Now().Add(delay)) // a broken socket fails below
		_, err := c.read()
		return err == nil
	}
	return c.peek() == peekBytes
}
