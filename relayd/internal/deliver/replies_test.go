package deliver_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

// The wire vectors for replies, one test each. TestRow42... has them at every
// stage; here is what each must come to.

// answered delivers one message to a server that says text at a stage, as it
// is, and closes then if it ends.
func answered(t *testing.T, stage relaytest.Stage, text string, ends bool) (queue.Result, *relaytest.MX) {
	t.Helper()
	action := relaytest.SayRaw(text)
	if ends {
		action = relaytest.SayRawAndClose(text)
	}
	mx := relaytest.StartMX(t, relaytest.Script{
		Extensions: []string{"PIPELINING"}, On: map[relaytest.Stage]relaytest.Action{stage: action},
	})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	return got[0], mx
}

func TestReplyVectorABare250AfterTheDotIsADelivery(t *testing.T) {
	for _, text := range []string{"250\r\n", "250 \r\n"} {
		if got, mx := answered(t, relaytest.StageBody, text, false); brief(got) != "delivered 250 2.0.0" || len(mx.Messages()) != 1 {
			t.Errorf("%q: got %s and %d messages", text, brief(got), len(mx.Messages()))
		}
	}
}

func TestReplyVector251AfterTheDotIsADelivery(t *testing.T) {
	if got, _ := answered(t, relaytest.StageBody, "251 2.1.5 will forward\r\n", false); brief(got) != "delivered 251 2.1.5" {
		t.Errorf("got %s", brief(got))
	}
}

func TestReplyVectorTwoCodesInOneReplyAreNoReply(t *testing.T) {
	for stage, want := range map[relaytest.Stage]string{
		relaytest.StageRcpt: "temporary 0 4.5.0", relaytest.StageBody: "temporary 0 4.5.0 uncertain",
	} {
		if got, _ := answered(t, stage, "550-a\r\n250 b\r\n", false); brief(got) != want {
			t.Errorf("at %s: got %s %q, want %s", stage, brief(got), got.Text, want)
		}
	}
}

func TestReplyVectorEndless250IsGivenUpOn(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{On: map[relaytest.Stage]relaytest.Action{
		relaytest.StageMail: relaytest.Endless("250-more\r\n"),
	}})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	if want := "temporary 0 4.5.0"; briefs(got) != want || !strings.Contains(got[0].Text, "more than 100 lines") {
		t.Errorf("got %s %q, want %s", briefs(got), got[0].Text, want)
	}
}

func TestReplyVectorALineOf3000BytesIsGivenUpOn(t *testing.T) {
	got, _ := answered(t, relaytest.StageMail, "250 "+strings.Repeat("x", 2994)+"\r\n", false)
	if want := "temporary 0 4.5.0"; brief(got) != want || !strings.Contains(got.Text, "longer than 2048 bytes") {
		t.Errorf("got %s %q, want %s", brief(got), got.Text, want)
	}
}

func TestReplyVectorControlBytesInTheTextAreShownAsQuestionMarks(t *testing.T) {
	got, _ := answered(t, relaytest.StageRcpt, "550 5.1.1 a\rb\x00c\x1b[2Jd\r\n", false)
	if want := "a?b?c?[2Jd"; brief(got) != "permanent 550 5.1.1" || got.Text != want {
		t.Errorf("got %s %q, want %q", brief(got), got.Text, want)
	}
}

func TestReplyVectorAnEarly552AndCloseIsTheAnswer(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{EarlyBody: &relaytest.EarlyBody{
		AfterBytes: 16 << 10, Action: relaytest.SayAndClose("552 5.3.4 too big for us"),
	}})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, strings.Repeat("x\r\n", 5_000_000), "b@y.test"))
	if want := "permanent 552 5.3.4"; briefs(got) != want {
		t.Errorf("got %s %q (%v), want %s", briefs(got), got[0].Text, got[0].Err, want)
	}
}

func TestReplyVector421AtEachStepIsForLaterAndOverAnotherConnection(t *testing.T) {
	for _, stage := range stages() {
		mx := relaytest.StartMX(t, relaytest.Script{
			Extensions: []string{"PIPELINING"},
			Decide: func(s relaytest.Step) (relaytest.Action, bool) {
				return relaytest.SayAndClose("421 4.3.2 going down"), s.Stage == stage && s.Connection == 1
			},
		})
		s := newSender(t, nil)
		var got []string
		for range 2 {
			got = append(got, briefs(s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))))
		}
		if want := "temporary 421 4.3.2, delivered 250 2.0.0"; strings.Join(got, ", ") != want || mx.Connections() != 2 {
			t.Errorf("at %s: got %q over %d connections, want %q over 2", stage, got, mx.Connections(), want)
		}
	}
}

func TestReplyVectorLowerCaseKeywordsOfEHLOCount(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"pipelining", "size 1000000", "8bitmime", "dsn"}})
	job := jobTo(mx, mail, "b@y.test")
	job.EightBit, job.Return = true, "FULL"
	got := newSender(t, nil).Attempt(t.Context(), job)
	if want := fmt.Sprintf("SIZE=%d BODY=8BITMIME RET=FULL", len(mail)); briefs(got) != "delivered 250 2.0.0" || mx.Messages()[0].FromParams != want {
		t.Errorf("got %s, MAIL with %q, want %q", briefs(got), mx.Messages()[0].FromParams, want)
	}
}

func TestReplyVectorTextAfterThe220ToSTARTTLSEndsTheConnection(t *testing.T) {
	conf, _ := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	for _, rule := range []queue.TLSRule{queue.TLSOpportunistic, queue.TLSRequired} {
		mx := relaytest.StartMX(t, relaytest.Script{TLS: conf, On: map[relaytest.Stage]relaytest.Action{
			relaytest.StageStartTLS: relaytest.Say("220 go", "250-injected", "250 AUTH PLAIN"),
		}})
		job := jobTo(mx, mail, "b@y.test")
		job.Route.TLS = rule
		got := newSender(t, nil).Attempt(t.Context(), job)
		if briefs(got) != "temporary 0 4.5.0" || mx.PlainTextMail() != 0 || len(mx.Messages()) != 0 {
			t.Errorf("rule %d: got %s %q, %d bytes of mail in plain text", rule, briefs(got), got[0].Text, mx.PlainTextMail())
		}
	}
}

// Seen last was plain text: nothing is demanded, and TLS counts from the first
// time on that it was there.
func TestTheTLSRatchetStartsAtNone(t *testing.T) {
	var offers atomic.Bool
	d := newSecured(t, relaytest.Script{}, func(*deliver.Config) {})
	d.mx = relaytest.StartMX(t, relaytest.Script{
		TLS: d.ca.Issue(t, time.Hour, "whatever.test"),
		Decide: func(s relaytest.Step) (relaytest.Action, bool) {
			return relaytest.Say("250 mx.test"), s.Stage == relaytest.StageEHLO && !offers.Load()
		},
	})
	d.start()
	for i, step := range []struct {
		offers bool
		want   string
	}{
		{offers: false, want: "delivered 250 2.0.0 over none"},
		{offers: false, want: "delivered 250 2.0.0 over none"},
		{offers: true, want: "delivered 250 2.0.0 over TLS 1.3 encrypted"},
		{offers: false, want: "temporary 0 4.7.4 over none"},
		{offers: true, want: "delivered 250 2.0.0 over TLS 1.3 encrypted"},
	} {
		offers.Store(step.offers)
		if got := d.send(); brief(got)+" over "+got.TLS != step.want {
			t.Errorf("attempt %d: got %s over %s (%s), want %s", i+1, brief(got), got.TLS, got.Text, step.want)
		}
	}
}
