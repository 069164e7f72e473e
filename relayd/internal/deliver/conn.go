package deliver

import (
	"bufio"
	"cmp"
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Sizes of a connection's buffers: a reply line must fit the first, an
// envelope or a common small message the second.
const (
	readBufferBytes  = 4096
	writeBufferBytes = 32 << 10
)

// conn is one SMTP connection. One goroutine uses it at a time.
type conn struct {
	net      net.Conn
	in       *bufio.Reader
	out      *bufio.Writer
	timeouts Timeouts

	host     string // "mx1.example.net[192.0.2.1]:25"
	addr     netip.Addr
	loopback bool
	tls      string // version and verdict; empty for plain text
	ext      extensions

	// limit is when the part before the message must be over.
	limit time.Time
	// broken is set once the stream may be out of step with the server.
	broken bool
	// dirty says that a transaction is open at the server.
	dirty    bool
	messages int
	// noted says that the use of TLS was remembered.
	noted  bool
	opened time.Time

	mu  sync.Mutex
	ctx context.Context // of the attempt that uses the connection now
}

func newConn(c net.Conn, t target, timeouts Timeouts, limit time.Time) *conn {
	return &conn{
		net: c, in: bufio.NewReaderSize(c, readBufferBytes), out: bufio.NewWriterSize(c, writeBufferBytes),
		timeouts: timeouts, host: t.String(), addr: t.addr.Addr(), loopback: t.addr.Addr().IsLoopback(), limit: limit, opened: time.Now(),
	}
}

// attach makes the end of ctx cut every wait short, until stop is called.
func (c *conn) attach(ctx context.Context) (stop func()) {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	cancel := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ctx == ctx {
			_ = c.net.SetDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ctx = nil
	}
}

// within bounds everything on the wire until the next call: one deadline for a
// whole exchange, so that a server gains nothing by dripping.
func (c *conn) within(d time.Duration) {
	at := time.Now().Add(d)
	if !c.limit.IsZero() && c.limit.Before(at) {
		at = c.limit
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx != nil && c.ctx.Err() != nil {
		at = time.Unix(1, 0)
	}
	_ = c.net.SetDeadline(at)
}

// cause returns why an exchange failed: the end of the attempt, when that is
// what cut it short, or err.
func (c *conn) cause(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx != nil && c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	return err
}

// line puts one command into the write buffer. Commands never contain CR or
// LF: addresses and parameters have been checked before.
func (c *conn) line(command string) {
	_, _ = c.out.WriteString(command) // an error stays in the buffer: Flush has it
	_, _ = c.out.WriteString("\r\n")
}

// flush sends what line has gathered.
func (c *conn) flush(step string, d time.Duration) *failure {
	c.within(d)
	if err := c.out.Flush(); err != nil {
		return c.fail(step, err)
	}
	return nil
}

// reply reads one reply within d.
func (c *conn) reply(step string, d time.Duration) (reply, *failure) {
	c.within(d)
	r, err := readReply(c.in)
	if err != nil {
		return reply{}, c.fail(step, err)
	}
	if r.code == 421 {
		// RFC 5321 3.8: the server closes after it.
		c.broken = true
	}
	return r, nil
}

// command sends one command and reads its reply.
func (c *conn) command(step, text string, d time.Duration) (reply, *failure) {
	c.line(text)
	if f := c.flush(step, d); f != nil {
		return reply{}, f
	}
	return c.reply(step, d)
}

func (c *conn) fail(step string, err error) *failure {
	c.broken = true
	return broken(step, c.cause(err))
}

// channel is what queue.Result.TLS says of the connection.
func (c *conn) channel() string { return cmp.Or(c.tls, channelNone) }

// usable reports whether the connection may carry another message.
func (c *conn) usable() bool {
	return !c.broken && !c.dirty && c.messages < maxMessagesPerConnection &&
		time.Since(c.opened) < maxConnectionAge
}

// close ends the connection, politely where that costs no waiting.
func (c *conn) close() {
	if !c.broken {
		c.limit = time.Time{}
		c.within(c.timeouts.Quit)
		c.line("QUIT")
		_ = c.out.Flush()
	}
	_ = c.net.Close()
}

// extensions are what the server offered in its EHLO reply.
type extensions struct {
	pipelining, eightBitMIME, smtpUTF8, dsn, startTLS, requireTLS bool

	size         bool
	maxSizeBytes int64 // 0: no limit named
	auth         map[string]bool
}

// parseExtensions reads the lines after the first of an EHLO reply. Keywords
// are compared without regard to case (RFC 5321 2.4).
func parseExtensions(lines []string) extensions {
	e := extensions{auth: make(map[string]bool)}
	for _, line := range lines[min(1, len(lines)):] {
		fields := strings.Fields(strings.ToUpper(line))
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "PIPELINING":
			e.pipelining = true
		case "8BITMIME":
			e.eightBitMIME = true
		case "SMTPUTF8":
			e.smtpUTF8 = true
		case "DSN":
			e.dsn = true
		case "STARTTLS":
			e.startTLS = true
		case "REQUIRETLS":
			e.requireTLS = true
		case "SIZE":
			e.size, e.maxSizeBytes = true, sizeLimit(fields[1:])
		case "AUTH":
			e.offerAuth(fields[1:])
		default:
			// An old form that some servers still send beside the new one.
			if rest, ok := strings.CutPrefix(fields[0], "AUTH="); ok {
				e.offerAuth(append(fields[1:], rest))
			}
		}
	}
	return e
}

func (e *extensions) offerAuth(mechanisms []string) {
	for _, m := range mechanisms {
		e.auth[m] = true
	}
}

func sizeLimit(args []string) int64 {
	var n int64
	if len(args) == 0 {
		return 0
	}
	for i := range len(args[0]) {
		if !digit(args[0][i]) || n > 1<<50 {
			return 0
		}
		n = n*10 + int64(args[0][i]-'0')
	}
	return n
}

// patience is how long the reply to a command of the envelope may take.
func (c *conn) patience(step string) time.Duration {
	switch step {
	case "MAIL FROM":
		return c.timeouts.Mail
	case "DATA":
		return c.timeouts.DataStart
	}
	return c.timeouts.Rcpt
}
