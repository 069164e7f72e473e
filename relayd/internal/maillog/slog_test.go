package maillog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/maillog"

	"pgregory.net/rapid"
)

// bySlog writes a line as slog would: its own handlers are the measure.
func bySlog(json bool, now time.Time, level slog.Level, msg string, attrs ...slog.Attr) string {
	var out bytes.Buffer
	var handler slog.Handler = slog.NewTextHandler(&out, nil)
	if json {
		handler = slog.NewJSONHandler(&out, nil)
	}
	record := slog.NewRecord(now, level, msg, 0)
	record.AddAttrs(attrs...)
	_ = handler.Handle(context.Background(), record)
	return out.String()
}

func group(attrs ...slog.Attr) slog.Attr { return slog.Attr{Value: slog.GroupValue(attrs...)} }

func text(key, value string) slog.Attr {
	if value == "" {
		return slog.Attr{}
	}
	return slog.String(key, maillog.Clean(value))
}

func cause(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return text("error", err.Error())
}

func messageAttrs(m maillog.Message) slog.Attr {
	from, client := m.From, ""
	if from == "" {
		from = "<>"
	}
	if m.Client.IsValid() {
		client = m.Client.String()
	}
	return group(text("id", m.ID), text("partner", m.Partner), text("domain", m.Domain), text("from", from),
		text("client", client), text("user", m.User))
}

func attemptAttrs(a maillog.Attempt) slog.Attr {
	code := slog.Attr{}
	if a.Code != 0 {
		code = slog.Int("code", a.Code)
	}
	return group(text("to", a.To), slog.Int("attempt", a.Number), text("host", a.Host), text("tls", a.TLS),
		code, text("enhanced", a.Enhanced), text("reply", a.Reply), cause(a.Cause),
		slog.Duration("delay", a.Delay.Round(time.Millisecond)))
}

// strangers is text as it may come in: quotes, controls, wide letters, broken UTF-8, endless.
func strangers() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"", "anna@example.com", "250 2.0.0 Ok", `a"b`, `a\b`, "a=b", "\u00fc", "\u00a0", "\u2028", "\xff\xe2\x82", "\u202e"}),
		rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.Just(strings.Repeat("\u00fc", 700)),
	)
}

func TestLinesAreByteForByteThoseOfSlog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := func(name string) string { return strangers().Draw(t, name) }
		now := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).
			In(rapid.SampledFrom([]*time.Location{time.UTC, time.FixedZone("", 3600)}).Draw(t, "zone"))
		m := maillog.Message{
			ID: some("id"), Partner: some("partner"), Domain: some("domain"), From: some("from"), User: some("user"), SizeBytes: rapid.Int64().Draw(t, "size"),
			Client: rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1%eth0")}).Draw(t, "client"),
		}
		a := maillog.Attempt{
			To: some("to"), Number: rapid.Int().Draw(t, "number"), Host: some("host"), TLS: some("tls"), Code: rapid.IntRange(0, 599).Draw(t, "code"),
			Enhanced: some("enhanced"), Reply: some("reply"), Delay: time.Duration(rapid.Int64().Draw(t, "delay")),
			Uncertain: rapid.Bool().Draw(t, "uncertain"),
		}
		if rapid.Bool().Draw(t, "failed") {
			a.Cause = errors.New(some("cause"))
		}
		r := maillog.Refusal{Reason: some("reason"), Ref: some("ref"), Stage: some("stage"), To: some("rcpt"), Reply: some("answer"), Cause: a.Cause}
		deferred := "deferred"
		if a.Uncertain {
			deferred = "deferred, perhaps delivered"
		}
		for _, json := range []bool{false, true} {
			var out bytes.Buffer
			l := maillog.New(maillog.Config{Out: &out, JSON: json, Now: func() time.Time { return now }})
			l.Accepted(m, []string{a.To, r.To})
			l.Rejected(m, r)
			l.Delivered(m, a)
			l.Deferred(m, a, now)
			l.Bounced(m, a)
			l.Held(m, r.Reason, a.Cause)
			want := bySlog(json, now, slog.LevelInfo, "accepted", messageAttrs(m), text("to", a.To+" "+r.To), slog.Int64("size", m.SizeBytes)) +
				bySlog(json, now, slog.LevelInfo, "rejected", messageAttrs(m), text("to", r.To), text("reason", r.Reason), text("ref", r.Ref),
					text("stage", r.Stage), text("reply", r.Reply), cause(r.Cause)) +
				bySlog(json, now, slog.LevelInfo, "delivered", messageAttrs(m), attemptAttrs(a), slog.Int64("size", m.SizeBytes)) +
				bySlog(json, now, slog.LevelInfo, deferred, messageAttrs(m), attemptAttrs(a), slog.Time("next", now.UTC())) +
				bySlog(json, now, slog.LevelInfo, "bounced", messageAttrs(m), attemptAttrs(a)) +
				bySlog(json, now, slog.LevelError, "held", messageAttrs(m), text("reason", r.Reason), cause(a.Cause))
			if out.String() != want {
				t.Fatalf("wrote\n%q, slog writes\n%q", out.String(), want)
			}
		}
	})
}

func TestOnlyWhatIsSevereEnoughIsWritten(t *testing.T) {
	var out bytes.Buffer
	l := maillog.New(maillog.Config{Out: &out, Level: slog.LevelError})
	l.Bounced(message(), maillog.Attempt{})
	if out.Len() > 0 {
		t.Errorf("wrote %q", out.String())
	}
	l.Held(message(), "panic", nil)
	if out.Len() == 0 {
		t.Error("an error was not written")
	}
	maillog.New(maillog.Config{}).Held(message(), "panic", nil) // to nobody
}

// BenchmarkLines are the two lines of a message that is relayed, by this package and by slog.
func BenchmarkLines(b *testing.B) {
	m := message()
	a := maillog.Attempt{
		To: "b@y.test", Number: 1, Host: "mx.y.test[192.0.2.1]:25", TLS: "TLS 1.3 verified", Code: 250, Enhanced: "2.0.0",
		Reply: "250 2.0.0 Ok: queued as 4D2F11C0045", Delay: 12 * time.Millisecond,
	}
	to := []string{"b@y.test"}
	b.Run("maillog", func(b *testing.B) {
		buffer := maillog.NewBuffer(io.Discard, nil)
		defer func() { _ = buffer.Close() }()
		l := maillog.New(maillog.Config{Out: buffer})
		b.ReportAllocs()
		for range b.N {
			l.Accepted(m, to)
			l.Delivered(m, a)
		}
	})
	b.Run("slog", func(b *testing.B) {
		l := slog.New(slog.NewTextHandler(io.Discard, nil))
		b.ReportAllocs()
		for range b.N {
			l.Info("accepted", messageAttrs(m), text("to", strings.Join(to, " ")), slog.Int64("size", m.SizeBytes))
			l.Info("delivered", messageAttrs(m), attemptAttrs(a), slog.Int64("size", m.SizeBytes))
		}
	})
}
