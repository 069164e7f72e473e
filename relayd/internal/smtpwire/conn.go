package smtpwire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"activerelay/api/reason"

	"github.com/emersion/go-smtp"
)

// Conn is one connection. It belongs to the goroutine that serves it, which is
// the one that calls the session; only RemoteAddr and Context may be used by
// others.
type Conn struct {
	server *Server
	raw    net.Conn // as accepted
	conn   net.Conn // the same, or TLS over it
	tls    *tls.ConnectionState
	ctx    context.Context // of the sessions; their methods take none
	cancel context.CancelFunc

	began    time.Time
	progress time.Time // the last accepted message

	input
	output
	rawSocket

	session smtp.Session
	helo    string
	esmtp   bool // EHLO, not HELO
	authed  bool
	authing bool // a line of AUTH comes next
	inMail  bool
	// nullSender is so in a transaction that began with MAIL FROM:<>.
	nullSender bool
	asked      bool // for a recipient, in this transaction
	rcpts      int
	// The options of the command in hand; lent to the session.
	mailOptions smtp.MailOptions
	rcptOptions smtp.RcptOptions

	errors, junk, authFailures int
	ended                      bool // nothing is read any more
	clean                      bool // and nothing is left to read

	mu sync.Mutex
	// waiting: for a command, so that Shutdown may interrupt.
	waiting bool
}

func newConn(s *Server, conn net.Conn) *Conn {
	now := time.Now()
	c := &Conn{server: s, raw: conn, conn: conn, began: now, progress: now}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.input.buf = c.input.small[:]
	return c
}

// Hostname implements Peer.
func (c *Conn) Hostname() string { return c.helo }

// Conn implements Peer. Nobody but the engine may read or write it.
func (c *Conn) Conn() net.Conn { return c.conn }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// TLSConnectionState implements Peer.
func (c *Conn) TLSConnectionState() (tls.ConnectionState, bool) {
	if c.tls == nil {
		return tls.ConnectionState{}, false
	}
	return *c.tls, true
}

// Authenticated reports whether AUTH succeeded.
func (c *Conn) Authenticated() bool { return c.authed }

// Context ends with the connection, and when Shutdown loses its patience.
func (c *Conn) Context() context.Context { return c.ctx }

// Reject implements Peer: the connection ends with 421, and the reply to the
// command in hand is not written any more.
func (c *Conn) Reject() {
	if !c.ended {
		c.hangUp(reason.StageConnect, reason.TooManyConnections)
	}
}

// End lets the reply to the command in hand be the last. What the client has
// sent already is not run.
func (c *Conn) End() { c.ended = true }

// AfterReply calls f once the reply to the command in hand has been written, or
// with the error that kept it from being. A client that has closed its side by
// then counts as gone, though it may still listen: no mail program does that.
func (c *Conn) AfterReply(f func(error)) { c.output.after = f }

// serve is the life of the connection.
func (c *Conn) serve() {
	defer c.server.leave(c)
	defer c.close()
	defer c.recovered()
	if !c.preface() || !c.firstHandshake() || !c.greet() {
		return
	}
	for !c.ended {
		line, err := c.readLine()
		if err != nil {
			if !c.readFailed(err) {
				return
			}
			continue
		}
		if c.mayGoOn() {
			c.run(line)
		}
	}
}

// recovered keeps a panic within its connection.
func (c *Conn) recovered() {
	p := recover()
	if p == nil {
		return
	}
	c.server.config.Log.Error("panic in an SMTP session",
		"client", c.RemoteAddr(), "panic", p, "stack", string(debug.Stack()))
	c.ended = true
	c.say(Refusal{
		Stage: reason.StageConnect, Slug: reason.Internal, Args: reason.Args{Variant: reason.AtConnect},
		Cause: fmt.Errorf("panic: %v", p),
	})
}

// mayGoOn reports whether another command may run.
func (c *Conn) mayGoOn() bool {
	switch {
	case c.server.closing.Load():
		c.hangUp(reason.StageConnect, reason.ShuttingDown)
	case c.now.After(c.until()):
		c.hangUp(reason.StageConnect, reason.SessionLimit)
	}
	return !c.ended
}

// until is when the session is too old.
func (c *Conn) until() time.Time {
	l := &c.server.limits
	switch {
	case c.session == nil:
		return c.began.Add(min(l.FirstCommand, l.SessionAge))
	case c.authed:
		return c.began.Add(l.SessionAge)
	}
	return c.progress.Add(l.SessionAge)
}

// wake interrupts a client that idles between commands.
func (c *Conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // a broken socket wakes by itself
	}
}

func (c *Conn) close() {
	c.flush()
	c.logout()
	c.cancel()
	if c.ended && !c.clean && !c.server.forced.Load() {
		c.linger()
	}
	_ = c.conn.Close() // whatever it says, it is over
	c.undelivered(net.ErrClosed)
	c.release()
}

// logout ends the session. It runs after everything else, so its panic has a
// net of its own.
func (c *Conn) logout() {
	ses := c.session
	c.session = nil
	if ses == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			c.server.config.Log.Error("panic at the end of an SMTP session",
				"client", c.RemoteAddr(), "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := ses.Logout(); err != nil {
		c.server.config.Log.Warn("end of an SMTP session", "client", c.RemoteAddr(), "err", err)
	}
}

// linger keeps the last reply from being lost. The kernel resets a connection
// that is closed over bytes that nobody read, and the peer's then throws away
// what it had not read yet.
func (c *Conn) linger() {
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.CloseWrite() // the peer may be gone
	}
	half, ok := capability[interface{ CloseWrite() error }](c.raw)
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.raw.SetReadDeadline(time.Now().Add(lingerTime))
	c.release() // as many may linger at once as there are connections
	for left := lingerBytes; left > 0; {
		n, err := c.raw.Read(c.input.buf)
		if err != nil {
			return
		}
		left -= n
	}
}

// capability looks for T in a connection and in those beneath it.
func capability[T any](conn net.Conn) (T, bool) {
	for {
		if t, ok := conn.(T); ok {
			return t, true
		}
		under, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			var none T
			return none, false
		}
		conn = under.NetConn()
	}
}
