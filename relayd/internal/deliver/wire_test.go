package deliver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

func TestAReplyMayTakeAllOfItsTimeThoughOthersHaveLess(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{On: map[relaytest.Stage]relaytest.Action{
		relaytest.StageBody: relaytest.Drip("250 2.0.0 ok\r\n", 25*time.Millisecond),
	}})
	s := newSender(t, func(c *deliver.Config) {
		impatient(c)
		c.Timeouts.DataDone = 20 * time.Second
	})
	for range 2 { // the second over the same connection, with alarms of the first
		if got := s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test")); got[0].Class != queue.Delivered {
			t.Errorf("got %s %q", briefs(got), got[0].Text)
		}
	}
	if n := mx.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestAConnectionOutlivesTheContextOfAnAttemptThatIsOver(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	s := newSender(t, nil)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		got := s.Attempt(ctx, jobTo(mx, mail, "b@y.test"))
		cancel()
		if got[0].Class != queue.Delivered {
			t.Errorf("got %s (%v)", briefs(got), got[0].Err)
		}
	}
	if n := mx.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestAnAttemptWhoseContextHasEndedUsesNoKeptConnection(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	s := newSender(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	if got := s.Attempt(ctx, jobTo(mx, mail, "b@y.test")); got[0].Class != queue.Delivered {
		t.Fatal(briefs(got))
	}
	cancel()
	got := s.Attempt(ctx, jobTo(mx, mail, "b@y.test"))
	if got[0].Class != queue.TempFail || got[0].Uncertain || !errors.Is(got[0].Err, context.Canceled) {
		t.Errorf("got %s (%v)", briefs(got), got[0].Err)
	}
	if n := len(mx.Messages()); n != 1 {
		t.Errorf("the server has %d messages, want 1", n)
	}
}

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	gone := make(chan struct{}, 2)
	mx := relaytest.StartMX(t, relaytest.Script{Decide: func(s relaytest.Step) (relaytest.Action, bool) {
		if s.Stage == relaytest.StageQuit {
			gone <- struct{}{}
		}
		return relaytest.Action{}, false
	}})
	s := newSender(t, func(c *deliver.Config) { c.Timeouts.Idle = 50 * time.Millisecond })
	for range 2 {
		if got := s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test")); got[0].Class != queue.Delivered {
			t.Fatal(briefs(got))
		}
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Fatal("the connection is still open")
		}
	}
	if n := mx.Connections(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// What is in memory takes another way than what is in a file, and TLS another
// than plain text.
func TestAMessageInMemoryOrOverTLSArrivesByteForByte(t *testing.T) {
	conf, roots := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	line := strings.Repeat("x", 70) + "\r\n"
	for name, body := range map[string]string{
		"small":                   mail,
		"empty":                   "",
		"dots":                    ".\r\nS: x\r\n\r\n..\r\n.a\r\nb.c\r\n.",
		"no last line end":        "S: x\r\n\r\nno end",
		"50 KiB":                  strings.Repeat(line, 700),
		"more than a block":       strings.Repeat(line, 20_000),
		"a dot at a block border": strings.Repeat("y", 256<<10-2) + "\r\n.\r\n" + strings.Repeat("z", 256<<10) + "\r\n",
		"nothing but dots":        strings.Repeat(".\r\n", 200_000),
	} {
		for _, rule := range []queue.TLSRule{queue.TLSNone, queue.TLSRequired} {
			for _, kept := range []bool{true, false} {
				mx := relaytest.StartMX(t, relaytest.Script{TLS: conf, Extensions: []string{"PIPELINING"}})
				s := newSender(t, func(c *deliver.Config) { c.RootCAs = roots })
				job := jobTo(mx, body, "b@y.test")
				job.Route.TLS = rule
				if kept {
					job.Open = func() (io.ReadCloser, error) { return &stored{bytes.NewReader([]byte(body)), []byte(body)}, nil }
				}
				if got := s.Attempt(t.Context(), job); got[0].Class != queue.Delivered {
					t.Fatalf("%s, TLS %d, in memory %v: %s (%v)", name, rule, kept, briefs(got), got[0].Err)
				}
				want := body
				if !strings.HasSuffix(want, "\r\n") && want != "" {
					want += "\r\n"
				}
				if m := mx.Messages()[0]; string(m.Body) != want || m.TLS != (rule == queue.TLSRequired) {
					t.Errorf("%s, TLS %v, in memory %v: %d bytes arrived, want %d", name, m.TLS, kept, len(m.Body), len(want))
				}
			}
		}
	}
}

func TestAMessageInMemoryThatIsNotAsLongAsItsEnvelopeSaysIsNotFinished(t *testing.T) {
	for _, size := range []int64{1, int64(len(mail)) - 1, int64(len(mail)) + 1} {
		for _, kept := range []bool{true, false} {
			mx := relaytest.StartMX(t, relaytest.Script{})
			job := jobTo(mx, mail, "b@y.test")
			job.SizeBytes = size
			if kept {
				job.Open = func() (io.ReadCloser, error) { return &stored{bytes.NewReader([]byte(mail)), []byte(mail)}, nil }
			}
			got := newSender(t, nil).Attempt(t.Context(), job)
			if want := "temporary 0 4.3.0"; briefs(got) != want || len(mx.Messages()) != 0 {
				t.Errorf("%d of %d, in memory %v: got %s and %d messages", size, len(mail), kept, briefs(got), len(mx.Messages()))
			}
		}
	}
}
