package smtpwire

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
)

// certificate is self-signed, for mx.test.
func certificate(tb testing.TB) (server, client *tls.Config) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.test"}, DNSNames: []string{"mx.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: roots, ServerName: "mx.test"}
}

// listen serves on loopback until the test ends.
func listen(tb testing.TB, s engine, wrap func(net.Listener) net.Listener) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := l.Addr().String()
	if wrap != nil {
		l = wrap(l)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		if err := <-served; err != nil && !errors.Is(err, smtp.ErrServerClosed) {
			tb.Error(err)
		}
	})
	return address
}

// socket is a client on a real socket.
type socket struct {
	tb   testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func connect(tb testing.TB, address string) *socket {
	tb.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &socket{tb: tb, conn: conn, in: bufio.NewReader(conn)}
}

func (s *socket) send(text string) {
	s.tb.Helper()
	if _, err := io.WriteString(s.conn, text); err != nil {
		s.tb.Fatal(err)
	}
}

// reply reads one reply, whole.
func (s *socket) reply() string {
	s.tb.Helper()
	var all string
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.tb.Fatalf("%v after %q", err, all)
		}
		if all += line; len(line) > 3 && line[3] == ' ' {
			return all
		}
	}
}

// rest is everything up to the end of the connection, which must come in good
// order.
func (s *socket) rest() string {
	s.tb.Helper()
	all, err := io.ReadAll(s.in)
	if err != nil {
		s.tb.Errorf("the connection ended with %v after %q", err, all)
	}
	return string(all)
}

func (s *socket) secure(config *tls.Config) {
	s.conn = tls.Client(s.conn, config)
	s.in = bufio.NewReader(s.conn)
}

func TestSTARTTLSBeginsAnew(t *testing.T) {
	server, client := certificate(t)
	d := &diary{}
	address := listen(t, newServer(t, d, func(c *Config) { c.TLS, c.AllowInsecureAuth = server, false }), nil)
	c := connect(t, address)
	c.reply()
	c.send("EHLO plain.test\r\n")
	if hello := c.reply(); !strings.Contains(hello, "250-STARTTLS\r\n") || strings.Contains(hello, "AUTH") || strings.Contains(hello, "REQUIRETLS") {
		t.Error(hello)
	}
	c.send("AUTH PLAIN AGEAcmlnaHQ=\r\n")
	if got := c.reply(); !strings.HasSuffix(got, "530 5.7.0 reason=tls-required\r\n") {
		t.Error(got)
	}
	c.send("MAIL FROM:<plain@ok.test>\r\nSTARTTLS\r\n")
	c.reply()
	c.reply()
	c.secure(client)
	c.send("MAIL FROM:<early@ok.test>\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "503") {
		t.Error("no EHLO after STARTTLS:", got)
	}
	c.send("EHLO secret.test\r\n")
	if hello := c.reply(); strings.Contains(hello, "STARTTLS") || !strings.Contains(hello, "250-AUTH PLAIN LOGIN\r\n250-REQUIRETLS\r\n") {
		t.Error(hello)
	}
	c.send("STARTTLS\r\nAUTH PLAIN AGEAcmlnaHQ=\r\nMAIL FROM:<secret@ok.test> REQUIRETLS\r\nQUIT\r\n")
	got := strings.Join(codes(t, c.rest()), ",")
	if want := "503 5.5.1,235 2.7.0,250 2.1.0,221 2.0.0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	want := "hello plain.test\nmail \"plain@ok.test\"\nlogout\nhello secret.test\nlogin a\nmail \"secret@ok.test\"\nlogout"
	if d.text() != want {
		t.Error(d.text())
	}
}

func TestNoPlainTextIsRunAfterSTARTTLS(t *testing.T) {
	server, _ := certificate(t)
	evil := "EHLO c.test\r\nMAIL FROM:<evil@ok.test>\r\n"
	cases := []struct {
		name, first, then string
	}{
		{name: "pipelined", first: "STARTTLS\r\n" + evil},
		{name: "one byte pipelined", first: "STARTTLS\r\nE", then: evil[1:]},
		{name: "after 220", first: "STARTTLS\r\n", then: evil},
		{name: "garbage, then commands", first: "STARTTLS\r\n", then: "\x16\x03\x01garbage\r\n" + evil},
		{name: "a handshake cut short", first: "STARTTLS\r\n", then: "\x16\x03\x01\x00\x02\x01\x00" + evil},
	}
	for _, c := range cases {
		d := &diary{}
		conn := &script{chunks: [][]byte{[]byte("EHLO c.test\r\n"), []byte(c.first), []byte(c.then)}}
		newServer(t, d, func(c *Config) { c.TLS = server }).enter(conn).serve()
		if d.text() != "hello c.test\nlogout" {
			t.Errorf("%s: %s", c.name, d.text())
		}
		for _, line := range strings.Split(conn.out.String(), "\r\n") {
			if strings.HasPrefix(line, "250 2.1.0") {
				t.Errorf("%s: %q", c.name, line)
			}
		}
	}
}

func TestImplicitTLS(t *testing.T) {
	server, client := certificate(t)
	d := &diary{}
	address := listen(t, newServer(t, d, func(c *Config) { c.TLS = server }), func(l net.Listener) net.Listener {
		return tls.NewListener(l, server)
	})
	c := connect(t, address)
	c.secure(client)
	c.reply()
	c.send(envelope)
	if hello := c.reply(); strings.Contains(hello, "STARTTLS") || !strings.Contains(hello, "REQUIRETLS") {
		t.Error(hello)
	}
	c.reply()
	c.reply()
	c.reply()
	c.send("x\r\n.\r\nFROB\r\nPOST / HTTP/1.1\r\nmore\r\n")
	if got := strings.Join(codes(t, c.rest()), ","); got != "250 2.0.0,500 5.5.1,421 4.7.0" {
		t.Error(got)
	}
	if len(d.bodies) != 1 {
		t.Error(d.text())
	}
}

// A socket that is closed over unread bytes is reset, and the reply is lost.
func TestTheLastReplyArrivesOverUnreadBytes(t *testing.T) {
	address := listen(t, newServer(t, &diary{}, nil), nil)
	c := connect(t, address)
	c.reply()
	c.send("GET / HTTP/1.1\r\n" + strings.Repeat("Header: value\r\n", 1000))
	if got := strings.Join(codes(t, c.rest()), ","); got != "421 4.7.0" {
		t.Error(got)
	}
}

func TestEarlyTalkers(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Minute} {
		d := &diary{}
		s := newServer(t, d, func(c *Config) { c.RefuseEarlyTalkers, c.GreetDelay = true, delay })
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c := connect(t, l.Addr().String()) // the kernel takes the connection, and the bytes
		c.send("EHLO c.test\r\nMAIL FROM:<a@ok.test>\r\n")
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.enter(conn).serve()
		if got := strings.Join(codes(t, c.rest()), ","); got != "421 4.7.0" || d.text() != "" {
			t.Errorf("delay %v: %q, %s", delay, got, d.text())
		}
		l.Close()
	}
	address := listen(t, newServer(t, &diary{}, func(c *Config) { c.RefuseEarlyTalkers = true }), nil)
	c := connect(t, address)
	if got := c.reply(); got != "220 mx.test ESMTP\r\n" {
		t.Errorf("a client that waits heard %q", got)
	}
}

// A handshake that does not go on is worth no more than a command that does not come.
func TestUnderStressAHandshakeMayTakeTenSeconds(t *testing.T) {
	server, _ := certificate(t)
	for _, test := range []struct {
		name          string
		before, after bool // stress, when the handshake begins and a moment later
		takes         time.Duration
	}{
		{name: "no stress", takes: time.Minute},
		{name: "stress", before: true, after: true, takes: 10 * time.Second},
		{name: "stress sets in", after: true, takes: 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var stressed atomic.Bool
				stressed.Store(test.before)
				s := newServer(t, &diary{}, func(c *Config) { c.TLS, c.Stressed = server, stressed.Load })
				peer := dial(t, s)
				peer.say("EHLO c.test\r\nSTARTTLS\r\n")
				if test.after && !test.before {
					stressed.Store(true)
					s.Hurry()
				}
				time.Sleep(test.takes - time.Millisecond)
				synctest.Wait()
				if got := strings.Join(peer.replies(), ","); got != "" {
					t.Errorf("was told %q before its time", got)
				}
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if got := strings.Join(peer.replies(), ","); got != "close" {
					t.Errorf("was told %q after %v", got, test.takes)
				}
				peer.hangUp()
			})
		})
	}
}
