package smtpd

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// client speaks raw SMTP.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// dial connects and reads the greeting.
func (e *edge) dial() *client {
	e.t.Helper()
	c := e.connect()
	c.want(`220 edge\.relay\.test .*`)
	return c
}

// connect connects and reads nothing.
func (e *edge) connect() *client {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.address)
	e.must(err)
	e.t.Cleanup(func() { _ = conn.Close() })
	e.must(conn.SetDeadline(time.Now().Add(patience)))
	return &client{t: e.t, conn: conn, in: bufio.NewReader(conn)}
}

// hello is dial and EHLO.
func (e *edge) hello() *client {
	e.t.Helper()
	c := e.dial()
	c.send("EHLO client.test")
	c.want(`(?s)250-edge\.relay\.test\n.*`)
	return c
}

// startTLS changes to TLS and says EHLO again.
func (c *client) startTLS(config *tls.Config) {
	c.t.Helper()
	c.ask("STARTTLS", `220 .*`)
	c.secure(config)
	c.ask("EHLO client.test", `(?s)250-edge\.relay\.test\n.*`)
}

// secure puts TLS on the connection.
func (c *client) secure(config *tls.Config) {
	c.t.Helper()
	layer := tls.Client(c.conn, config)
	if err := layer.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	c.conn, c.in = layer, bufio.NewReader(layer)
}

// raw sends bytes as they are.
func (c *client) raw(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("sending %.60q: %v", s, err)
	}
}

// send sends lines, each ended by CR LF.
func (c *client) send(lines ...string) {
	c.t.Helper()
	c.raw(strings.Join(lines, "\r\n") + "\r\n")
}

// reply reads one reply: its lines with LF between.
func (c *client) reply() (string, error) {
	var lines []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// want reads one reply and matches all of it.
func (c *client) want(pattern string) string {
	c.t.Helper()
	got, err := c.reply()
	if err != nil {
		c.t.Fatalf("reading a reply like %q: %v (got %q)", pattern, err, got)
	}
	if !regexp.MustCompile(`^(?:` + pattern + `)$`).MatchString(got) {
		c.t.Fatalf("reply\n%s\ndoes not match\n%s", got, pattern)
	}
	return got
}

// ask sends one command and matches the reply.
func (c *client) ask(command, pattern string) string {
	c.t.Helper()
	c.send(command)
	return c.want(pattern)
}

// ended waits until the server has closed the connection, and fails on any
// further reply.
func (c *client) ended() {
	c.t.Helper()
	rest, err := io.ReadAll(c.in)
	if errors.Is(err, net.ErrClosed) || isDeadline(err) {
		c.t.Fatalf("connection is still open")
	}
	if len(rest) > 0 {
		c.t.Fatalf("after the end came %q", rest)
	}
}

func isDeadline(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// login authenticates with PLAIN.
func (c *client) login(user, pass, pattern string) {
	c.t.Helper()
	c.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+pass)), pattern)
}

// envelope opens a message up to DATA.
func (c *client) envelope(from string, to ...string) {
	c.t.Helper()
	c.ask("MAIL FROM:<"+from+">", `250 .*`)
	for _, address := range to {
		c.ask("RCPT TO:<"+address+">", `250 .*`)
	}
}

// data sends a text, with dots stuffed, and matches the reply.
func (c *client) data(text, pattern string) string {
	c.t.Helper()
	c.ask("DATA", `354 .*`)
	c.raw(strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[2:] + ".\r\n")
	return c.want(pattern)
}

// mail sends one whole message.
func (c *client) mail(from, text, pattern string) string {
	c.t.Helper()
	c.envelope(from, "carl@sink.test")
	return c.data(text, pattern)
}

// text is a small message from an address.
func text(from string, extra ...string) string {
	return strings.Join(append([]string{"From: " + from}, extra...), "\r\n") + "\r\nSubject: hello\r\n\r\nHello.\r\n"
}

const queuedAs = `250 2\.0\.0 Ok: queued as [0-9A-Z]{26}`
