package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

// impatient makes every wait short, so that servers that stall are given up on
// within the test's time.
func impatient(c *deliver.Config) {
	d := 150 * time.Millisecond
	c.Timeouts = deliver.Timeouts{
		Lookup: d, Dial: d, Greeting: d, Hello: d, Mail: d, Rcpt: d, DataStart: d, DataBlock: d, DataDone: d, Quit: d,
		Setup: time.Second,
	}
}

// stages are the points at which a server can misbehave, with what its word or
// silence there does to the message.
func stages() []relaytest.Stage {
	return []relaytest.Stage{
		relaytest.StageConnect, relaytest.StageEHLO, relaytest.StageMail, relaytest.StageRcpt,
		relaytest.StageData, relaytest.StageBody,
	}
}

// Matrix row 42.
func TestRow42NoServerCanHoldAWorkerOrBreakTheClient(t *testing.T) {
	for _, c := range []struct {
		name   string
		action relaytest.Action
		// lost says that the message counts as possibly taken when this
		// happens after the final dot.
		lost bool
	}{
		{name: "stall", action: relaytest.Stall(), lost: true},
		{name: "close", action: relaytest.Close(), lost: true},
		{name: "reset", action: relaytest.Reset(), lost: true},
		{name: "endless reply", action: relaytest.Endless("250-and another thing\r\n"), lost: true},
		{name: "endless line", action: relaytest.Endless("250-aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), lost: true},
		{name: "3,000-byte line", action: relaytest.Say("250 " + strings.Repeat("x", 3000)), lost: true},
		{name: "garbage", action: relaytest.SayRaw("\x00\xff\x16\x03\x01 hello\r\n"), lost: true},
		{name: "NUL before the code", action: relaytest.SayRaw("\x00250 ok\r\n"), lost: true},
		{name: "two codes in one reply", action: relaytest.Say("250-fine", "550 or not"), lost: true},
		{name: "half a reply", action: relaytest.SayRawAndClose("25"), lost: true},
		{name: "an open reply", action: relaytest.SayRawAndClose("250-taken\r\n"), lost: true},
		{name: "a drip", action: relaytest.Drip(strings.Repeat("250-x\r\n", 50), 20*time.Millisecond), lost: true},
		{name: "421", action: relaytest.SayAndClose("421 4.3.2 going down")},
		{name: "450", action: relaytest.Say("450 4.2.0 later")},
		{name: "a code out of place", action: relaytest.Say("399 hm"), lost: true},
	} {
		for _, stage := range stages() {
			t.Run(c.name+" at "+string(stage), func(t *testing.T) {
				t.Parallel()
				mx := relaytest.StartMX(t, relaytest.Script{
					Extensions: []string{"PIPELINING"}, On: map[relaytest.Stage]relaytest.Action{stage: c.action},
				})
				s := newSender(t, impatient)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				got := s.Attempt(ctx, jobTo(mx, mail, "b@y.test", "c@y.test"))
				if ctx.Err() != nil {
					t.Fatal("the attempt did not end by itself")
				}
				for _, r := range got {
					if r.Class != queue.TempFail || r.Enhanced == "" || r.Text == "" {
						t.Errorf("got %s %q, want a temporary failure with status and text", brief(r), r.Text)
					}
					uncertain := stage == relaytest.StageBody && c.lost
					if r.Uncertain != uncertain {
						t.Errorf("uncertain: %v, want %v (%s %v)", r.Uncertain, uncertain, r.Text, r.Err)
					}
				}
			})
		}
	}
}

func TestAPermanentReplyAtAnyStageIsFinal(t *testing.T) {
	for _, stage := range stages() {
		for _, extensions := range [][]string{nil, {"PIPELINING"}} {
			t.Run(fmt.Sprintf("%s %v", stage, extensions), func(t *testing.T) {
				on := map[relaytest.Stage]relaytest.Action{stage: relaytest.Say("554 5.7.1 no, never")}
				if stage == relaytest.StageEHLO {
					on[relaytest.StageHELO] = on[stage]
				}
				mx := relaytest.StartMX(t, relaytest.Script{Extensions: extensions, On: on})
				got := newSender(t, impatient).Attempt(t.Context(), jobTo(mx, mail, "b@y.test", "c@y.test"))
				if want := "permanent 554 5.7.1; permanent 554 5.7.1"; briefs(got) != want {
					t.Errorf("got %s %q, want %s", briefs(got), got[0].Text, want)
				}
				if len(mx.Messages()) != 0 {
					t.Error("a message was taken")
				}
			})
		}
	}
}

func TestRow42AServerThatStopsReadingIsGivenUpOn(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{
		On: map[relaytest.Stage]relaytest.Action{relaytest.StageData: relaytest.StopReading("354 go ahead")},
	})
	body := strings.Repeat("x\r\n", 8<<20)
	got := newSender(t, impatient).Attempt(t.Context(), jobTo(mx, body, "b@y.test"))
	if want := "temporary 0 4.4.2"; briefs(got) != want {
		t.Errorf("got %s %q, want %s", briefs(got), got[0].Text, want)
	}
}

func TestRow42AServerThatIsJustFastEnoughAtEachStepIsGivenUpOnAllTheSame(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{On: map[relaytest.Stage]relaytest.Action{
		relaytest.StageRcpt: relaytest.Drip("250 ok\r\n", 10*time.Millisecond),
	}})
	var to []string
	for i := range 100 {
		to = append(to, fmt.Sprintf("r%d@y.test", i))
	}
	began := time.Now()
	got := newSender(t, impatient).Attempt(t.Context(), jobTo(mx, mail, to...))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the worker was held for %v, with 1 s for everything before the message", took)
	}
	if last := got[len(got)-1]; brief(last) != "temporary 0 4.4.2" {
		t.Errorf("got %s %q", brief(last), last.Text)
	}
}

// What is allocated in all is more than what is ever held at once.
func TestRow42NoReplyTakesMoreThanAFewMegabytes(t *testing.T) {
	for name, action := range map[string]relaytest.Action{
		"endless reply": relaytest.Endless("250-and another thing\r\n"),
		"endless line":  relaytest.Endless(strings.Repeat("a", 1000)),
		"long lines":    relaytest.Endless("250-" + strings.Repeat("x", 2000) + "\r\n"),
	} {
		mx := relaytest.StartMX(t, relaytest.Script{On: map[relaytest.Stage]relaytest.Action{relaytest.StageEHLO: action}})
		s := newSender(t, impatient)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: %d bytes allocated for one connection", name, n)
		}
		if got[0].Class != queue.TempFail {
			t.Errorf("%s: got %s", name, briefs(got))
		}
	}
}

// Matrix row 43.
func TestRow43EachRecipientHasItsOwnOutcome(t *testing.T) {
	replies := map[string]string{
		"temp@y.test": "450 4.2.0 later", "gone@y.test": "550 5.1.1 unknown", "full@y.test": "552 5.2.2 full",
		"many@y.test": "552 too many recipients", "moved@y.test": "251 2.1.5 will forward",
	}
	script := relaytest.Script{Decide: func(s relaytest.Step) (relaytest.Action, bool) {
		text, ok := replies[s.Address]
		return relaytest.Say(text), ok
	}}
	want := "delivered 250 2.0.0; temporary 450 4.2.0; permanent 550 5.1.1; " +
		"permanent 552 5.2.2; temporary 552 4.5.3; delivered 250 2.0.0"
	for _, extensions := range [][]string{nil, {"PIPELINING"}} {
		script.Extensions = extensions
		mx := relaytest.StartMX(t, script)
		job := jobTo(mx, mail, "ok@y.test", "temp@y.test", "gone@y.test", "full@y.test", "many@y.test", "moved@y.test")
		got := newSender(t, nil).Attempt(t.Context(), job)
		if briefs(got) != want {
			t.Errorf("%v:\n got %s\nwant %s", extensions, briefs(got), want)
		}
		if to := mx.Messages()[0].Addresses(); strings.Join(to, " ") != "ok@y.test moved@y.test" {
			t.Errorf("%v: delivered to %q", extensions, to)
		}
	}
}

func TestHundredsOfRecipientsKeepTheirOutcomesInOrder(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{
		Extensions: []string{"PIPELINING"},
		Decide: func(s relaytest.Step) (relaytest.Action, bool) {
			return relaytest.Say("550 5.1.1 " + s.Address), strings.Contains(s.Address, "7")
		},
	})
	var to []string
	for i := range 120 {
		to = append(to, fmt.Sprintf("r%d@y.test", i))
	}
	for i, r := range newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, to...)) {
		if bad := strings.Contains(to[i], "7"); bad != (r.Class == queue.PermFail) || bad && r.Text != to[i] {
			t.Errorf("%s: %s %q", to[i], brief(r), r.Text)
		}
	}
}

func TestAMessageThatTheServerWaitsForWithoutRecipientsIsNotDelivered(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{
		Extensions: []string{"PIPELINING"},
		On: map[relaytest.Stage]relaytest.Action{
			relaytest.StageRcpt: relaytest.Say("550 5.1.1 no"), relaytest.StageData: relaytest.Say("354 oh well"),
		},
	})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	if want := "permanent 550 5.1.1"; briefs(got) != want {
		t.Errorf("got %s, want %s", briefs(got), want)
	}
	for _, m := range mx.Messages() {
		if len(m.Body) > 0 {
			t.Errorf("the server got %q", m.Body)
		}
	}
}

func TestAnEarlyRefusalDuringTheMessageIsHeard(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{EarlyBody: &relaytest.EarlyBody{
		AfterBytes: 64 << 10, Action: relaytest.SayAndClose("552 5.3.4 too big for us"),
	}})
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 400_000)
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, body, "b@y.test"))
	if want := "permanent 552 5.3.4"; briefs(got) != want {
		t.Errorf("got %s %q (%v), want %s", briefs(got), got[0].Text, got[0].Err, want)
	}
}

func TestACutAfterTheFinalDotIsUncertainAndTriedAgain(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{
		On: map[relaytest.Stage]relaytest.Action{relaytest.StageBody: relaytest.Close()},
	})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	if want := "temporary 0 4.4.2 uncertain"; briefs(got) != want {
		t.Errorf("got %s %q, want %s", briefs(got), got[0].Text, want)
	}
	if n := len(mx.Messages()); n != 1 {
		t.Errorf("the message was sent %d times in one attempt", n)
	}
}

// Matrix row 43: whoever asks the next server then may deliver twice.
func TestRow43AServerThatHasSeenTheTextIsTheOnlyOneInAnAttempt(t *testing.T) {
	body := mail + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 200_000)
	at := func(a relaytest.Action) relaytest.Script {
		return relaytest.Script{On: map[relaytest.Stage]relaytest.Action{relaytest.StageBody: a}}
	}
	for _, c := range []struct {
		name, body string
		script     relaytest.Script
		want       string
	}{
		{name: "cut after the final dot", body: mail, script: at(relaytest.Close()), want: "temporary 0 4.4.2 uncertain"},
		{name: "421 after the final dot", body: mail, script: at(relaytest.SayAndClose("421 4.3.2 bye")), want: "temporary 421 4.3.2"},
		{name: "an unexpected reply to the final dot", body: mail, script: at(relaytest.Say("354 more")), want: "temporary 354 4.5.0 uncertain"},
		{
			name: "cut within the text", body: body, want: "temporary 0 4.4.2",
			script: relaytest.Script{EarlyBody: &relaytest.EarlyBody{AfterBytes: 64 << 10, Action: relaytest.Reset()}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := relaytest.StartMX(t, c.script)
			second := relaytest.StartMX(t, relaytest.Script{Listen: fmt.Sprintf("127.0.0.2:%d", first.Port())})
			dns := relaytest.StartDNS(t, relaytest.Zone{
				"y.test": {"MX 10 a.y.test.", "MX 20 b.y.test."}, "a.y.test": {"A 127.0.0.1"}, "b.y.test": {"A 127.0.0.2"},
			})
			s := newSender(t, func(conf *deliver.Config) {
				conf.Resolvers, conf.MXPort = []netip.AddrPort{dns.Addr()}, first.Port()
			})
			if got := s.Attempt(t.Context(), jobByMX(c.body, "b@y.test")); briefs(got) != c.want {
				t.Errorf("got %s %q (%v), want %s", briefs(got), got[0].Text, got[0].Err, c.want)
			}
			if first.Connections() != 1 || second.Connections() != 0 {
				t.Errorf("%d and %d connections, want 1 and 0", first.Connections(), second.Connections())
			}
		})
	}
}

func TestRepliesInOddButValidFormsCount(t *testing.T) {
	for _, form := range []string{"250", "250 ", "250-a\r\n250", "250-a\r\n250-b\r\n250 c", "250 2.0.0 ok\n", "251 2.0.0 ok"} {
		mx := relaytest.StartMX(t, relaytest.Script{
			On: map[relaytest.Stage]relaytest.Action{relaytest.StageBody: relaytest.SayRaw(strings.TrimSuffix(form, "\n") + "\r\n")},
		})
		got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
		if got[0].Class != queue.Delivered || got[0].Enhanced != "2.0.0" {
			t.Errorf("%q: got %s %q", form, briefs(got), got[0].Text)
		}
	}
}

func TestRemoteTextIsMadeHarmless(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{On: map[relaytest.Stage]relaytest.Action{
		relaytest.StageMail: relaytest.SayRaw("550-5.7.1 a\x00b\x1b[31m\x07\r\n550 5.7.1 c\rd\xff e\u202e\r\n"),
	}})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	if want := "a?b?[31m? c?d? e?"; got[0].Text != want {
		t.Errorf("got %q, want %q", got[0].Text, want)
	}
}

func TestTheEndOfTheContextEndsTheAttempt(t *testing.T) {
	for _, stage := range stages() {
		t.Run(string(stage), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			mx := relaytest.StartMX(t, relaytest.Script{Decide: func(s relaytest.Step) (relaytest.Action, bool) {
				if s.Stage == stage {
					cancel()
				}
				return relaytest.Stall(), s.Stage == stage
			}})
			got := newSender(t, func(c *deliver.Config) { c.Timeouts = deliver.Timeouts{} }).
				Attempt(ctx, jobTo(mx, mail, "b@y.test"))
			if got[0].Class != queue.TempFail || !errors.Is(got[0].Err, context.Canceled) {
				t.Errorf("got %s %q (%v)", briefs(got), got[0].Text, got[0].Err)
			}
			if got[0].Uncertain != (stage == relaytest.StageBody) {
				t.Errorf("uncertain: %v", got[0].Uncertain)
			}
		})
	}
}
