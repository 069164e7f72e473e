package smtpwire

import (
	"crypto/tls"
	"time"

	"activerelay/api/reason"
)

// firstHandshake is TLS from the first byte (RFC 8314 3.3).
func (c *Conn) firstHandshake() bool {
	t, ok := c.conn.(*tls.Conn)
	return !ok || c.handshake(t)
}

// handshake makes the connection secret, or fails. Then nothing can be said
// that the client would read as SMTP.
func (c *Conn) handshake(t *tls.Conn) bool {
	if !c.arm(c.server.limits.Handshake) {
		return false
	}
	if err := t.HandshakeContext(c.ctx); err != nil {
		c.server.config.Log.Debug("TLS handshake", "client", c.RemoteAddr(), "err", err)
		return false
	}
	state := t.ConnectionState()
	c.conn, c.tls = t, &state
	return true
}

// arm gives what comes before a command its time, which is as short under stress as that of a command.
func (c *Conn) arm(limit time.Duration) bool {
	if c.server.config.Stressed() {
		limit = min(limit, c.server.limits.StressIdle)
	}
	ends := time.Now().Add(limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting, c.lineEnds = true, ends // Shutdown may interrupt, and stress shorten it
	c.writeEnds = time.Time{}
	return !c.server.closing.Load() && c.raw.SetDeadline(ends) == nil
}

// startTLS is STARTTLS (RFC 3207). Plain text that came behind it was not the
// client's to send, or was not sent by the client.
func (c *Conn) startTLS() {
	const stage = reason.StageConnect
	switch {
	case c.tls != nil:
		c.badSequence(stage, "TLS is there already")
		return
	case c.server.config.TLS == nil:
		c.refuse(Refusal{Stage: stage, Slug: reason.CommandNotOffered})
		return
	case c.r != c.w:
		c.badSequence(stage, "nothing may follow STARTTLS")
		c.ended = true
		return
	}
	c.put(sayTLS)
	c.flush()
	c.logout()
	c.helo, c.esmtp, c.authed, c.inMail, c.asked, c.rcpts = "", false, false, false, false, 0
	if c.broken != nil || !c.handshake(tls.Server(c.raw, c.server.config.TLS)) {
		c.ended, c.clean = true, true
	}
}
