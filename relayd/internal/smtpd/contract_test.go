package smtpd

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"activerelay/api/reason"
	"activerelay/relayd/internal/scan"
)

// Matrix row 15: what comes after a message stalled is never run as commands.
func TestRow15StalledMessageClosesTheSocket(t *testing.T) {
	for _, w := range ways() {
		e := startEdge(t, func(o *setup) {
			w.open(o)
			o.limits.DataIdle = 50 * time.Millisecond
		})
		c := w.on(t, e)
		c.envelope("anna@ok.test", "carl@sink.test")
		c.ask("DATA", "354 .*")
		c.raw(text("anna@ok.test"))
		c.want(said(421, "4.4.2", "session-timeout", "Nothing was heard for too long; closing the connection"))
		// The peer may have closed by now: then it cannot be sent.
		_, _ = io.WriteString(c.conn, "\r\n.\r\nMAIL FROM:<x@other.test>\r\nRCPT TO:<victim@sink.test>\r\nDATA\r\nFrom: x@other.test\r\n\r\n.\r\n")
		if rest, _ := io.ReadAll(c.in); len(rest) > 0 {
			t.Errorf("%s: the server went on: %q", w.name, rest)
		}
		e.checkStoredIsOf(w)
		if n := e.count(); n != 0 {
			t.Errorf("%s: %d messages stored, want none", w.name, n)
		}
	}
}

func TestMessageThatTricklesIsCutOff(t *testing.T) {
	e := startEdge(t, func(o *setup) {
		o.limits.DataGrace, o.limits.DataMinRate = 100*time.Millisecond, 1<<20
	})
	c := e.hello()
	c.envelope("anna@ok.test", "carl@sink.test")
	c.ask("DATA", "354 .*")
	began := time.Now()
	for {
		if _, err := io.WriteString(c.conn, "x\r\n"); err != nil || time.Since(began) > patience {
			break
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if got, err := c.reply(); err == nil {
			if !strings.HasPrefix(got, "421") {
				t.Errorf("reply %q, want 421", got)
			}
			return
		}
	}
	t.Fatal("a message that trickles was not cut off")
}

// Matrix row 16: addresses that other servers read differently are refused.
func TestRow16AddressesThatCouldBeReadInTwoWaysAreRefused(t *testing.T) {
	addresses := []string{
		`"ceo@victim.test> ENVID="@ok.test`, `"x@other.test> NOTIFY=NEVER ORCPT=rfc822;"@ok.test`, `"a b"@ok.test`,
		`"anna"@ok.test`, "@h1,@h2:anna@ok.test", "a@evil@ok.test", "a@ok.test@evil", "a\x00b@ok.test", "a\rb@ok.test", "é@ok.test", "@h1:", "@h1,a@ok.test",
		"a@[", "a@[IPv6:::1]", "a@[127.0.0.1]", "a%b@ok.test", "victim!u@ok.test", "postmaster", "a@", "@ok.test", "a@ok..test",
		"a@.ok.test", "a@-ok.test", "a@ok-.test", ".a@ok.test", "a.@ok.test", "a..b@ok.test", "a b@ok.test", "a\tb@ok.test",
		"a@ok.test ", " a@ok.test", "a@ok_.test", "a@ok.test:25", "a@ok.test/b", "a(c)@ok.test", "a@ok.test(c)", `a\@b@ok.test`,
		"a<b@ok.test", "a@ok.test<", "<a@ok.test>", "a;b@ok.test", "a,b@ok.test", "a:b@ok.test", "a[b@ok.test", "a]b@ok.test",
		`a"b@ok.test`, "a@ok", "a@127.0.0.1.", "a@ok.test\x7f", "a\x1b[0m@ok.test", "a@о\u043a.test", "a\u202eb@ok.test",
		strings.Repeat("a", 65) + "@ok.test", "a@" + strings.Repeat("a", 64) + ".test", "a@" + strings.Repeat("abcdefg.", 32) + "test",
	}
	e := startEdge(t, func(o *setup) { o.limits.ConnectionsPerIP = 1000 })
	for _, address := range addresses {
		t.Run(fmt.Sprintf("%q", address), func(t *testing.T) {
			c := e.hello()
			c.t = t
			c.ask("MAIL FROM:<"+address+">", `(?s)(501|553)[ -].*`)
			c = e.hello()
			c.t = t
			c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
			c.ask("RCPT TO:<"+address+">", `(?s)(501|553)[ -].*`)
			c.ask("DATA", "(?s)503-.*")
		})
	}
	if messages, _ := e.stored(); len(messages) != 0 {
		t.Errorf("%d messages stored", len(messages))
	}
	c := e.hello()
	c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
	c.ask("RCPT TO:<>", `(?s)(501|553)[ -].*`)
}

func TestDomainsAreKeptInLowerCase(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.envelope("anna@OK.test", "Bob@Sink.TEST")
	c.data(text("anna@ok.test"), queuedAs)
	messages, _ := e.stored()
	if m := messages[0]; m.From.String() != "anna@ok.test" || m.Recipients[0].Address.String() != "Bob@sink.test" {
		t.Errorf("kept %s to %s", m.From, m.Recipients[0].Address)
	}
}

func TestRow16NestedMailDoesNotChangeTheMessage(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.envelope("anna@ok.test", "carl@sink.test")
	c.ask("MAIL FROM:<x@other.test>", "(?s)503-.*reason=command-sequence .*")
	c.data(text("anna@ok.test"), queuedAs)
	c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
	c.ask("MAIL FROM:<x@other.test>", "(?s)503-.*")
	c.ask("DATA", "(?s)503-.*")
	messages, _ := e.stored()
	if len(messages) != 1 || messages[0].From.String() != "anna@ok.test" {
		t.Errorf("stored %+v", messages)
	}
}

func TestRow16AuthWithinAMessageIsRefused(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.envelope("anna@ok.test", "carl@sink.test")
	c.login("anna@ok.test", password, "(?s)503-.*reason=command-sequence .*")
	c.data(text("anna@ok.test"), queuedAs)
	if messages, _ := e.stored(); messages[0].User != "" {
		t.Errorf("message is charged to user %s", messages[0].User)
	}
}

func TestRow16NobodyActsForAnotherUser(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("bo@ok.test\x00anna@ok.test\x00"+password)),
		"(?s)535-5\\.7\\.8 .*reason=auth-failed .*")
	c.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("anna@ok.test\x00anna@ok.test\x00"+password)), "235 .*")
}

func TestThreeFailedLoginsEndTheConnection(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	for range 3 {
		c.login("anna@ok.test", "wrong", "(?s)535-5\\.7\\.8 .*")
	}
	c.ended()
	c = e.hello()
	c.login("anna@ok.test", password, "235 .*")
}

// While passwords cannot be called wrong, trying them is not free either.
func TestThreeLoginsThatCannotBeCheckedEndTheConnection(t *testing.T) {
	e := startEdge(t, stale)
	c := e.hello()
	for range 3 {
		c.login("anna@ok.test", "wrong", "(?s)454-4\\.7\\.0 .*")
	}
	c.ended()
}

// Matrix row 18: nothing said in plain text is taken for said over TLS.
func TestRow18PlainTextBehindStartTLSEndsTheConnection(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.tls = true })
	c := e.hello()
	c.raw("STARTTLS\r\nMAIL FROM:<x@other.test>\r\nRCPT TO:<victim@sink.test>\r\n")
	c.want(said(503, "5.5.1", "command-sequence", "Command is not allowed at this point: nothing may follow STARTTLS"))
	c.ended()
	if strings.Contains(e.log.String(), "x@other.test") {
		t.Errorf("plain text was run:\n%s", e.log)
	}
}

func TestRow18FailedHandshakeEndsTheConnection(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.tls = true })
	c := e.hello()
	c.ask("STARTTLS", "220 .*")
	c.raw("garbage\r\nMAIL FROM:<x@other.test>\r\n")
	rest, err := io.ReadAll(c.in)
	if isDeadline(err) {
		t.Fatal("connection is still open")
	}
	if strings.Contains(string(rest), "50 ") {
		t.Errorf("the server went on in plain text: %q", rest)
	}
}

func TestRow18OldTLSIsRefused(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.tls = true })
	c := e.hello()
	c.ask("STARTTLS", "220 .*")
	old := e.trust.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	if err := tls.Client(c.conn, old).Handshake(); err == nil {
		t.Fatal("TLS 1.0 was accepted")
	}
}

// A command ends in CR LF. A bare CR or LF is none, and what is left when the
// connection ends is no command.
func TestOnlyWholeLinesAreRun(t *testing.T) {
	for _, lines := range []string{
		"NOOP\nMAIL FROM:<x@other.test>\nRCPT TO:<victim@sink.test>\n", "NOOP\rMAIL FROM:<x@other.test>\r", "MAIL FROM:<x@nowhere.test",
		"MAIL FROM:<x@other.test>\r", "MAIL FROM:<x@other.test>\n",
	} {
		e := startEdge(t, nil)
		c := e.hello()
		c.raw(lines)
		e.must(c.conn.(*net.TCPConn).CloseWrite())
		rest, err := io.ReadAll(c.in)
		if err != nil || len(rest) > 0 {
			t.Errorf("%q was answered %q (%v)", lines, rest, err)
		}
	}
}

func TestQuitIsTheEndWhateverWasSentBehindIt(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.raw("QUIT\r\nMAIL FROM:<x@other.test>\r\nRCPT TO:<victim@sink.test>\r\n")
	c.want("221 .*")
	rest, _ := io.ReadAll(c.in)
	if len(rest) > 0 || strings.Contains(e.log.String(), "other.test") {
		t.Errorf("after QUIT came %q", rest)
	}
}

func TestShutdownLetsAMessageInFlightFinish(t *testing.T) {
	e := startEdge(t, nil)
	idle, c := e.hello(), e.hello()
	c.envelope("anna@ok.test", "carl@sink.test")
	c.ask("DATA", "354 .*")
	c.raw(text("anna@ok.test"))
	down := make(chan error, 1)
	go func() { down <- e.server.Shutdown(context.Background()) }()
	idle.want("(?s)421-4\\.3\\.2 .*reason=shutting-down .*")
	c.raw(".\r\n")
	c.want(queuedAs)
	c.want("(?s)421-4\\.3\\.2 .*")
	c.ended()
	if err := <-down; err != nil {
		t.Error(err)
	}
	if messages, _ := e.stored(); len(messages) != 1 {
		t.Errorf("%d messages stored, want 1", len(messages))
	}
}

func TestShutdownCutsOffWhatDoesNotFinish(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.limits.ShutdownGrace = 50 * time.Millisecond })
	c := e.hello()
	c.envelope("anna@ok.test", "carl@sink.test")
	c.ask("DATA", "354 .*")
	if err := e.server.Shutdown(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown says %v", err)
	}
	if messages, _ := e.stored(); len(messages) != 0 {
		t.Errorf("%d messages stored, want none", len(messages))
	}
}

// A session that waits for a scanner or for units is told to give up.
func TestShutdownEndsSessionsThatWaitForOthers(t *testing.T) {
	asked := make(chan struct{})
	e := startEdge(t, func(o *setup) {
		o.limits.ShutdownGrace = 50 * time.Millisecond
		o.scanner = scannerFunc(func(ctx context.Context, _ scan.Message) (scan.Verdict, error) {
			close(asked)
			<-ctx.Done()
			return scan.Verdict{}, ctx.Err()
		})
	})
	c := e.hello()
	c.envelope("anna@ok.test", "carl@sink.test")
	c.ask("DATA", "354 .*")
	c.raw(text("anna@ok.test") + ".\r\n")
	<-asked
	if err := e.server.Shutdown(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown says %v", err)
	}
	if messages, _ := e.stored(); len(messages) != 0 {
		t.Errorf("%d messages stored, want none", len(messages))
	}
}

func TestPanicInOneSessionIsNobodyElsesTrouble(t *testing.T) {
	e := startEdge(t, func(o *setup) {
		o.scanner = scannerFunc(func(_ context.Context, m scan.Message) (scan.Verdict, error) {
			if body, _ := io.ReadAll(m.Open()); strings.Contains(string(body), "poison") {
				panic("a bug")
			}
			return scan.Verdict{Outcome: scan.Clean}, nil
		})
	})
	bystander := e.hello()
	c := e.hello()
	c.mail("anna@ok.test", text("anna@ok.test", "X: poison"), said(421, "4.3.0", "internal", "Something went wrong on our side; try again later"))
	c.ended()
	bystander.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
	if messages, _ := e.stored(); len(messages) != 1 {
		t.Errorf("%d messages stored, want 1", len(messages))
	}
	if log := e.log.String(); !strings.Contains(log, "a bug") {
		t.Errorf("the log does not tell of the panic:\n%s", log)
	}
}

// Every IPv6 host has 2^64 addresses to call from.
func TestConnectionsOfAnIPv6NetworkAreCountedTogether(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.limits.ConnectionsPerIP = 2 })
	come := func(from string) *countedConn {
		c := &countedConn{server: e.server}
		if !e.server.enter(c) || !e.server.enterAddress(c, netip.MustParseAddr(from)) {
			return nil
		}
		return c
	}
	one, two := come("2001:db8::1"), come("2001:db8::2")
	if one == nil || two == nil || come("2001:db8::3") != nil {
		t.Error("the third connection of a network came in, or one before it did not")
	}
	if come("2001:db8:0:1::1") == nil || come("192.0.2.1") == nil {
		t.Error("another network was turned away")
	}
	e.server.leave(two)
	e.server.leave(two) // which is nothing
	if come("2001:db8::1") == nil || come("2001:db8::1") != nil {
		t.Error("one place was left: want it free, and no other")
	}
}

func TestNobodyFillsTheOutboxByWhatIsRefusedInTheNameOfADomain(t *testing.T) {
	e := startEdge(t, nil)
	now := time.Now()
	e.server.Now = func() time.Time { return now }
	domain, _ := e.world.view().Table.Domain("ok.test")
	count := func(slug reason.Slug, times int) (reported int) {
		before := len(e.events())
		for range times {
			e.server.refuse(&refusal{stage: reason.StageRcpt, slug: slug, domain: domain, client: netip.MustParseAddr("192.0.2.66")})
		}
		return len(e.events()) - before
	}
	if got := count(reason.IPNotAllowed, eventsOfStrangers+200); got != eventsOfStrangers {
		t.Errorf("%d refusals of strangers are reported, want %d", got, eventsOfStrangers)
	}
	if got := count(reason.QuotaReached, eventsOfStrangers+200); got != eventsOfStrangers+200 {
		t.Errorf("%d refusals of the domain's own mail are reported, want all", got)
	}
	const left = eventsOfCustomers - (eventsOfStrangers + 200)
	before := e.counted("relayd_smtp_refusals_unreported_total", "")
	count(reason.QuotaReached, left+50)
	if got := e.counted("relayd_smtp_refusals_unreported_total", "") - before; got != 50 {
		t.Errorf("%v refusals of the domain's own mail are not reported, want 50", got)
	}
}

// Whoever is nobody's client may use up what there is for the domain, and for none: a user who is logged in and a relay IP in a
// message of its own domain are reported all the same.
func TestStrangersDoNotKeepWhatADomainsOwnClientsWereRefusedFromBeingReported(t *testing.T) {
	e := startEdge(t, nil)
	for _, named := range []string{"", "elsewhere.test"} {
		for range 100_000 {
			e.server.strangers.events.take(named, time.Now())
		}
	}
	stranger := e.hello()
	stranger.ask("MAIL FROM:<eve@elsewhere.test>", "250 .*")
	stranger.ask("RCPT TO:<carl@sink.test>", `(?s)550-.*reason=ip-not-allowed ref=.*`)
	if events := e.events(); len(events) > 0 {
		t.Fatalf("a stranger is reported: %+v", events)
	}
	user := e.hello()
	user.login("anna@ok.test", password, "235 .*")
	user.ask("MAIL FROM:<anna@nobody.test>", "250 .*")
	user.ask("RCPT TO:<carl@sink.test>", `(?s)550-.*reason=sender-domain-unknown ref=.*`)
	server := e.hello()
	server.mail("anna@ok.test", text("anna@elsewhere.test"), `(?s)550-.*reason=ip-not-allowed ref=.*`)
	events := e.events()
	if len(events) != 2 {
		t.Fatalf("%d events, want one of the user and one of the relay IP", len(events))
	}
	if user, slug := *events[0].User, *events[0].Reason; user != "anna@ok.test" || slug != string(reason.SenderDomainUnknown) {
		t.Errorf("the event of the user: %+v", events[0])
	}
	if domain, slug := *events[1].Domain, *events[1].Reason; domain != "elsewhere.test" || slug != string(reason.IPNotAllowed) {
		t.Errorf("the event of the relay IP: %+v", events[1])
	}
}
