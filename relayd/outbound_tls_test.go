package relayd_test

import (
	"fmt"
	"log/slog"
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
		c.Log = slog.New(slog.NewTextHandler(log, nil))
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
