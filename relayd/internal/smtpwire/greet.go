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
	socket, ok := capability[syscall.Conn](c.raw)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	early, peek := false, make([]byte, 1)
	err = raw.Read(func(fd uintptr) (done bool) {
		n, _, err := syscall.Recvfrom(int(fd), peek, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		early = err == nil && n > 0
		return true
	})
	return err == nil && early && !errors.Is(err, syscall.EAGAIN)
}
