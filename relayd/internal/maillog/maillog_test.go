package maillog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/maillog"

	"github.com/google/go-cmp/cmp"
)

// lines runs events against a log and returns its lines without time.
func lines(t *testing.T, events func(*maillog.Log)) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	events(maillog.New(maillog.Config{Out: &out, JSON: true}))
	var all []map[string]any
	for line := range strings.Lines(out.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		delete(one, "time")
		all = append(all, one)
	}
	return all
}

func message() maillog.Message {
	return maillog.Message{
		ID: "01KAQ7M2", Partner: "acme", Domain: "example.com", From: "anna@example.com",
		Client: netip.MustParseAddr("192.0.2.10"), User: "anna@example.com", SizeBytes: 5120,
	}
}

func TestEachEventHasItsOwnLineWithFixedKeys(t *testing.T) {
	at := maillog.Attempt{
		To: "b@y.test", Number: 2, Host: "mx.y.test[192.0.2.1]:25", TLS: "TLS 1.3", Code: 450, Enhanced: "4.2.0",
		Reply: "later", Cause: errors.New("cut"), Delay: 90 * time.Second,
	}
	got := lines(t, func(l *maillog.Log) {
		l.Accepted(message(), []string{"b@y.test", "c@y.test"})
		l.Rejected(maillog.Message{Client: netip.MustParseAddr("192.0.2.10")},
			maillog.Refusal{Reason: "ip-not-allowed", Ref: "01KAQ", Stage: "rcpt", To: "b@y.test", Reply: "550 5.7.1 no"})
		l.Deferred(message(), at, time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
		l.Delivered(maillog.Message{ID: "x"}, maillog.Attempt{To: "b@y.test", Number: 1})
		l.Bounced(maillog.Message{ID: "x"}, maillog.Attempt{To: "b@y.test", Number: 1})
		l.Expired(maillog.Message{ID: "x"}, maillog.Attempt{To: "b@y.test", Number: 1})
		l.Cancelled(maillog.Message{ID: "x"}, "b@y.test", "operator")
		l.OnHold(maillog.Message{ID: "x"}, "b@y.test", "qop_1")
		l.Released(maillog.Message{ID: "x"}, "b@y.test", "qop_1")
		l.Held(maillog.Message{ID: "x"}, "panic", errors.New("boom"))
		l.Notified(maillog.Message{ID: "x"}, "failed", "y")
		l.NotNotified(maillog.Message{ID: "x"}, "failed")
		l.ReplyUndelivered(maillog.Message{ID: "x"}, errors.New("reset"))
		l.Unlogged(maillog.Message{Client: netip.MustParseAddr("192.0.2.10")}, "99980 ip-not-allowed")
	})
	who := map[string]any{
		"id": "01KAQ7M2", "partner": "acme", "domain": "example.com", "from": "anna@example.com", "client": "192.0.2.10",
		"user": "anna@example.com",
	}
	with := func(more map[string]any) map[string]any {
		out := map[string]any{"level": "INFO"}
		for k, v := range who {
			out[k] = v
		}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	brief := func(msg string, more ...any) map[string]any {
		out := map[string]any{"level": "INFO", "msg": msg, "id": "x", "from": "<>"}
		for i := 0; i < len(more); i += 2 {
			out[more[i].(string)] = more[i+1]
		}
		return out
	}
	want := []map[string]any{
		with(map[string]any{"msg": "accepted", "to": "b@y.test c@y.test", "size": 5120.0}),
		{
			"level": "INFO", "msg": "rejected", "from": "<>", "client": "192.0.2.10", "to": "b@y.test",
			"reason": "ip-not-allowed", "ref": "01KAQ", "stage": "rcpt", "reply": "550 5.7.1 no",
		},
		with(map[string]any{
			"msg": "deferred", "to": "b@y.test", "attempt": 2.0, "host": "mx.y.test[192.0.2.1]:25",
			"tls": "TLS 1.3", "code": 450.0, "enhanced": "4.2.0", "reply": "later", "error": "cut",
			"delay": 90e9, "next": "2026-11-22T09:00:00Z",
		}),
		brief("delivered", "to", "b@y.test", "attempt", 1.0, "delay", 0.0, "size", 0.0),
		brief("bounced", "to", "b@y.test", "attempt", 1.0, "delay", 0.0),
		brief("expired", "to", "b@y.test", "attempt", 1.0, "delay", 0.0),
		brief("cancelled", "to", "b@y.test", "reason", "operator"),
		brief("on hold", "to", "b@y.test", "ref", "qop_1"),
		brief("released", "to", "b@y.test", "ref", "qop_1"),
		brief("held", "reason", "panic", "error", "boom", "level", "ERROR"),
		brief("notified", "reason", "failed", "notice", "y"),
		brief("not notified", "reason", "failed", "level", "WARN"),
		brief("reply undelivered", "error", "reset"),
		{"level": "INFO", "msg": "rejected too often", "from": "<>", "client": "192.0.2.10", "unlogged": "99980 ip-not-allowed"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log lines (-want +got):\n%s", diff)
	}
}

func TestNoValueCanForgeALine(t *testing.T) {
	evil := "a\r\nlevel=ERROR msg=forged\x00\x1b[2J\u202e\xff" + strings.Repeat("x", 5000)
	var out bytes.Buffer
	l := maillog.New(maillog.Config{Out: &out})
	l.Rejected(maillog.Message{ID: evil, Partner: evil, Domain: evil, From: evil, User: evil},
		maillog.Refusal{Reason: evil, Ref: evil, Stage: evil, To: evil, Reply: evil, Cause: errors.New(evil)})
	text := out.String()
	if n := strings.Count(text, "\n"); n != 1 {
		t.Errorf("%d lines", n)
	}
	if strings.ContainsAny(text[:len(text)-1], "\r\x00\x1b\u202e") || strings.Contains(text, `\u202e`) || strings.Contains(text, `\n`) {
		t.Errorf("line %q", text)
	}
	if len(text) > 20_000 {
		t.Errorf("line of %d bytes", len(text))
	}
}
