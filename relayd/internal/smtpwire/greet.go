package smtpwire

import (
	"errors"
	"net"
	"syscall"
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
		return c.read() == nil
	}
	return c.peek() == peekBytes
}

// What a look at the socket shows.
type peek uint8

const (
	peekUnclear peek = iota // not a socket
	peekNothing
	peekBytes
	peekEnd // the client has closed its side, or the connection is broken
)

// look is what peek needs, made once for each connection.
type look struct {
	socket syscall.RawConn // nil: not a socket
	read   func(fd uintptr) (done bool)
	first  [1]byte
	seen   peek
}

func newLook(conn net.Conn) *look {
	l := &look{}
	if socket, ok := capability[syscall.Conn](conn); ok {
		l.socket, _ = socket.SyscallConn() // nil when it fails
	}
	l.read = func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), l.first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case n > 0:
			l.seen = peekBytes
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			l.seen = peekNothing
		default:
			l.seen = peekEnd
		}
		return true
	}
	return l
}

// peek looks at what has come without taking it.
func (c *Conn) peek() peek {
	if c.look == nil {
		c.look = newLook(c.raw)
	}
	if c.look.socket == nil || c.look.socket.Read(c.look.read) != nil {
		return peekUnclear // no socket, closed by us, or the deadline of an earlier read has passed
	}
	return c.look.seen
}
