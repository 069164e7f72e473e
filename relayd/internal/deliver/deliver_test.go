package deliver_test

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mail = "From: a@example.com\r\nSubject: hello\r\n\r\nbody\r\n"

// loopback is what tests must allow to reach their servers.
func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// newSender returns a Sender with short patience for tests against servers
// that answer at once or never.
func newSender(t *testing.T, change func(*deliver.Config)) *deliver.Sender {
	t.Helper()
	c := deliver.Config{
		Hostname: "edge1.relay.test", AllowTargetNetworks: loopback,
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")},
		Timeouts: deliver.Timeouts{
			Lookup: time.Second, Dial: 5 * time.Second, Greeting: 5 * time.Second, Hello: 5 * time.Second,
			Mail: 5 * time.Second, Rcpt: 5 * time.Second, DataStart: 5 * time.Second, DataBlock: 5 * time.Second,
			DataDone: 5 * time.Second, Quit: time.Second,
		},
	}
	if change != nil {
		change(&c)
	}
	s, err := deliver.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestANetworkThatIsNoLongerAllowedIsNotDeliveredToAnyMore(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	var allowed atomic.Bool
	s := newSender(t, func(c *deliver.Config) {
		c.AllowTargetNetworks = func() []netip.Prefix {
			if allowed.Load() {
				return loopback()
			}
			return nil
		}
	})
	for _, step := range []struct {
		allow bool
		want  string
	}{
		{allow: false, want: "temporary 0 4.4.6"},
		{allow: true, want: "delivered 250 2.0.0"},
		// The connection of the delivery before is still open.
		{allow: false, want: "temporary 0 4.4.6"},
	} {
		allowed.Store(step.allow)
		if got := briefs(s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))); got != step.want {
			t.Errorf("allowed %v: got %s, want %s", step.allow, got, step.want)
		}
	}
}

// jobTo makes a job of text for recipients by way of mx as smarthost.
func jobTo(mx *relaytest.MX, text string, recipients ...string) queue.Job {
	j := jobByMX(text, recipients...)
	j.Route = queue.Route{Host: mx.Addr().Addr().String(), Port: mx.Port()}
	return j
}

func jobByMX(text string, recipients ...string) queue.Job {
	j := queue.Job{
		MessageID: "01KAQ7M2", Sender: address("a@example.com"), SizeBytes: int64(len(text)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	}
	for _, r := range recipients {
		j.Recipients = append(j.Recipients, queue.Recipient{Address: address(r)})
		j.RecipientDomain = j.Recipients[0].Address.Domain
	}
	return j
}

func address(s string) mailaddr.Address {
	a, err := mailaddr.Parse(s, mailaddr.Options{SMTPUTF8: true})
	if err != nil {
		panic(fmt.Sprintf("%q: %v", s, err))
	}
	return a
}

// brief is what tests compare of a result.
func brief(r queue.Result) string {
	out := fmt.Sprintf("%s %d %s", r.Class, r.Code, r.Enhanced)
	if r.Uncertain {
		out += " uncertain"
	}
	return out
}

func briefs(results []queue.Result) string {
	var out []string
	for _, r := range results {
		out = append(out, brief(r))
	}
	return strings.Join(out, "; ")
}

func TestAMessageArrivesByteForByte(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	bodies := map[string]string{
		"plain":                    mail,
		"leading dots":             "S: x\r\n\r\n.\r\n..\r\n.a\r\n...\r\n",
		"dot first":                ".\r\n",
		"eight bits":               "S: x\r\n\r\n\xff\xfe\x80\r\n",
		"one long line":            "S: x\r\n\r\n" + long + "\r\n",
		"dot at a block border":    strings.Repeat("y", 32<<10-2) + "\r\n.\r\n",
		"line end across a border": strings.Repeat("y", 32<<10-1) + "\r\n.z\r\n",
		"a dot every line":         strings.Repeat(".\r\n", 50_000),
	}
	for _, extensions := range [][]string{nil, {"PIPELINING", "8BITMIME", "SIZE 100000000"}} {
		for name, body := range bodies {
			t.Run(fmt.Sprintf("%s %v", name, len(extensions) > 0), func(t *testing.T) {
				mx := relaytest.StartMX(t, relaytest.Script{Extensions: extensions})
				got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, body, "b@y.test"))
				if want := "delivered 250 2.0.0"; briefs(got) != want {
					t.Fatalf("got %s (%v), want %s", briefs(got), got[0].Err, want)
				}
				if m := mx.Messages()[0]; !bytes.Equal(m.Body, []byte(body)) {
					t.Errorf("the body changed: %d bytes, want %d", len(m.Body), len(body))
				}
			})
		}
	}
}

func TestAMessageWithoutALastLineEndGetsOne(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	newSender(t, nil).Attempt(t.Context(), jobTo(mx, "S: x\r\n\r\nno end", "b@y.test"))
	if got := string(mx.Messages()[0].Body); got != "S: x\r\n\r\nno end\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestABareLineFeedCannotEndTheMessage(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	newSender(t, nil).Attempt(t.Context(), jobTo(mx, "S: x\r\n\r\na\n.\r\nMAIL FROM:<evil@y.test>\r\n", "b@y.test"))
	m := mx.Messages()
	if len(m) != 1 || !strings.Contains(string(m[0].Wire), "a\n..\r\nMAIL") {
		t.Errorf("%d messages, wire %q", len(m), m[0].Wire)
	}
}

func TestTheMessageIsNotFinishedWhenTheSpoolCannotBeRead(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	for name, open := range map[string]func() (io.ReadCloser, error){
		"cannot open": func() (io.ReadCloser, error) { return nil, io.ErrNoProgress },
		"breaks":      func() (io.ReadCloser, error) { return io.NopCloser(&failingReader{text: mail[:20]}), nil },
		"too short":   func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(mail[:20])), nil },
	} {
		t.Run(name, func(t *testing.T) {
			job := jobTo(mx, mail, "b@y.test")
			job.Open = open
			got := newSender(t, nil).Attempt(t.Context(), job)
			if want := "temporary 0 4.3.0"; briefs(got) != want {
				t.Errorf("got %s, want %s", briefs(got), want)
			}
			if n := len(mx.Messages()); n != 0 {
				t.Errorf("the server took %d messages", n)
			}
		})
	}
}

type failingReader struct{ text string }

func (r *failingReader) Read(p []byte) (int, error) {
	n := copy(p, r.text)
	r.text = r.text[n:]
	if n == 0 {
		return 0, io.ErrNoProgress
	}
	return n, nil
}

func TestConnectionsAreUsedAgainForTheSameWayOut(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"PIPELINING"}})
	s := newSender(t, nil)
	for range 3 {
		if got := s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test")); got[0].Class != queue.Delivered {
			t.Fatal(briefs(got))
		}
	}
	if n := mx.Connections(); n != 1 {
		t.Errorf("%d connections for three messages, want 1", n)
	}
	other := jobTo(mx, mail, "b@y.test")
	other.Route.TLS = queue.TLSNone
	s.Attempt(t.Context(), other)
	if n := mx.Connections(); n != 2 {
		t.Errorf("%d connections, want 2: another route must not share", n)
	}
}

func TestAConnectionThatDiedInThePoolIsReplaced(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Decide: func(s relaytest.Step) (relaytest.Action, bool) {
		return relaytest.SayAndClose("250 2.0.0 taken, and goodbye"), s.Stage == relaytest.StageBody
	}})
	s := newSender(t, nil)
	for i := range 3 {
		if got := s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test")); got[0].Class != queue.Delivered {
			t.Fatalf("message %d: %s", i, briefs(got))
		}
	}
	if n := mx.Connections(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

func TestAConnectionIsNotUsedBeyondAHundredMessagesOrA421(t *testing.T) {
	for name, c := range map[string]struct {
		script   relaytest.Script
		messages int
	}{
		"a hundred": {messages: 101},
		// RFC 5321 3.8: the server closes after it, if not at once.
		"421": {messages: 2, script: relaytest.Script{On: map[relaytest.Stage]relaytest.Action{relaytest.StageBody: relaytest.Say("421 4.3.2 soon")}}},
	} {
		mx := relaytest.StartMX(t, c.script)
		s := newSender(t, nil)
		for range c.messages {
			s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
		}
		if n := mx.Connections(); n != 2 {
			t.Errorf("%s: %d connections for %d messages, want 2", name, n, c.messages)
		}
	}
}

func TestARefusedTransactionLeavesTheConnectionUsable(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{
		Extensions: []string{"PIPELINING"},
		Decide: func(s relaytest.Step) (relaytest.Action, bool) {
			return relaytest.Say("550 5.1.1 unknown"), s.Address == "no@y.test"
		},
	})
	s := newSender(t, nil)
	if got := s.Attempt(t.Context(), jobTo(mx, mail, "no@y.test")); briefs(got) != "permanent 550 5.1.1" {
		t.Fatal(briefs(got))
	}
	if got := s.Attempt(t.Context(), jobTo(mx, mail, "yes@y.test")); briefs(got) != "delivered 250 2.0.0" {
		t.Fatal(briefs(got))
	}
	if n := mx.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
