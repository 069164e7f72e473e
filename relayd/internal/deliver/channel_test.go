package deliver_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

// Matrix row 45, as far as routes decide it; policy_test.go has the rest.
func TestRow45TheTLSRuleOfTheRouteIsKept(t *testing.T) {
	good, roots := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	wrongName, wrongRoots := relaytest.Certificate(t, time.Hour, "other.test")
	expired, expiredRoots := relaytest.Certificate(t, -time.Minute, "127.0.0.1")
	roots.AddCert(wrongName.Certificates[0].Leaf)
	roots.AddCert(expired.Certificates[0].Leaf)
	_, _ = wrongRoots, expiredRoots
	_, strangers := relaytest.Certificate(t, time.Hour, "127.0.0.1")

	refuseTLS := map[relaytest.Stage]relaytest.Action{relaytest.StageStartTLS: relaytest.Say("454 4.7.0 not now")}
	garbleTLS := map[relaytest.Stage]relaytest.Action{relaytest.StageStartTLS: relaytest.Say("220 go", "not TLS at all")}
	brokenTLS := map[relaytest.Stage]relaytest.Action{relaytest.StageStartTLS: relaytest.SayAndClose("220 go")}
	for _, c := range []struct {
		name   string
		script relaytest.Script
		rule   queue.TLSRule
		roots  bool // false: the client trusts none of the certificates
		want   string
		tls    string
	}{
		{name: "opportunistic, offered", script: relaytest.Script{TLS: good}, want: "delivered 250 2.0.0", tls: "TLS 1.3 encrypted"},
		{name: "opportunistic, not offered", want: "delivered 250 2.0.0"},
		{
			name: "opportunistic, any certificate", script: relaytest.Script{TLS: expired},
			want: "delivered 250 2.0.0", tls: "TLS 1.3 encrypted",
		},
		{name: "opportunistic, refused", script: relaytest.Script{TLS: good, On: refuseTLS}, want: "delivered 250 2.0.0"},
		{name: "opportunistic, broken", script: relaytest.Script{TLS: good, On: brokenTLS}, want: "delivered 250 2.0.0"},
		{
			name: "opportunistic, text injected before the handshake", script: relaytest.Script{TLS: good, On: garbleTLS},
			want: "temporary 0 4.5.0",
		},
		{name: "none, offered", script: relaytest.Script{TLS: good}, rule: queue.TLSNone, want: "delivered 250 2.0.0"},
		{
			name: "required", script: relaytest.Script{TLS: good}, rule: queue.TLSRequired, roots: true,
			want: "delivered 250 2.0.0", tls: "TLS 1.3 verified",
		},
		{name: "required, not offered", rule: queue.TLSRequired, roots: true, want: "temporary 0 4.7.4"},
		{
			name: "required, refused", script: relaytest.Script{TLS: good, On: refuseTLS}, rule: queue.TLSRequired, roots: true,
			want: "temporary 454 4.7.4",
		},
		{
			name: "required, broken", script: relaytest.Script{TLS: good, On: brokenTLS}, rule: queue.TLSRequired, roots: true,
			want: "temporary 0 4.7.5",
		},
		{
			name: "required, unknown issuer", script: relaytest.Script{TLS: good}, rule: queue.TLSRequired,
			want: "temporary 0 4.7.5",
		},
		{
			name: "required, wrong name", script: relaytest.Script{TLS: wrongName}, rule: queue.TLSRequired, roots: true,
			want: "temporary 0 4.7.5",
		},
		{
			name: "required, expired", script: relaytest.Script{TLS: expired}, rule: queue.TLSRequired, roots: true,
			want: "temporary 0 4.7.5",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			mx := relaytest.StartMX(t, c.script)
			s := newSender(t, func(conf *deliver.Config) {
				conf.RootCAs = strangers
				if c.roots {
					conf.RootCAs = roots
				}
			})
			job := jobTo(mx, mail, "b@y.test")
			job.Route.TLS = c.rule
			got := s.Attempt(t.Context(), job)
			if briefs(got) != c.want || got[0].TLS != cmp.Or(c.tls, "none") {
				t.Errorf("got %s over %q (%s: %v), want %s over %q", briefs(got), got[0].TLS, got[0].Text, got[0].Err, c.want, c.tls)
			}
			if m := mx.Messages(); len(m) > 0 && m[0].TLS != (c.tls != "") {
				t.Errorf("encrypted at the server: %v", m[0].TLS)
			}
		})
	}
}

func TestTheEHLOOfThePlainChannelIsForgottenAfterSTARTTLS(t *testing.T) {
	conf, _ := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	hellos := 0
	mx := relaytest.StartMX(t, relaytest.Script{TLS: conf, Decide: func(s relaytest.Step) (relaytest.Action, bool) {
		if s.Stage == relaytest.StageEHLO {
			hellos++
		}
		return relaytest.Say("250-mx", "250-SIZE 10", "250 STARTTLS"), s.Stage == relaytest.StageEHLO && hellos == 1
	}})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	if got[0].Class != queue.Delivered {
		t.Errorf("got %s %q: the SIZE from before TLS was believed", briefs(got), got[0].Text)
	}
}

func TestALoginIsMadeAsTheRouteSays(t *testing.T) {
	for _, c := range []struct {
		name, extension, password, want, user string
	}{
		{name: "PLAIN", extension: "AUTH LOGIN PLAIN", password: "s3cret", want: "delivered 250 2.0.0", user: "relay"},
		{name: "LOGIN", extension: "AUTH LOGIN", password: "s3cret", want: "delivered 250 2.0.0", user: "relay"},
		{name: "lower case and the old form", extension: "auth=plain", password: "s3cret", want: "delivered 250 2.0.0", user: "relay"},
		{name: "wrong password", extension: "AUTH PLAIN", password: "wrong", want: "temporary 535 4.7.8"},
		{name: "no mechanism we know", extension: "AUTH CRAM-MD5", password: "s3cret", want: "temporary 0 4.7.8"},
		{name: "no AUTH", extension: "HELP", password: "s3cret", want: "temporary 0 4.7.8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mx := relaytest.StartMX(t, relaytest.Script{Extensions: []string{c.extension}, Username: "relay", Password: "s3cret"})
			job := jobTo(mx, mail, "b@y.test")
			job.Route.Credentials = queue.Credentials{Username: "relay", Password: queue.Secret(c.password)}
			got := newSender(t, nil).Attempt(t.Context(), job)
			if briefs(got) != c.want {
				t.Errorf("got %s %q, want %s", briefs(got), got[0].Text, c.want)
			}
			if m := mx.Messages(); len(m) > 0 && m[0].User != c.user {
				t.Errorf("logged in as %q", m[0].User)
			}
		})
	}
}

func TestWhatTheServerOffersIsUsedAndNothingElse(t *testing.T) {
	job := func(mx *relaytest.MX) queue.Job {
		j := jobTo(mx, mail, "b@y.test", "c@y.test")
		j.EightBit, j.Return, j.EnvelopeID = true, "HDRS", "QQ+2B314"
		j.Recipients[0].Notify = []string{"SUCCESS", "FAILURE"}
		j.Recipients[0].OriginalRecipient = "rfc822;orig@y.test"
		j.Recipients[1].Notify = []string{"NEVER"}
		return j
	}
	for _, c := range []struct {
		name       string
		extensions []string
		from       string
		to         []string
		passedOn   bool
	}{
		{name: "nothing", to: []string{"", ""}},
		{
			name: "everything", extensions: []string{"PIPELINING", "size 1000000", "8bitmime", "Dsn", "SMTPUTF8"},
			from:     fmt.Sprintf("SIZE=%d BODY=8BITMIME RET=HDRS ENVID=QQ+2B314", len(mail)),
			to:       []string{"NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;orig@y.test", "NOTIFY=NEVER"},
			passedOn: true,
		},
		{name: "size alone", extensions: []string{"SIZE"}, from: fmt.Sprintf("SIZE=%d", len(mail)), to: []string{"", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mx := relaytest.StartMX(t, relaytest.Script{Extensions: c.extensions})
			got := newSender(t, nil).Attempt(t.Context(), job(mx))
			m := mx.Messages()[0]
			if m.FromParams != c.from || m.Recipients[0].Params != c.to[0] || m.Recipients[1].Params != c.to[1] {
				t.Errorf("MAIL %q RCPT %q, want %q %q", m.FromParams, m.Recipients, c.from, c.to)
			}
			if got[0].StatusPassedOn != c.passedOn {
				t.Errorf("status passed on: %v", got[0].StatusPassedOn)
			}
			if m.Helo != "edge1.relay.test" {
				t.Errorf("EHLO %q", m.Helo)
			}
		})
	}
}

func TestParametersThatCouldSmuggleAreLeftOut(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"DSN"}})
	job := jobTo(mx, mail, "b@y.test")
	job.EnvelopeID, job.Return = "x\r\nRCPT TO:<evil@y.test>", "FULL x"
	job.Recipients[0].Notify = []string{"SUCCESS ORCPT=x", "DELAY"}
	job.Recipients[0].OriginalRecipient = "rfc822;a b"
	newSender(t, nil).Attempt(t.Context(), job)
	m := mx.Messages()[0]
	if m.FromParams != "" || m.Recipients[0].Params != "NOTIFY=DELAY" || len(m.Recipients) != 1 {
		t.Errorf("MAIL %q, RCPT %q", m.FromParams, m.Recipients)
	}
}

func TestAnAddressThatWouldNotParseIsNeverWritten(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	job := jobTo(mx, mail, "b@y.test", "c@y.test")
	job.Recipients[0].Address.Local = "x> NOTIFY=NEVER"
	got := newSender(t, nil).Attempt(t.Context(), job)
	if want := "permanent 553 5.1.3; delivered 250 2.0.0"; briefs(got) != want {
		t.Errorf("got %s, want %s", briefs(got), want)
	}
	job.Sender.Local = "ceo@victim.test> ENVID="
	got = newSender(t, nil).Attempt(t.Context(), job)
	if want := "permanent 553 5.1.7; permanent 553 5.1.7"; briefs(got) != want {
		t.Errorf("got %s, want %s", briefs(got), want)
	}
}

func TestAMessageThatTheServerSaysItCannotTakeIsNotSent(t *testing.T) {
	utf8Header := "From: a@example.com\r\nSubject: gr\u00fc\u00df\r\n\r\nx\r\n"
	utf8Body := "From: a@example.com\r\n\r\ngr\u00fc\u00df\r\n"
	for _, c := range []struct {
		name, text, recipient string
		extensions            []string
		utf8, requireTLS      bool
		want                  string
	}{
		{name: "too big", text: mail, recipient: "b@y.test", extensions: []string{"SIZE 20"}, want: "permanent 0 5.3.4"},
		{name: "no limit", text: mail, recipient: "b@y.test", extensions: []string{"SIZE 0"}, want: "delivered 250 2.0.0"},
		{name: "UTF-8 address", text: mail, recipient: "b\u00fc@y.test", utf8: true, want: "permanent 0 5.6.7"},
		{
			name: "UTF-8 address, offered", text: mail, recipient: "b\u00fc@y.test", utf8: true,
			extensions: []string{"SMTPUTF8"}, want: "delivered 250 2.0.0",
		},
		{name: "UTF-8 header", text: utf8Header, recipient: "b@y.test", utf8: true, want: "permanent 0 5.6.7"},
		{name: "SMTPUTF8 asked for, not used", text: utf8Body, recipient: "b@y.test", utf8: true, want: "delivered 250 2.0.0"},
		{name: "REQUIRETLS without TLS", text: mail, recipient: "b@y.test", requireTLS: true, want: "permanent 0 5.7.30"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mx := relaytest.StartMX(t, relaytest.Script{Extensions: c.extensions})
			job := jobTo(mx, c.text, c.recipient)
			job.UTF8, job.RequireTLS = c.utf8, c.requireTLS
			if got := newSender(t, nil).Attempt(t.Context(), job); briefs(got) != c.want {
				t.Errorf("got %s %q, want %s", briefs(got), got[0].Text, c.want)
			}
			if asked := strings.Contains(strings.Join(mx.Commands(), "\n"), "MAIL"); asked != (c.want == delivered) {
				t.Errorf("commands %q", mx.Commands())
			}
			if m := mx.Messages(); len(m) == 1 && strings.Contains(m[0].FromParams, "SMTPUTF8") != slices.Contains(c.extensions, "SMTPUTF8") {
				t.Errorf("MAIL with %q", m[0].FromParams)
			}
		})
	}
}

// RFC 6531 3.5: only those whose address the server cannot take are refused.
func TestARecipientBeyondASCIIKeepsNoOtherFromHisMail(t *testing.T) {
	for _, extensions := range [][]string{nil, {"PIPELINING"}} {
		mx := relaytest.StartMX(t, relaytest.Script{Extensions: extensions})
		job := jobTo(mx, mail, "b\u00fc@y.test", "b@y.test")
		job.UTF8 = true
		got := newSender(t, nil).Attempt(t.Context(), job)
		if want := "permanent 0 5.6.7; delivered 250 2.0.0"; briefs(got) != want || got[0].Host == "" {
			t.Errorf("%v: got %s at %q, want %s", extensions, briefs(got), got[0].Host, want)
		}
		if m := mx.Messages(); len(m) != 1 || strings.Join(m[0].Addresses(), " ") != "b@y.test" || m[0].FromParams != "" {
			t.Errorf("%v: the server has %+v", extensions, m)
		}
	}
}

func TestAServerWithoutEHLOIsGreetedWithHELO(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{
		On: map[relaytest.Stage]relaytest.Action{relaytest.StageEHLO: relaytest.Say("502 what?")},
	})
	got := newSender(t, nil).Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))
	if got[0].Class != queue.Delivered {
		t.Errorf("got %s %q", briefs(got), got[0].Text)
	}
}

func TestTheNullSenderIsWrittenAsSuch(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	job := jobTo(mx, mail, "b@y.test")
	job.Sender.Local, job.Sender.Domain = "", ""
	newSender(t, nil).Attempt(t.Context(), job)
	if c := mx.Commands(); c[1] != "MAIL FROM:<>" {
		t.Errorf("commands %q", c)
	}
}
