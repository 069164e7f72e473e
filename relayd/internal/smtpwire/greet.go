package smtpwire

import (
	"errors"
	"syscall"
	"time"

	"activerelay/api/reason"
)

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

// peek looks at what has come without taking it.
func (c *Conn) peek() peek {
	socket, ok := capability[syscall.Conn](c.raw)
	if !ok {
		return peekUnclear
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return peekUnclear
	}
	var first [1]byte
	seen := peekUnclear
	err = raw.Read(func(fd uintptr) (done bool) {
		n, _, err := syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case n > 0:
			seen = peekBytes
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			seen = peekNothing
		default:
			seen = peekEnd
		}
		return true
	})
	if err != nil {
		return peekUnclear // closed by us, or the deadline of an earlier read has passed
	}
	return seen
}
