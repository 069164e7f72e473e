package deliver

import (
	"bufio"
	"bytes"
	"cmp"
	"net"
	"net/netip"
	"time"
)

// readBufferBytes is the size of the buffer for replies, which a line must fit.
const readBufferBytes = 4096

// conn is one SMTP connection. One goroutine uses it at a time.
type conn struct {
	wire     *wire
	net      net.Conn // the wire, or TLS over it
	in       *bufio.Reader
	out      []byte // commands that wait for send
	timeouts Timeouts

	host string // "mx1.example.net[192.0.2.1]:25"
	peer netip.AddrPort
	tls  string // version and verdict; empty for plain text
	ext  extensions

	// broken is set once the stream may be out of step with the server.
	broken bool
	// dirty says that a transaction is open at the server.
	dirty    bool
	messages int
	// noted says that the use of TLS was remembered.
	noted  bool
	opened time.Time
	parked time.Time // since when it waits in the pool

	// steps are the commands of the transaction, accepted the recipients that
	// the server took, by index.
	steps    []step
	accepted []int
}

// newConn takes over an open connection; limit is when what goes before the
// message must be over.
func newConn(c net.Conn, t target, timeouts Timeouts, limit time.Time) *conn {
	w := &wire{Conn: c, limit: limit}
	return &conn{
		wire: w, net: w, in: bufio.NewReaderSize(w, readBufferBytes), timeouts: timeouts,
		host: t.String(), peer: t.addr, opened: time.Now(),
	}
}

// line puts one command into the write buffer. Commands never contain CR or
// LF: addresses and parameters have been checked before.
func (c *conn) line(command string) {
	c.out = append(append(c.out, command...), "\r\n"...)
}

// send writes what has been gathered.
func (c *conn) send(step string, d time.Duration) *failure {
	c.wire.offer(d)
	_, err := c.net.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		return c.fail(step, err)
	}
	return nil
}

// reply reads one reply within d.
func (c *conn) reply(step string, d time.Duration) (reply, *failure) {
	return c.read(step, d, readReply)
}

// verdict is reply without the text of a yes.
func (c *conn) verdict(step string, d time.Duration) (reply, *failure) {
	return c.read(step, d, readVerdict)
}

func (c *conn) read(step string, d time.Duration, parse func(*bufio.Reader) (reply, error)) (reply, *failure) {
	if !c.heard() {
		c.wire.expect(d)
	}
	r, err := parse(c.in)
	if err != nil {
		return reply{}, c.fail(step, err)
	}
	if r.code == 421 {
		// RFC 5321 3.8: the server closes after it.
		c.broken = true
	}
	return r, nil
}

// heard reports whether the next line has been read already: replies to
// commands that were sent together mostly come together.
func (c *conn) heard() bool {
	ahead, _ := c.in.Peek(c.in.Buffered())
	return bytes.IndexByte(ahead, '\n') >= 0
}

// command sends one command and reads its reply.
func (c *conn) command(step, text string, d time.Duration) (reply, *failure) {
	c.line(text)
	if f := c.send(step, d); f != nil {
		return reply{}, f
	}
	return c.reply(step, d)
}

func (c *conn) fail(step string, err error) *failure {
	c.broken = true
	return broken(step, c.wire.cause(err))
}

// channel is what queue.Result.TLS says of the connection.
func (c *conn) channel() string { return cmp.Or(c.tls, channelNone) }

// usable reports whether the connection may carry another message.
func (c *conn) usable(now time.Time) bool {
	return !c.broken && !c.dirty && c.messages < maxMessagesPerConnection && now.Sub(c.opened) < maxConnectionAge
}

// close ends the connection, politely where that costs no waiting.
func (c *conn) close() {
	c.wire.detach()
	if !c.broken {
		c.wire.limit = time.Time{}
		c.line("QUIT")
		_ = c.send("QUIT", c.timeouts.Quit)
	}
	_ = c.net.Close()
}
