package deliver_test

import (
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

// What a channel was is asked most often of mail that did not get through.
func TestEveryAttemptThatReachedAServerSaysWhatTheChannelWas(t *testing.T) {
	conf, roots := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	_, strangers := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	const required, encrypted, verified = queue.TLSRequired, "TLS 1.3 encrypted", "TLS 1.3 verified"
	type on = map[relaytest.Stage]relaytest.Action
	for _, c := range []struct {
		name     string
		script   relaytest.Script
		rule     queue.TLSRule
		stranger bool
		change   func(*queue.Job)
		want     string
		tls      string
	}{
		{
			name: "the greeting refuses", script: relaytest.Script{TLS: conf, On: on{relaytest.StageConnect: relaytest.Say("554 no")}},
			want: "permanent 554 5.0.0", tls: "none",
		},
		{
			name: "the certificate is a stranger's", script: relaytest.Script{TLS: conf}, rule: required, stranger: true,
			want: "temporary 0 4.7.5", tls: "none",
		},
		{name: "TLS is required and not offered", rule: required, want: "temporary 0 4.7.4", tls: "none"},
		{
			name: "EHLO refused inside TLS", script: relaytest.Script{TLS: conf, Decide: secondHello()},
			want: "temporary 450 4.0.0", tls: encrypted,
		},
		{
			name: "login refused", script: relaytest.Script{TLS: conf, Extensions: []string{"AUTH PLAIN"}}, rule: required,
			change: func(j *queue.Job) { j.Route.Credentials = queue.Credentials{Username: "relay", Password: "s3cret"} },
			want:   "temporary 535 4.7.8", tls: verified,
		},
		{
			name: "MAIL refused", script: relaytest.Script{TLS: conf, On: on{relaytest.StageMail: relaytest.Say("550 5.7.1 no")}},
			want: "permanent 550 5.7.1", tls: encrypted,
		},
		{
			name: "RCPT refused", script: relaytest.Script{TLS: conf, On: on{relaytest.StageRcpt: relaytest.Say("550 5.1.1 no")}}, rule: required,
			want: "permanent 550 5.1.1", tls: verified,
		},
		{
			name: "421 at DATA", script: relaytest.Script{TLS: conf, On: on{relaytest.StageData: relaytest.SayAndClose("421 4.3.2 bye")}},
			want: "temporary 421 4.3.2", tls: encrypted,
		},
		{
			name: "cut after the final dot", script: relaytest.Script{TLS: conf, On: on{relaytest.StageBody: relaytest.Close()}}, rule: required,
			want: "temporary 0 4.4.2 uncertain", tls: verified,
		},
		{
			name: "too big for the server", script: relaytest.Script{TLS: conf, Extensions: []string{"SIZE 10"}},
			want: "permanent 0 5.3.4", tls: encrypted,
		},
		{
			name: "in plain text by the route's rule", script: relaytest.Script{TLS: conf, On: on{relaytest.StageBody: relaytest.Say("554 5.7.1 spam")}},
			rule: queue.TLSNone, want: "permanent 554 5.7.1", tls: "none",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			mx := relaytest.StartMX(t, c.script)
			s := newSender(t, func(conf *deliver.Config) {
				if conf.RootCAs = roots; c.stranger {
					conf.RootCAs = strangers
				}
			})
			job := jobTo(mx, mail, "b@y.test")
			job.Route.TLS = c.rule
			if c.change != nil {
				c.change(&job)
			}
			got := s.Attempt(t.Context(), job)
			if briefs(got) != c.want || got[0].TLS != c.tls || got[0].Host == "" {
				t.Errorf("got %s at %q over %q (%q, %v), want %s over %q", briefs(got), got[0].Host, got[0].TLS, got[0].Text, got[0].Err, c.want, c.tls)
			}
		})
	}
}

// secondHello refuses the EHLO that follows STARTTLS.
func secondHello() func(relaytest.Step) (relaytest.Action, bool) {
	hellos := 0
	return func(s relaytest.Step) (relaytest.Action, bool) {
		if s.Stage == relaytest.StageEHLO {
			hellos++
		}
		return relaytest.Say("450 not now"), s.Stage == relaytest.StageEHLO && hellos == 2
	}
}

func TestAnAttemptThatReachedNobodyHasNoChannel(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	mx.Close()
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	if briefs(got) != "temporary 0 4.4.1" || got[0].Host != "" || got[0].TLS != "" {
		t.Errorf("got %s at %q over %q", briefs(got), got[0].Host, got[0].TLS)
	}
}
