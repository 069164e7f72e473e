package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"activerelay/relayd/bench"
)

// A customer's Postfix, allowed by its address, hands its mail to the edge, and what arrives at the destination is what it sent
// below the header fields that the relay adds.
func TestACustomersPostfixRelaysItsMailByteForByte(t *testing.T) {
	sink, inbox := smtpSink(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink)
	customer := startPostfix(t, "relayhost = [127.0.0.1]:"+port(edge.relay))

	awkward := "From: Anna <anna@example.com>\nTo: bob@example.net\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n" +
		"Message-ID: <1@example.com>\nDate: Sun, 22 Nov 2026 10:00:00 +0100\nX-Folded: one\n\ttwo\n  three\n\n" +
		".\n..\n.leading dot\ntrailing space \n\ttab\nüñïçødé\n" + strings.Repeat("long ", 180) + "\n\n\nend without newline"
	customer.submit(t, "anna@example.com", "bob@example.net", []byte(awkward))

	got := string(received(t, inbox, 1)[0])
	added := regexp.MustCompile(`(?s)Received: from [^\n]+\n(?:[ \t][^\n]*\n)*CFBL-Feedback-ID: v1:[^\n]+\n(?:[ \t][^\n]*\n)*Received: by mail\.example\.com \(Postfix`)
	if !added.MatchString(got) {
		t.Errorf("our header fields do not stand right above the customer's:\n%s", got)
	}
	_, below, _ := strings.Cut(got, "\tid ")
	_, below, _ = strings.Cut(below, "From: Anna")
	_, want, _ := strings.Cut(awkward, "From: Anna")
	if strings.TrimRight(below, "\n") != strings.TrimRight(want, "\n") {
		t.Errorf("below the customer's Received field arrived\n%q\nwant\n%q", below, want)
	}
}

// curl is a second client: it sends a file as it is.
func TestAFileSentByCurlArrivesByteForByteBelowOurHeaderFields(t *testing.T) {
	need(t, "curl", "curl")
	sink, inbox := smtpSink(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink)
	message := "From: anna@example.com\r\nSubject: raw\r\n\r\n..dots\r\n\r\n8-bit: \xe4\xf6\xfc\r\nlast line\r\n"
	path := filepath.Join(t.TempDir(), "message.eml")
	must(t, os.WriteFile(path, []byte(message), 0o600))
	run(t, "curl", "-sS", "--url", "smtp://"+edge.relay, "--mail-from", "anna@example.com", "--mail-rcpt", "bob@example.net", "--upload-file", path)
	got := received(t, inbox, 1)[0]
	if want := strings.ReplaceAll(message, "\r\n", "\n"); !bytes.HasSuffix(bytes.TrimRight(got, "\n"), []byte(strings.TrimRight(want, "\n"))) {
		t.Errorf("arrived\n%q\nwant it to end\n%q", got, want)
	}
}

// The limit of a domain with no licensed users is 1,000: the 1,001st message is refused with the figures and the reset, and
// what relayctl counts is what the sink received.
func TestTheMessageAfterTheLimitIsRefusedAndTheCountIsWhatTheSinkReceived(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	sink := bench.NewSink(listener, nil)
	defer sink.Close()
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink.Addr())

	outcome, err := bench.Send(context.Background(), bench.Load{
		Server: edge.relay, From: "anna@example.com", To: "bob@example.net", Messages: 1003, Sessions: 5, SizeBytes: 600,
	})
	must(t, err)
	if outcome.Accepted != 1000 {
		t.Fatalf("accepted %d of 1003, want exactly 1000; replies %v", outcome.Accepted, outcome.Replies)
	}
	want := regexp.MustCompile(`^450-4\.7\.1 Relay limit reached for example\.com: 1000 of 1000 messages today; resets \d{4}-\d\d-\d\dT00:00:00\+0[12]:00$`)
	for line, n := range outcome.Replies {
		if !want.MatchString(line) || n != 3 {
			t.Errorf("refused %d with %q", n, line)
		}
	}
	eventually(t, "1000 messages at the sink", func() bool { return sink.Messages() >= 1000 })
	var quota struct{ Used, Limit, Remaining int64 }
	eventually(t, "a count of 1000 at the control plane", func() bool {
		s.ctlJSON(&quota, "quota", "show", "example.com")
		return quota.Used >= 1000
	})
	if quota.Used != 1000 || quota.Limit != 1000 || quota.Remaining != 0 || sink.Messages() != 1000 {
		t.Errorf("quota %+v, sink %d", quota, sink.Messages())
	}
	s.reportsShow(1000, 3)
}

func (s *stack) reportsShow(messages, refused int64) {
	s.t.Helper()
	var reports struct {
		Items []struct {
			Messages, Recipients, Limit, Refused int64
			Refusals                             []struct {
				Reason   string
				Messages int64
			}
		}
	}
	eventually(s.t, "the refusals in the report", func() bool {
		s.ctlJSON(&reports, "report", "quota", "--domain", "example.com")
		return len(reports.Items) == 1 && reports.Items[0].Refused >= refused && reports.Items[0].Messages >= messages
	})
	if r := reports.Items[0]; r.Messages != messages || r.Refused != refused || len(r.Refusals) != 1 || r.Refusals[0].Reason != "quota-reached" {
		s.t.Errorf("report %+v", r)
	}
	for _, want := range []string{"127.0.0.1", "anna@example.com", fmt.Sprint(messages)} {
		eventually(s.t, want+" among the top senders", func() bool { return strings.Contains(s.ctl("sender", "top", "example.com"), want) })
	}
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
