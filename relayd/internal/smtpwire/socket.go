package smtpwire

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// rawSocket is what lies beneath a connection: it can be looked at without reading, and be waited for without a buffer.
type rawSocket struct {
	socket syscall.RawConn // nil: there is none
	// look and take, bound once for each connection; nil until the first use. What they found is below.
	use    func(fd uintptr) (done bool)
	taking bool
	first  [1]byte
	seen   peek
	taken  int
	failed error
}

// hasSocket finds the socket beneath the connection as it was accepted.
func (c *Conn) hasSocket() bool {
	if c.use == nil {
		c.use = func(fd uintptr) bool {
			if c.taking {
				return c.take(fd)
			}
			return c.look(fd)
		}
		if under, ok := capability[syscall.Conn](c.raw); ok {
			c.socket, _ = under.SyscallConn() // nil when it fails
		}
	}
	return c.socket != nil
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
	c.taking = false
	if !c.hasSocket() || c.socket.Read(c.use) != nil {
		return peekUnclear // no socket, closed by us, or the deadline of an earlier read has passed
	}
	return c.seen
}

func (c *Conn) look(fd uintptr) bool {
	n, _, err := syscall.Recvfrom(int(fd), c.first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case n > 0:
		c.seen = peekBytes
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		c.seen = peekNothing
	default:
		c.seen = peekEnd
	}
	return true
}

// receive is one read of the network into the space behind the unread bytes. While it waits for a client without TLS it holds
// no more than those. TLS has to be given a buffer to wait with: a small one, unless the last was full.
func (c *Conn) receive() (int, error) {
	if c.tls != nil || !c.hasSocket() {
		if !c.full && c.w-c.r < smallBuffer/2 {
			c.slim()
		}
		c.makeRoom(c.full)
		return c.conn.Read(c.buf[c.w:])
	}
	c.taking, c.taken, c.failed = true, 0, nil
	if err := c.socket.Read(c.use); err != nil {
		return 0, err
	}
	if c.taken == 0 && c.failed == nil {
		return 0, io.EOF
	}
	return c.taken, c.failed
}

// take is called once, and again when there is something to read.
func (c *Conn) take(fd uintptr) bool {
	c.makeRoom(c.full || c.body != nil)
	for {
		n, err := syscall.Read(int(fd), c.buf[c.w:])
		switch {
		case err == nil:
			c.taken = n
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			c.slim()
			return false
		default:
			c.failed = os.NewSyscallError("read", err)
		}
		return true
	}
}
