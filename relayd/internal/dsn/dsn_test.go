package dsn_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/dsn"

	"github.com/emersion/go-message"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const original = "Received: from pc by edge1\r\nFrom: anna@example.com\r\nSubject: hello\r\n\r\nbody\r\n"

func address(s string) mailaddr.Address {
	a, err := mailaddr.Parse(s, mailaddr.Options{SMTPUTF8: true})
	if err != nil {
		panic(err)
	}
	return a
}

func report(a dsn.Action) dsn.Report {
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	return dsn.Report{
		ID: "01KAQ8NOTICE", Date: at.Add(2 * time.Hour), Hostname: "edge1.relay.example", To: address("anna@example.com"),
		Action: a, MessageID: "01KAQ7M2Z8Y3F6N5T4R1W0X9VB", AcceptedAt: at,
		Original: []byte(original), OriginalBytes: int64(len(original)),
		Recipients: []dsn.Recipient{{
			Address: address("bob@y.example"), Status: "5.1.1", Host: "mx.y.example[192.0.2.25]:25", Code: 550,
			Text: "No such user here", LastAttempt: at.Add(time.Hour), RetryUntil: at.Add(5 * 24 * time.Hour),
		}},
	}
}

func cases() map[string]dsn.Report {
	failed := report(dsn.Failed)
	failed.EnvelopeID = "QQ+2B314159"
	failed.Recipients = append(failed.Recipients, dsn.Recipient{
		Address: address("carol@z.example"), ORCPT: "rfc822;carol+2Bold@z.example", Status: "5.1.10", Code: 556,
		Text: "z.example does not accept mail (null MX)",
	})
	full := report(dsn.Failed)
	full.Return = "FULL"
	expired := report(dsn.Failed)
	expired.Recipients[0] = dsn.Recipient{
		Address: address("bob@y.example"), Status: "5.4.7", LastAttempt: expired.Date,
		Text: dsn.GaveUp(5*24*time.Hour, "450 4.2.0 mx.y.example[192.0.2.25]:25 mailbox busy, try again later please, we mean it"),
	}
	delayed := report(dsn.Delayed)
	delayed.Recipients[0].Status, delayed.Recipients[0].Code = "4.2.0", 450
	relayed := report(dsn.Relayed)
	relayed.Return = "FULL"
	relayed.Recipients[0].Status, relayed.Recipients[0].Code, relayed.Recipients[0].Text = "2.0.0", 250, "Ok: queued"
	international := report(dsn.Failed)
	international.To = address("j\u00fcrgen@example.com")
	international.Recipients[0].Text = "gr\u00fc\u00dfe: nicht da"
	hostile := report(dsn.Failed)
	hostile.EnvelopeID = "x+0D+0ABcc: evil@y.example"
	hostile.Recipients[0].ORCPT = "rfc822;a\r\nX-Evil: 1"
	hostile.Recipients[0].Text = "no\r\n\r\n--=_dsn_01KAQ8NOTICE--\x1b[2J \xff" + strings.Repeat(" long", 400)
	eightBit := report(dsn.Failed)
	eightBit.Original = []byte("Subject: gr\xfc\xdfe\r\n\r\nx\r\n")
	eightBit.OriginalBytes = int64(len(eightBit.Original))
	return map[string]dsn.Report{
		"failed": failed, "full": full, "expired": expired, "delayed": delayed, "relayed": relayed,
		"international": international, "hostile": hostile, "eight-bit": eightBit,
	}
}

func TestNotificationsLookLikeTheirGoldenFiles(t *testing.T) {
	for name, r := range cases() {
		t.Run(name, func(t *testing.T) {
			n, err := dsn.Compose(r)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".golden")
			got := bytes.ReplaceAll(n.Text, []byte("\r\n"), []byte("\n"))
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("notification (-want +got):\n%s", diff)
			}
			if n.UTF8 != (name == "international") || n.EightBit != (name == "international" || name == "eight-bit") {
				t.Errorf("UTF8 %v, EightBit %v", n.UTF8, n.EightBit)
			}
		})
	}
}

// parsed is what another program reads from a notification.
type parsed struct {
	types    []string
	fields   []textproto.MIMEHeader // per message, then per recipient
	original string
}

func parse(t *testing.T, text []byte) parsed {
	t.Helper()
	entity, err := message.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	parts := entity.MultipartReader()
	if parts == nil {
		t.Fatal("not a multipart message")
	}
	var out parsed
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := part.Header.ContentType()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part.Body)
		if err != nil {
			t.Fatal(err)
		}
		out.types = append(out.types, kind)
		switch len(out.types) {
		case 2:
			out.fields = groups(t, string(body))
		case 3:
			out.original = string(body)
		}
	}
}

func groups(t *testing.T, body string) []textproto.MIMEHeader {
	t.Helper()
	var out []textproto.MIMEHeader
	for group := range strings.SplitSeq(strings.TrimRight(body, "\r\n"), "\r\n\r\n") {
		header := make(textproto.MIMEHeader)
		for line := range strings.SplitSeq(group, "\r\n") {
			key, value, ok := strings.Cut(line, ": ")
			if !ok {
				t.Fatalf("line %q of the status part is no field", line)
			}
			header.Add(key, value)
		}
		out = append(out, header)
	}
	return out
}

func TestNotificationsCanBeReadBack(t *testing.T) {
	for name, r := range cases() {
		t.Run(name, func(t *testing.T) {
			n, err := dsn.Compose(r)
			if err != nil {
				t.Fatal(err)
			}
			got := parse(t, n.Text)
			if len(got.types) != 3 || got.types[0] != "text/plain" || len(got.fields) != 1+len(r.Recipients) {
				t.Fatalf("parts %q with %d groups of fields", got.types, len(got.fields))
			}
			for i, rcpt := range r.Recipients {
				f := got.fields[i+1]
				if !strings.HasSuffix(f.Get("Final-Recipient"), "; "+rcpt.Address.String()) ||
					f.Get("Status") != rcpt.Status || f.Get("Action") != string(r.Action) {
					t.Errorf("recipient %d: %v", i, f)
				}
			}
			if !strings.HasPrefix(string(r.Original), strings.TrimRight(got.original, "\r\n")) {
				t.Errorf("original %q", got.original)
			}
			for line := range strings.SplitSeq(string(n.Text), "\r\n") {
				if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00\x1b") {
					t.Errorf("line %q", line)
				}
			}
			again, _ := dsn.Compose(r)
			if !bytes.Equal(again.Text, n.Text) {
				t.Error("two calls gave two texts")
			}
		})
	}
}

func TestNobodyAnswersTheNullSender(t *testing.T) {
	r := report(dsn.Failed)
	r.To = mailaddr.Address{}
	if _, err := dsn.Compose(r); !errors.Is(err, dsn.ErrNullSender) {
		t.Errorf("got %v", err)
	}
}

func TestLargeOriginalsAreNotReturnedWhole(t *testing.T) {
	r := report(dsn.Failed)
	r.Return = "FULL"
	r.Original = append([]byte(original), bytes.Repeat([]byte("x"), dsn.MaxFullBytes)...)
	r.OriginalBytes = int64(len(r.Original))
	n, err := dsn.Compose(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(t, n.Text); got.types[2] != "text/rfc822-headers" || len(n.Text) > 10_000 {
		t.Errorf("part %s in %d bytes", got.types[2], len(n.Text))
	}
	r.Original, r.OriginalBytes = []byte(original), int64(len(original))+1
	if n, err = dsn.Compose(r); err != nil || parse(t, n.Text).types[2] != "text/rfc822-headers" {
		t.Errorf("a part of the original was returned as the whole: %v\n%s", err, n.Text)
	}
	r.Original = []byte("X: " + strings.Repeat("x\r\n y", 100_000))
	if n, err = dsn.Compose(r); err != nil || len(n.Text) > 70_000 {
		t.Errorf("a header without end gave %d bytes, %v", len(n.Text), err)
	}
}

func TestAnOriginalThatHoldsTheBoundaryIsLeftOut(t *testing.T) {
	r := report(dsn.Failed)
	r.Original = []byte("Subject: x\r\n--=_dsn_01KAQ8NOTICE--: y\r\n\r\n")
	n, err := dsn.Compose(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(t, n.Text); len(got.types) != 3 || strings.TrimSpace(got.original) != "" {
		t.Errorf("parts %q, original %q", got.types, got.original)
	}
}

func TestNotifyDecidesWhoIsTold(t *testing.T) {
	for _, c := range []struct {
		notify                   []string
		failed, delayed, relayed bool
	}{
		{notify: nil, failed: true, delayed: true},
		{notify: []string{"NEVER"}},
		{notify: []string{"FAILURE"}, failed: true},
		{notify: []string{"SUCCESS", "DELAY"}, delayed: true, relayed: true},
		{notify: []string{"success", "failure"}, failed: true, relayed: true},
	} {
		f, d, r := dsn.Wanted(c.notify, dsn.Failed), dsn.Wanted(c.notify, dsn.Delayed), dsn.Wanted(c.notify, dsn.Relayed)
		if f != c.failed || d != c.delayed || r != c.relayed {
			t.Errorf("%q: failed %v, delayed %v, relayed %v", c.notify, f, d, r)
		}
	}
}
