package relayd_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd"
	"activerelay/relayd/relaytest"
	"activerelay/relayd/relaytest/edgetest"
)

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// has reports whether one line has all the words.
func (l *lines) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		missing := false
		for _, word := range words {
			missing = missing || !strings.Contains(line, word)
		}
		if !missing {
			return true
		}
	}
	return false
}

func TestADestinationThatTookTLSIsNotSentPlainTextByTheNextProcessEither(t *testing.T) {
	w := newWorld(t)
	w.call("PUT", "/v1/domains/direct.example", `{"partner":"acme"}`, nil)
	w.call("POST", "/v1/relay-ips", `{"domain":"direct.example","address":"127.0.0.1"}`, nil)
	certificate, _ := relaytest.Certificate(t, time.Hour, "mx.example.net")
	secure := relaytest.StartMX(t, relaytest.Script{TLS: certificate})
	stripped := relaytest.StartMX(t, relaytest.Script{Listen: fmt.Sprintf("127.0.0.2:%d", secure.Port())})
	dns := relaytest.StartDNS(t, relaytest.Zone{"example.net": {"MX 10 mx.example.net."}, "mx.example.net": {"A 127.0.0.1"}})
	log := &lines{}
	configure := func(c *relayd.Config) {
		c.Resolvers, c.MXPort = []string{dns.Addr().String()}, secure.Port()
		c.Log, c.MailLog = slog.New(slog.NewTextHandler(log, nil)), log
	}
	deliver := func(e *edgetest.Edge, subject string) {
		t.Helper()
		if r := send(t, e.Relay, "anna@direct.example", subject); !strings.HasPrefix(r, "250 2.0.0 ") {
			t.Fatalf("reply %q", r)
		}
	}
	e := w.addEdge(configure)
	w.knows(e, "direct.example")
	deliver(e, "first")
	eventually(t, "the first message over TLS", func() bool { return log.has("msg=delivered", `tls="TLS 1.3 encrypted"`) })
	e.Stop()

	dns.Set("mx.example.net", "A 127.0.0.2")
	again := edgetest.Config{Server: w.plane.URL, Now: w.clock, DataDir: e.DataDir, Configure: configure}
	e = edgetest.Start(t, again)
	deliver(e, "second")
	eventually(t, "the second message to wait", func() bool {
		return log.has("msg=deferred", "tls=none", "but example.net took mail over TLS before, last on")
	})
	if n := stripped.PlainTextMail(); n != 0 {
		t.Errorf("%d bytes of mail in plain text", n)
	}
	e.Stop()

	again.Configure = func(c *relayd.Config) {
		configure(c)
		c.AllowPlainText = []string{"Example.NET"}
	}
	e = edgetest.Start(t, again)
	deliver(e, "third")
	eventually(t, "the third message as the setting allows", func() bool { return log.has("msg=delivered", "tls=none") })
}

// encrypt goes on over TLS.
func (d *dialog) encrypt(roots *x509.CertPool) {
	d.t.Helper()
	conn := tls.Client(d.conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	if err := conn.HandshakeContext(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	d.conn, d.in = conn, textproto.NewReader(bufio.NewReader(conn))
}

// RFC 8689, from MAIL to the next server, or to the notification.
func TestMailWithREQUIRETLSIsPassedOnWithItOrReturned(t *testing.T) {
	w := newWorld(t)
	w.call("PUT", "/v1/domains/direct.example", `{"partner":"acme"}`, nil)
	w.call("POST", "/v1/relay-ips", `{"domain":"direct.example","address":"127.0.0.1"}`, nil)
	certificate, _ := relaytest.Certificate(t, time.Hour, "mx.example.net")
	promising := relaytest.StartMX(t, relaytest.Script{TLS: certificate, Extensions: []string{"REQUIRETLS"}})
	other := relaytest.StartMX(t, relaytest.Script{TLS: certificate, Listen: fmt.Sprintf("127.0.0.2:%d", promising.Port())})
	tlsa := relaytest.TLSA(t, certificate.Certificates[0].Leaf, 3, 1, 1)
	dns := relaytest.StartDNS(t, relaytest.Zone{
		"example.net": {"MX 10 mx.example.net."}, "mx.example.net": {"A 127.0.0.1"},
		"other.test": {"MX 10 mx.other.test."}, "mx.other.test": {"A 127.0.0.2"},
		"direct.example": {"MX 10 mx.example.net."},
		fmt.Sprintf("_%d._tcp.mx.example.net", promising.Port()): {tlsa},
		fmt.Sprintf("_%d._tcp.mx.other.test", promising.Port()):  {tlsa},
	})
	for _, zone := range []string{"example.net", "other.test"} {
		dns.Sign(zone)
	}
	cert, key, roots := writePair(t, t.TempDir())
	e := w.addEdge(func(c *relayd.Config) {
		c.Resolvers, c.MXPort, c.TLSCert, c.TLSKey = []string{dns.Addr().String()}, promising.Port(), cert, key
	})
	w.knows(e, "direct.example")
	for _, to := range []string{"bob@example.net", "bob@other.test"} {
		d := dial(t, e.Relay)
		d.say("STARTTLS")
		d.encrypt(roots)
		for _, line := range []string{"EHLO client.example", "MAIL FROM:<anna@direct.example> REQUIRETLS", "RCPT TO:<" + to + ">", "DATA"} {
			if r := d.say(line); r[0] != '2' && r[0] != '3' {
				t.Fatalf("%s: %q", line, r)
			}
		}
		if r := d.say("From: anna@direct.example\r\nSubject: secret\r\n\r\nthe secret itself\r\n."); !strings.HasPrefix(r, "250 ") {
			t.Fatalf("reply %q", r)
		}
		d.close()
	}
	var passed, returned string
	eventually(t, "the message and the notification", func() bool {
		for _, m := range promising.Messages() {
			if m.From == "" {
				returned = string(m.Body)
			} else {
				passed = m.FromParams
			}
		}
		return passed != "" && returned != ""
	})
	if !strings.Contains(passed, "REQUIRETLS") {
		t.Errorf("MAIL with %q", passed)
	}
	if !strings.Contains(returned, "Status: 5.7.30") || strings.Contains(returned, "the secret itself") {
		t.Errorf("notification:\n%s", returned)
	}
	if n := len(other.Messages()); n != 0 {
		t.Errorf("the server without REQUIRETLS has %d messages", n)
	}
}
