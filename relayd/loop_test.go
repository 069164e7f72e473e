package relayd_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"activerelay/relayd/relaytest"
	"activerelay/relayd/relaytest/edgetest"
)

// routeTo makes an edge the smarthost of example.com for a recipient domain.
func (w *world) routeTo(e *edgetest.Edge, recipients string) {
	w.t.Helper()
	host, port, err := net.SplitHostPort(e.Relay)
	if err != nil {
		w.t.Fatal(err)
	}
	w.call("POST", "/v1/routes",
		fmt.Sprintf(`{"domain":"example.com","recipient_domain":%q,"host":%q,"port":%s,"tls":"none"}`, recipients, host, port), nil)
}

// Matrix row 21; package deliver has what a relay does about itself as an MX.
func TestRow21MailThatTwoEdgesSendToEachOtherComesBackOnceWithinThirtyHops(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	ea, eb := a.addEdge(nil), b.addEdge(nil)
	// Each is the other's smarthost for loop.test; what they themselves have to say goes out.
	for _, way := range []struct {
		w     *world
		e, to *edgetest.Edge
	}{{w: a, e: ea, to: eb}, {w: b, e: eb, to: ea}} {
		way.w.routeTo(way.to, "loop.test")
		way.w.call("POST", "/v1/routes",
			fmt.Sprintf(`{"recipient_domain":"example.com","host":"127.0.0.1","port":%d,"tls":"none"}`, way.w.mx.Port()), nil)
		way.w.enforces(way.e)
	}
	d := dial(t, ea.Relay)
	for _, line := range []string{"MAIL FROM:<anna@example.com>", "RCPT TO:<bob@loop.test>", "DATA"} {
		if r := d.say(line); r[0] != '2' && r[0] != '3' {
			t.Fatalf("%s: %q", line, r)
		}
	}
	if r := d.say("From: anna@example.com\r\nSubject: round and round\r\n\r\nhello\r\n."); !strings.HasPrefix(r, "250 ") {
		t.Fatalf("reply %q", r)
	}
	d.close()
	back := func() []relaytest.Message { return append(a.mx.Messages(), b.mx.Messages()...) }
	eventually(t, "the notification", func() bool { return len(back()) > 0 })
	ea.Stop()
	eb.Stop()
	got := back()
	if len(got) != 1 || got[0].From != "" || strings.Join(got[0].Addresses(), " ") != "anna@example.com" {
		t.Fatalf("%d messages came out, the first from %q to %q; want one notification to the sender", len(got), got[0].From, got[0].Addresses())
	}
	text := string(got[0].Body)
	if !strings.Contains(text, "Status: 5.4.6") || !strings.Contains(text, "554 5.4.6") {
		t.Errorf("the notification does not tell of a loop:\n%s", text)
	}
	_, original, _ := strings.Cut(text, "Content-Type: text/rfc822-headers")
	if hops := strings.Count(original, "\r\nReceived: "); hops < 2 || hops > 30 {
		t.Errorf("the message made %d hops, want 2 to 30:\n%s", hops, text)
	}
}
