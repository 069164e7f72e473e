package smtpd

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/admit"
	"activerelay/api/policy"
	"activerelay/api/reason"
	"activerelay/relayd/internal/scan"
	"activerelay/relayd/internal/smtpwire"
)

// said is a reply of the registry, word for word.
func said(code int, enhanced string, slug reason.Slug, sentence string) string {
	return fmt.Sprintf(`%d-%s %s\n%d %s reason=%s ref=[0-9A-Z]{26} edge=fra1( rev=\d+)?`,
		code, regexp.QuoteMeta(enhanced), regexp.QuoteMeta(sentence), code, regexp.QuoteMeta(enhanced), slug)
}

// provocation makes the server say one reply.
type provocation struct {
	slug    reason.Slug
	variant reason.Variant
	stage   reason.Stage
	setup   func(*setup)
	provoke func(t *testing.T, e *edge)
}

// elsewhere are the replies that this package does not say, and why.
func elsewhere() map[string]string {
	return map[string]string{
		"tls-unavailable":          "STARTTLS is offered only with a certificate",
		"recipient-suppressed":     "there is no suppression list yet",
		"recipient-null-mx":        "found on delivery, said in a DSN",
		"recipient-domain-unknown": "found on delivery, said in a DSN",
		"spam":                     "no scanner classifies spam yet",
		"content-rule":             "there are no content rules yet",
		"bulk/burst":               "near-identical mail is not compared yet",
	}
}

// TestEveryReasonIsSaidOnTheWire provokes each entry of the registry that an SMTP
// session can say, under each variant, and compares the reply word for word.
func TestEveryReasonIsSaidOnTheWire(t *testing.T) {
	cases := slices.Concat(connectionCases(), conversationCases(), commandCases(), senderCases(), quotaCases(), recipientCases(), contentCases())
	provoked := map[string]bool{}
	for _, p := range cases {
		provoked[name(p.slug, p.variant)] = true
		t.Run(name(p.slug, p.variant)+" at "+string(p.stage), func(t *testing.T) {
			t.Parallel()
			e := startEdge(t, p.setup)
			p.provoke(t, e)
			if !strings.Contains(e.log.String(), "reason="+string(p.slug)) {
				t.Errorf("the mail log does not name the reason:\n%s", e.log)
			}
			if messages, _ := e.stored(); p.stage == reason.StageData && len(messages) > 0 {
				t.Errorf("%d messages stored, want none", len(messages))
			}
		})
	}
	for _, r := range reason.All() {
		if !inSession(r) {
			continue
		}
		variants := []reason.Variant{reason.Ordinary}
		for _, alt := range r.Alternatives {
			variants = append(variants, alt.When)
		}
		for _, v := range variants {
			if n := name(r.Slug, v); !provoked[n] && elsewhere()[n] == "" {
				t.Errorf("nothing provokes %s on the wire", n)
			}
		}
	}
}

func name(slug reason.Slug, v reason.Variant) string {
	if v == reason.Ordinary {
		return string(slug)
	}
	return string(slug) + "/" + string(v)
}

func inSession(r reason.Reason) bool {
	for _, stage := range r.Stages {
		if stage != reason.StageDSN && stage != reason.StageAPI {
			return r.Reply.SMTP != 0
		}
	}
	return false
}

// atRcpt provokes a reply to the first RCPT, from a relay IP.
func atRcpt(slug reason.Slug, v reason.Variant, from, want string, change func(*setup)) provocation {
	return provocation{slug: slug, variant: v, stage: reason.StageRcpt, setup: change, provoke: func(_ *testing.T, e *edge) {
		c := e.hello()
		c.ask("MAIL FROM:<"+from+">", "250 .*")
		c.ask("RCPT TO:<carl@sink.test>", want)
		c.ask("RCPT TO:<dora@sink.test>", want)
		c.ask("DATA", "(?s)503-.*")
	}}
}

// atData provokes a reply to a whole message from anna@ok.test.
func atData(slug reason.Slug, v reason.Variant, body, want string, change func(*setup)) provocation {
	return provocation{slug: slug, variant: v, stage: reason.StageData, setup: change, provoke: func(_ *testing.T, e *edge) {
		e.hello().mail("anna@ok.test", body, want)
	}}
}

func stale(o *setup) { o.world.setStale() }

// connectionCases are the ends of a connection, and what one may do in it at most.
func connectionCases() []provocation {
	return []provocation{
		{slug: reason.TooManyConnections, stage: reason.StageConnect, setup: func(o *setup) { o.limits.ConnectionsPerIP = 1 }, provoke: func(_ *testing.T, e *edge) {
			e.hello()
			c := e.connect()
			c.want(said(421, "4.7.0", reason.TooManyConnections, "Too many connections from 127.0.0.1; try again later"))
			c.ended()
		}},
		{slug: reason.TooManyConnections, variant: reason.Overloaded, stage: reason.StageConnect, setup: func(o *setup) { o.limits.Connections = 1 }, provoke: func(_ *testing.T, e *edge) {
			e.hello()
			c := e.connect()
			c.want(said(421, "4.3.2", reason.TooManyConnections, "Too many connections to this server; try again later"))
			c.ended()
		}},
		{slug: reason.TooManyConnections, stage: reason.StageRcpt, setup: func(o *setup) { o.limits.ConnectionsPerPartner = 1 }, provoke: func(_ *testing.T, e *edge) {
			e.hello().envelope("anna@ok.test", "carl@sink.test")
			c := e.hello()
			c.ask("MAIL FROM:<anna@other.test>", "250 .*")
			c.ask("RCPT TO:<carl@sink.test>", said(421, "4.7.0", reason.TooManyConnections, "Too many connections from 127.0.0.1; try again later"))
			c.ended()
		}},
		{slug: reason.EarlyTalker, stage: reason.StageConnect, setup: func(o *setup) { o.limits.GreetDelay = patience }, provoke: func(_ *testing.T, e *edge) {
			c := e.connect()
			c.send("EHLO client.test")
			c.want(said(421, "4.7.0", reason.EarlyTalker, "Wait for the greeting before sending commands"))
			c.ended()
		}},
		{slug: reason.NotSMTP, stage: reason.StageConnect, provoke: func(_ *testing.T, e *edge) {
			c := e.dial()
			c.raw("POST / HTTP/1.1\r\nHost: edge\r\n\r\nEHLO a\r\nMAIL FROM:<anna@ok.test>\r\n")
			c.want(said(421, "4.7.0", reason.NotSMTP, "This port speaks SMTP only; closing the connection"))
			c.ended()
		}},
		{slug: reason.ShuttingDown, stage: reason.StageConnect, provoke: func(t *testing.T, e *edge) {
			c := e.hello()
			if err := e.server.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			c.want(said(421, "4.3.2", reason.ShuttingDown, "Service is closing; try again later"))
			c.ended()
		}},
		{slug: reason.SessionLimit, stage: reason.StageMail, setup: func(o *setup) { o.limits.MessagesPerConnection = 1 }, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.login("anna@ok.test", password, "235 .*")
			c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
			c.ask("MAIL FROM:<anna@ok.test>", said(421, "4.7.0", reason.SessionLimit, "This connection has done enough; open a new one"))
			c.ended()
		}},
		{slug: reason.SessionTimeout, stage: reason.StageConnect, setup: func(o *setup) { o.limits.CommandIdle = 50 * time.Millisecond }, provoke: func(_ *testing.T, e *edge) {
			c := e.dial()
			c.want(said(421, "4.4.2", reason.SessionTimeout, "Nothing was heard for too long; closing the connection"))
			c.ended()
		}},
		{slug: reason.TooManyErrors, stage: reason.StageMail, setup: func(o *setup) { o.limits.Errors = 1 }, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.ask("MAIL FROM:<a@nowhere>", "(?s)553.*")
			c.ask("MAIL FROM:<a@nowhere>", "(?s)553.*")
			c.want(said(421, "4.7.0", reason.TooManyErrors, "Too many errors; closing the connection"))
			c.ended()
		}},
		{slug: reason.RateLimited, stage: reason.StageMail, setup: func(o *setup) { o.limits.UserMessagesPerMinute = 1 }, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.login("anna@ok.test", password, "235 .*")
			c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
			c.ask("MAIL FROM:<anna@ok.test>", said(450, "4.7.1", reason.RateLimited, "Rate limit reached; try again later"))
		}},
		{slug: reason.RateLimited, variant: reason.AtConnect, stage: reason.StageAuth, setup: func(o *setup) { o.limits.AuthFailuresPerMinute = 1 }, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.login("anna@ok.test", "wrong", "(?s)535.*")
			c.login("anna@ok.test", "wrong again", said(421, "4.7.0", reason.RateLimited, "Rate limit reached; try again later"))
			c.ended()
		}},
	}
}

func conversationCases() []provocation {
	badLogin := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("no response"))
	return []provocation{
		{slug: reason.CommandSyntax, stage: reason.StageAuth, provoke: func(_ *testing.T, e *edge) {
			e.hello().ask(badLogin, said(501, "5.5.4", reason.CommandSyntax, "Command not understood: not a PLAIN response"))
		}},
		{slug: reason.CommandSequence, stage: reason.StageMail, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
			c.ask("MAIL FROM:<bo@ok.test>", said(503, "5.5.1", reason.CommandSequence, "Command is not allowed at this point: MAIL within a message"))
		}},
		{slug: reason.TLSRequired, stage: reason.StageMail, setup: func(o *setup) { o.tls, o.kind = true, Submission }, provoke: func(_ *testing.T, e *edge) {
			e.hello().ask("MAIL FROM:<anna@ok.test>", said(530, "5.7.0", reason.TLSRequired, "Start TLS first"))
		}},
		{slug: reason.AuthRequired, stage: reason.StageMail, setup: func(o *setup) { o.tls, o.kind = true, Submission }, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.startTLS(e.trust)
			c.ask("MAIL FROM:<anna@ok.test>", said(530, "5.7.0", reason.AuthRequired, "Authentication is required"))
		}},
		{slug: reason.AuthFailed, stage: reason.StageAuth, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.login("anna@ok.test", "wrong", said(535, "5.7.8", reason.AuthFailed, "User name or password is wrong"))
			c.login("nobody@ok.test", password, said(535, "5.7.8", reason.AuthFailed, "User name or password is wrong"))
		}},
		{slug: reason.AuthFailed, variant: reason.BackendDown, stage: reason.StageAuth, setup: stale, provoke: func(_ *testing.T, e *edge) {
			e.hello().login("anna@ok.test", "wrong", said(454, "4.7.0", reason.AuthFailed, "Passwords cannot be checked just now; try again later"))
		}},
		{slug: reason.Internal, variant: reason.AtConnect, stage: reason.StageConnect, setup: func(o *setup) { o.view = func() admit.View { panic("a bug") } }, provoke: func(_ *testing.T, e *edge) {
			c := e.dial()
			c.ask("EHLO client.test", said(421, "4.3.0", reason.Internal, "Something went wrong on our side; try again later"))
			c.ended()
		}},
		// Without entropy there is no id, and so no reference.
		{slug: reason.Internal, stage: reason.StageData, setup: func(o *setup) { o.entropy = strings.NewReader("") }, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.envelope("anna@ok.test", "carl@sink.test")
			c.ask("DATA", "354 .*")
			c.raw(text("anna@ok.test") + ".\r\n")
			c.want(`451-4\.3\.0 Something went wrong on our side; try again later\n451 4\.3\.0 reason=internal edge=fra1 rev=\d+`)
		}},
	}
}

// commandCases are the refusals of the engine.
func commandCases() []provocation {
	refused := func(slug reason.Slug, v reason.Variant, stage reason.Stage, said, want string) provocation {
		return provocation{slug: slug, variant: v, stage: stage, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.raw(said)
			c.want(want)
		}}
	}
	long := strings.Repeat("x", smtpwire.MaxLineBytes) + "\r\n"
	return []provocation{
		refused(reason.CommandUnknown, "", reason.StageConnect, "FROB\r\n", said(500, "5.5.1", reason.CommandUnknown, "Command not recognised")),
		refused(reason.CommandNotOffered, "", reason.StageConnect, "ETRN ok.test\r\n", said(502, "5.5.1", reason.CommandNotOffered, "Command is not offered here")),
		refused(reason.CommandSyntax, "", reason.StageMail, "MAIL FROM:anna@ok.test\r\n",
			said(501, "5.5.4", reason.CommandSyntax, "Command not understood: the address must stand in angle brackets")),
		refused(reason.CommandSequence, "", reason.StageRcpt, "RCPT TO:<carl@sink.test>\r\n",
			said(503, "5.5.1", reason.CommandSequence, "Command is not allowed at this point: RCPT without MAIL")),
		refused(reason.ParameterUnknown, "", reason.StageMail, "MAIL FROM:<anna@ok.test> X-COLOUR=red\r\n",
			said(555, "5.5.4", reason.ParameterUnknown, "Parameter is not supported: X-COLOUR")),
		refused(reason.LineTooLong, "", reason.StageConnect, long, said(500, "5.5.2", reason.LineTooLong, "Line is longer than 4096 bytes")),
		refused(reason.AuthMechanism, "", reason.StageAuth, "AUTH NTLM\r\n",
			said(504, "5.5.4", reason.AuthMechanism, "Authentication mechanism is not offered; use PLAIN or LOGIN")),
		{slug: reason.AuthCancelled, stage: reason.StageAuth, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.ask("AUTH PLAIN", "334 ")
			c.ask("*", said(501, "5.7.0", reason.AuthCancelled, "Authentication was cancelled"))
		}},
		{slug: reason.LineTooLong, variant: reason.InAuth, stage: reason.StageAuth, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.ask("AUTH PLAIN", "334 ")
			c.raw(long[len(long)-20_000:])
			c.want(said(500, "5.5.6", reason.LineTooLong, "Authentication line is longer than 12288 bytes"))
		}},
		atData(reason.LineTooLong, reason.InMessage, text("anna@ok.test")+long,
			said(554, "5.6.0", reason.LineTooLong, "Message has a line longer than 65536 bytes"), nil),
		{slug: reason.SessionTimeout, stage: reason.StageData, setup: func(o *setup) { o.limits.DataIdle = 50 * time.Millisecond }, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.envelope("anna@ok.test", "carl@sink.test")
			c.ask("DATA", "354 .*")
			c.want(said(421, "4.4.2", reason.SessionTimeout, "Nothing was heard for too long; closing the connection"))
			c.ended()
		}},
	}
}

func senderCases() []provocation {
	unregistered := said(550, "5.7.1", reason.SenderDomainUnknown, "Sender domain nowhere.test is not registered for relaying")
	asUser := func(user, from, want string) func(*testing.T, *edge) {
		return func(_ *testing.T, e *edge) {
			c := e.hello()
			c.login(user, password, "235 .*")
			c.ask("MAIL FROM:<"+from+">", "250 .*")
			c.ask("RCPT TO:<carl@sink.test>", want)
		}
	}
	return []provocation{
		{slug: reason.SenderAddressBad, stage: reason.StageMail, provoke: func(_ *testing.T, e *edge) {
			e.hello().ask("MAIL FROM:<a%b@ok.test>", said(553, "5.1.7", reason.SenderAddressBad,
				"Sender address not accepted: % and ! are not allowed in the local part"))
		}},
		atRcpt(reason.SenderDomainUnknown, "", "x@nowhere.test", unregistered, nil),
		atData(reason.SenderDomainUnknown, "", text("x@nowhere.test"), unregistered, nil),
		atData(reason.SenderDomainUnknown, "", text("x@rival.test"),
			said(550, "5.7.1", reason.SenderDomainUnknown, "Sender domain rival.test is not registered for relaying"), nil),
		atRcpt(reason.SenderDomainUnknown, reason.WhenStale, "x@nowhere.test", said(451, "4.3.0", reason.SenderDomainUnknown,
			"Cannot confirm just now that sender domain nowhere.test is registered for relaying; try again later"), stale),
		atRcpt(reason.IPNotAllowed, "", "x@elsewhere.test", said(550, "5.7.1", reason.IPNotAllowed,
			"Relaying denied: client address 127.0.0.1 is not active for elsewhere.test; contact help@acme.example"), nil),
		atRcpt(reason.IPNotAllowed, reason.WhenStale, "x@elsewhere.test", said(451, "4.3.0", reason.IPNotAllowed,
			"Cannot confirm just now that client address 127.0.0.1 is active for elsewhere.test; try again later; contact help@acme.example"), stale),
		{slug: reason.SenderNotOwned, stage: reason.StageRcpt, provoke: asUser("anna@ok.test", "bo@ok.test",
			said(553, "5.7.1", reason.SenderNotOwned, "anna@ok.test may not send as bo@ok.test"))},
		{slug: reason.SenderNotOwned, variant: reason.WhenStale, stage: reason.StageRcpt, setup: stale, provoke: asUser("anna@ok.test", "bo@ok.test",
			said(451, "4.3.0", reason.SenderNotOwned, "Cannot confirm just now that anna@ok.test may send as bo@ok.test; try again later"))},
		atRcpt(reason.RelayDisabled, "", "x@abusive.test", said(550, "5.7.1", reason.RelayDisabled,
			"Relaying is disabled for abusive.test (abuse complaints); contact help@acme.example"), nil),
		atRcpt(reason.RelayDisabled, reason.WhenStale, "x@abusive.test", said(451, "4.3.0", reason.RelayDisabled,
			"Relaying was disabled for abusive.test (abuse complaints) when policy was last heard; try again later; contact help@acme.example"), stale),
		{slug: reason.RelayDisabled, variant: reason.ForUser, stage: reason.StageRcpt, provoke: asUser("banned@ok.test", "banned@ok.test",
			said(525, "5.7.13", reason.RelayDisabled, "Relaying is disabled for banned@ok.test (abuse complaints); contact help@acme.example"))},
		atRcpt(reason.RelaySuspended, "", "x@suspended.test", said(450, "4.7.1", reason.RelaySuspended,
			"Relaying is suspended for suspended.test; contact help@acme.example"), nil),
		atRcpt(reason.RelaySuspended, reason.Later, "x@lapsed.test", said(550, "5.7.1", reason.RelaySuspended,
			"Relaying is suspended for lapsed.test; contact help@acme.example"), nil),
		atRcpt(reason.PolicyStale, "", "x@unreadable.test", said(451, "4.3.0", reason.PolicyStale,
			"Cannot confirm the relaying policy of unreadable.test just now; try again later"), func(o *setup) {
			o.world.table, _ = policy.Apply(o.world.table, []api.PolicyDocument{{
				Key: "domain/unreadable.test", Revision: 1000, Domain: &api.DomainPolicy{Name: "another.test"},
			}})
		}),
	}
}

func quotaCases() []provocation {
	full := func(o *setup) { o.limits.QuotaWait = patience }
	return []provocation{
		{slug: reason.QuotaReached, stage: reason.StageCommit, setup: full, provoke: func(_ *testing.T, e *edge) {
			e.hello().mail("x@full.test", text("x@full.test"), said(450, "4.7.1", reason.QuotaReached,
				"Relay limit reached for full.test: 0 of 0 messages today; resets "+e.bank.day.End.Format(time.RFC3339)))
		}},
		{slug: reason.QuotaReached, stage: reason.StageRcpt, setup: full, provoke: func(t *testing.T, e *edge) {
			c := e.hello()
			for range 3 {
				c.mail("x@last.test", text("x@last.test"), queuedAs)
			}
			c.ask("MAIL FROM:<x@last.test>", "250 .*")
			c.ask("RCPT TO:<carl@sink.test>", said(450, "4.7.1", reason.QuotaReached,
				"Relay limit reached for last.test: 3 of 3 messages today; resets "+e.bank.day.End.Format(time.RFC3339)))
			if messages, _ := e.stored(); len(messages) != 3 {
				t.Errorf("%d messages accepted, want 3", len(messages))
			}
		}},
		{slug: reason.QuotaReached, variant: reason.ForUser, stage: reason.StageCommit, setup: full, provoke: func(_ *testing.T, e *edge) {
			e.bank.setLimit("ok.test", 0)
			c := e.hello()
			c.login("anna@ok.test", password, "235 .*")
			c.mail("anna@ok.test", text("anna@ok.test"), said(550, "5.7.1", reason.QuotaReached,
				"Relay limit reached for ok.test: 0 of 0 messages today; resets "+e.bank.day.End.Format(time.RFC3339)))
		}},
		{slug: reason.QuotaUnavailable, stage: reason.StageCommit, setup: func(o *setup) { o.limits.QuotaWait = 50 * time.Millisecond }, provoke: func(_ *testing.T, e *edge) {
			e.bank.setAway(true)
			e.hello().mail("anna@ok.test", text("anna@ok.test"), said(451, "4.3.0", reason.QuotaUnavailable,
				"Cannot confirm the relay limit just now; try again later"))
		}},
		{slug: reason.QuotaUnavailable, stage: reason.StageCommit, provoke: func(_ *testing.T, e *edge) {
			e.hello().mail("x@unlent.test", text("x@unlent.test"), said(451, "4.3.0", reason.QuotaUnavailable,
				"Cannot confirm the relay limit just now; try again later"))
		}},
	}
}

func recipientCases() []provocation {
	return []provocation{
		{slug: reason.RecipientAddressBad, stage: reason.StageRcpt, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
			c.ask("RCPT TO:<a@single>", said(553, "5.1.3", reason.RecipientAddressBad, "Recipient address not accepted: the domain needs at least two labels"))
		}},
		{slug: reason.TooManyRecipients, stage: reason.StageRcpt, provoke: func(_ *testing.T, e *edge) {
			c := e.hello()
			c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
			for i := range 100 {
				c.ask(fmt.Sprintf("RCPT TO:<c%d@sink.test>", i), "250 .*")
			}
			c.ask("RCPT TO:<one.more@sink.test>", said(452, "4.5.3", reason.TooManyRecipients, "Too many recipients; at most 100 are accepted in one message"))
			c.data(text("anna@ok.test"), queuedAs)
		}},
	}
}

func contentCases() []provocation {
	tooLarge := said(552, "5.3.4", reason.MessageTooLarge, "Message is larger than the 1048576 bytes allowed")
	big := text("anna@ok.test") + strings.Repeat("0123456789abcdef\r\n", 1<<16)
	eicar := `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*` + "\r\n"
	troubled := func(v scan.Verdict, err error) func(*setup) {
		return func(o *setup) {
			o.world.settings(func(s *api.Settings) { s.AllowUnscanned = true })
			o.scanner = scan.Chain{scannerFunc(func(context.Context, scan.Message) (scan.Verdict, error) { return v, err })}
		}
	}
	unscanned := said(451, "4.7.1", reason.ScannerUnavailable, "Content scanner unavailable; try again later")
	badHeader := func(detail string) string {
		return said(550, "5.6.0", reason.BadHeader, "Message header not accepted: "+detail)
	}
	broken := said(550, "5.5.2", reason.BareNewline, "Message has line ends other than CR LF")
	noRoom := said(452, "4.3.1", reason.QueueFull, "No room for more mail just now; try again later")
	noDisk := said(451, "4.3.0", reason.DiskTrouble, "Mail cannot be stored just now; try again later")
	return []provocation{
		{slug: reason.MessageTooLarge, stage: reason.StageMail, provoke: func(_ *testing.T, e *edge) {
			e.hello().ask("MAIL FROM:<anna@ok.test> SIZE=1048577", tooLarge)
		}},
		atData(reason.MessageTooLarge, "", big, tooLarge, nil),
		atData(reason.BareNewline, "", text("anna@ok.test")+"bare\nfeed\r\n", broken, nil),
		atData(reason.BareNewline, "", text("anna@ok.test")+"bare\rreturn\r\n", broken, nil),
		atData(reason.BareNewline, "", text("anna@ok.test")+"nul\x00\r\n", broken, nil),
		atData(reason.BadHeader, "", "Subject: x\r\n\r\nbody\r\n", badHeader("it has no From field"), nil),
		atData(reason.BadHeader, "", text("anna@ok.test", "From: bo@ok.test"), badHeader("it has 2 From fields"), nil),
		atData(reason.BadHeader, "", text("anna@ok.test", "From : bo@ok.test"), badHeader("it has 2 From fields"), nil),
		atData(reason.BadHeader, "", text("anna@ok.test, bo@ok.test"), badHeader("From: there must be exactly one address"), nil),
		atData(reason.BadHeader, "", text("anna@ok.test", "no field"), badHeader("it has a line that is no field"), nil),
		atData(reason.RoutingLoop, "", strings.Repeat("Received: by x\r\n", 30)+text("anna@ok.test"),
			said(554, "5.4.6", reason.RoutingLoop, "Message has passed too many servers; it is in a loop"), nil),
		atData(reason.Malware, "", text("anna@ok.test")+eicar,
			said(554, "5.7.1", reason.Malware, "Message refused: malware found (Eicar-Test-Signature)"), nil),
		atData(reason.Bulk, "", text("anna@ok.test", "Precedence: bulk"),
			said(550, "5.7.1", reason.Bulk, "Newsletters and bulk mail are not relayed"), nil),
		atData(reason.ScannerUnavailable, "", text("anna@ok.test"), unscanned, func(o *setup) { o.scanner = scan.Chain{} }),
		atData(reason.ScannerUnavailable, "", text("anna@ok.test"), unscanned, troubled(scan.Verdict{}, scan.ErrUnavailable)),
		atData(reason.ScannerUnavailable, "", text("anna@ok.test"), unscanned, troubled(scan.Verdict{}, nil)),
		{slug: reason.QueueFull, stage: reason.StageMail, setup: func(o *setup) { o.reserve = 1 << 60 }, provoke: func(_ *testing.T, e *edge) {
			e.hello().ask("MAIL FROM:<anna@ok.test>", noRoom)
		}},
		{slug: reason.QueueFull, stage: reason.StageData, provoke: func(_ *testing.T, e *edge) {
			e.faults.Store(func(op, path string) error {
				if op == "write" && strings.Contains(path, "/spool/") {
					return syscall.ENOSPC
				}
				return nil
			})
			e.hello().mail("anna@ok.test", text("anna@ok.test")+strings.Repeat("0123456789abcdef\r\n", 1<<15), noRoom)
		}},
		{slug: reason.DiskTrouble, stage: reason.StageCommit, provoke: func(t *testing.T, e *edge) {
			c := e.hello()
			c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
			e.must(e.bank.answer(e.ledger)) // now there are units for the next one
			e.faults.Store(func(op, _ string) error {
				if op == "sync" {
					return syscall.EIO
				}
				return nil
			})
			c.mail("anna@ok.test", text("anna@ok.test"), noDisk)
			if err := e.journal.Err(); !errors.Is(err, syscall.EIO) {
				t.Errorf("journal says %v", err)
			}
			if !strings.Contains(e.log.String(), "stage=commit") {
				t.Errorf("the log does not say at which stage:\n%s", e.log)
			}
			c.ask("MAIL FROM:<anna@ok.test>", noDisk)
		}},
	}
}
