package smtpd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/feedback"
	"activerelay/api/reason"
	"activerelay/relayd/internal/scan"
	"activerelay/relayd/internal/spool"
)

func TestAcceptedMailIsStoredByteForByteBelowOurFields(t *testing.T) {
	e := startEdge(t, nil)
	odd := "from:  Anna\t<anna@ok.test>\r\nX-Odd :  value \r\n\tfolded\r\nSubject: =?utf-8?q?=C3=A9?=\r\n\r\n" +
		"..dots\r\n.\r\ntrailing space \r\n\r\n"
	c := e.hello()
	reply := c.mail("anna@ok.test", odd, queuedAs)
	c.ask("QUIT", "221 .*")
	messages, texts := e.stored()
	if len(texts) != 1 || below(t, texts[0]) != odd {
		t.Fatalf("stored %q\nwant one text that ends %q", texts, odd)
	}
	m := messages[0]
	if !strings.HasSuffix(reply, m.ID) {
		t.Errorf("reply %q does not name message %s", reply, m.ID)
	}
	if id := <-e.queued; id != m.ID {
		t.Errorf("queue was told %s, want %s", id, m.ID)
	}
	if m.Domain != "ok.test" || m.Partner != "acme" || m.From.String() != "anna@ok.test" ||
		m.Client.String() != "127.0.0.1" || m.User != "" || m.Helo != "client.test" || m.Units != 1 ||
		m.Recipients[0].State != spool.Pending || m.Size != int64(len(texts[0])) || !m.DayStart.Equal(e.bank.day.Start) {
		t.Errorf("envelope is %+v", m)
	}
}

// It is not read back from the disk: all who open it see the same bytes.
func TestTheTextOfAcceptedMailIsHandedToItsDeliveryInMemory(t *testing.T) {
	e := startEdge(t, nil)
	e.hello().mail("anna@ok.test", text("anna@ok.test"), queuedAs)
	id := <-e.queued
	one, err := e.spool.Body(id)
	e.must(err)
	defer one.Close()
	other, err := e.spool.Body(id)
	e.must(err)
	defer other.Close()
	if &one.Bytes()[0] != &other.Bytes()[0] {
		t.Error("the text was read twice")
	}
}

func TestAcceptedMailIsChargedAndReportedOnce(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.envelope("anna@ok.test", "carl@sink.test", "dora@sink.test")
	c.data(text("anna@ok.test"), queuedAs)
	messages, _ := e.stored()
	events := e.events()
	if len(events) != 1 {
		t.Fatalf("events are %+v, want one", events)
	}
	got := events[0]
	if got.Kind != api.EdgeEventKindMessageAccepted || *got.MessageID != messages[0].ID || *got.Domain != "ok.test" ||
		*got.ClientAddress != "127.0.0.1" || *got.Sender != "anna@ok.test" || got.User != nil || *got.Recipients != 2 ||
		*got.Units != 1 || *got.SizeBytes != messages[0].Size || !got.DayStart.Equal(e.bank.day.Start) ||
		strings.Join(got.RecipientDomains, " ") != "sink.test sink.test" {
		t.Errorf("event is %+v", got)
	}
	e.must(e.bank.answer(e.ledger))
	if spent := e.bank.spent["ok.test"]; spent != 1 {
		t.Errorf("the control plane counts %d units, want 1", spent)
	}
	if log := e.log.String(); strings.Count(log, "msg=accepted") != 1 || !strings.Contains(log, messages[0].ID) {
		t.Errorf("mail log is\n%s", log)
	}
}

func TestMailIsChargedInTheUnitOfTheDay(t *testing.T) {
	e := startEdge(t, nil) // the platform counts messages by now
	e.bank.mu.Lock()
	e.bank.unit = api.QuotaUnitRecipient
	e.bank.mu.Unlock()
	c := e.hello()
	for range 2 { // the first finds out, the second knows
		c.envelope("anna@ok.test", "carl@sink.test", "dora@sink.test")
		c.data(text("anna@ok.test"), queuedAs)
	}
	c.ask("MAIL FROM:<x@last.test>", "250 .*")
	for _, to := range []string{"a", "b", "c", "d"} { // one more than its limit
		c.ask("RCPT TO:<"+to+"@sink.test>", "250 .*")
	}
	c.data(text("x@last.test"), said(450, "4.7.1", reason.QuotaReached,
		"Relay limit reached for last.test: 0 of 3 recipients today; resets "+e.bank.day.End.Format(time.RFC3339)))
	e.must(e.bank.answer(e.ledger))
	if spent := e.bank.spent["ok.test"]; spent != 4 {
		t.Errorf("the control plane counts %d units, want one for each recipient", spent)
	}
}

func TestEveryMessageCarriesATokenThatNamesItsSender(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.login("anna@ok.test", password, "235 .*")
	c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
	messages, texts := e.stored()
	_, rest, _ := strings.Cut(texts[0], feedback.HeaderName+":")
	token, _, _ := strings.Cut(rest, "\r\nDate:")
	claims, err := feedback.Open(e.server.FeedbackKey, token)
	want := feedback.Claims{
		MessageID: messages[0].ID, Domain: "ok.test", User: "anna@ok.test", ClientAddress: "127.0.0.1", Sender: "anna@ok.test",
	}
	if err != nil || claims != want {
		t.Errorf("token says %+v (%v), want %+v", claims, err, want)
	}
	if !strings.Contains(texts[0], "with ESMTPA id "+messages[0].ID+"\r\n\tfor <carl@sink.test>;\r\n") {
		t.Errorf("Received is %q", texts[0])
	}
}

func TestMailPastTheMemoryLimitIsAcceptedFromAFile(t *testing.T) {
	e := startEdge(t, nil)
	big := text("anna@ok.test") + strings.Repeat("0123456789abcdef\r\n", spool.InlineBytes/16)
	e.hello().mail("anna@ok.test", big, queuedAs)
	if _, texts := e.stored(); len(texts) != 1 || below(t, texts[0]) != big {
		t.Fatal("the large message is not as it came")
	}
}

func TestManyMessagesOfARelayIPPassOverOneConnection(t *testing.T) {
	e := startEdge(t, func(o *setup) { o.limits.MessagesPerConnection, o.limits.Junk = 3, 3 })
	c := e.hello()
	for range 8 {
		c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
		c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
		c.ask("RSET", "250 .*")
	}
	if messages, _ := e.stored(); len(messages) != 8 {
		t.Errorf("%d messages stored, want 8", len(messages))
	}
}

func TestNullSenderIsChargedToTheDomainOfItsFromField(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.mail("", text("mailer-daemon@other.test"), queuedAs)
	messages, _ := e.stored()
	if m := messages[0]; !m.From.IsNull() || m.Domain != "other.test" || m.Units != 1 {
		t.Errorf("envelope is %+v", m)
	}
	c.mail("", text("x@nowhere.test"), `(?s)550-5\.7\.1 Sender domain nowhere\.test is not registered for relaying\n550 5\.7\.1 reason=sender-domain-unknown .*`)
}

func TestSMTPUTF8AddressesPassOnlyWhereTheyWereAnnounced(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.ask("MAIL FROM:<müller@ok.test>", `(?s)553-5\.1\.7 .*\n553 5\.1\.7 reason=sender-address-bad .*`)
	c.ask("MAIL FROM:<müller@ok.test> SMTPUTF8", "250 .*")
	c.ask("RCPT TO:<jürgen@bücher.test>", "250 .*")
	c.data(text("müller@ok.test"), queuedAs)
	messages, texts := e.stored()
	m := messages[0]
	if !m.SMTPUTF8 || !m.EightBit || m.Recipients[0].Address.Domain != "xn--bcher-kva.test" {
		t.Errorf("envelope is %+v", m)
	}
	if !strings.Contains(texts[0], "with UTF8SMTP id ") || strings.Contains(texts[0], "\tfor <") {
		t.Errorf("Received is %q", texts[0])
	}
}

func TestParametersOfTheEnvelopeAreKept(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.ask("MAIL FROM:<anna@ok.test> BODY=8BITMIME RET=HDRS ENVID=a+2Bb SIZE=500", "250 .*")
	c.ask("RCPT TO:<carl@sink.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;carl+2B1@sink.test", "250 .*")
	c.data(text("anna@ok.test", "X: \xfc"), queuedAs)
	messages, _ := e.stored()
	m, r := messages[0], messages[0].Recipients[0]
	if m.Ret != "HDRS" || m.EnvID != "a+2Bb" || !m.EightBit || fmt.Sprint(r.Notify) != "[SUCCESS DELAY]" ||
		r.ORCPT != "rfc822;carl+2B1@sink.test" {
		t.Errorf("envelope is %+v", m)
	}
}

// What follows BDAT would be the chunk: it is not offered, and nothing behind it
// is run.
func TestChunkingIsNotOffered(t *testing.T) {
	e := startEdge(t, nil)
	c := e.dial()
	if offered := c.ask("EHLO client.test", "(?s)250-.*"); strings.Contains(offered, "CHUNKING") {
		t.Errorf("EHLO offers %s", offered)
	}
	c.envelope("anna@ok.test", "carl@sink.test")
	c.raw("BDAT 26 LAST\r\nMAIL FROM:<x@other.test>\r\nRSET\r\n")
	c.want(said(502, "5.5.1", "command-not-offered", "Command is not offered here"))
	c.ended()
	if messages, _ := e.stored(); len(messages) != 0 || strings.Contains(e.log.String(), "other.test") {
		t.Errorf("%d messages stored, want none\n%s", len(messages), e.log)
	}
}

func TestWhatIsOfferedFollowsThePolicyAndTheListener(t *testing.T) {
	const always = "250-edge.relay.test\n250-SIZE 1048576\n250-PIPELINING\n250-8BITMIME\n250-SMTPUTF8\n250-ENHANCEDSTATUSCODES\n" +
		"250-LIMITS RCPTMAX=100\n"
	for _, kind := range []Kind{Relay, Submission} {
		e := startEdge(t, func(o *setup) { o.tls, o.kind = true, kind })
		c := e.dial()
		c.ask("EHLO client.test", always+"250-STARTTLS\n250 DSN")
		c.ask("STARTTLS", "220 .*")
		c.secure(e.trust)
		c.ask("EHLO client.test", always+"250-AUTH PLAIN LOGIN\n250-REQUIRETLS\n250 DSN")
		c.ask("STARTTLS", said(503, "5.5.1", "command-sequence", "Command is not allowed at this point: TLS is there already"))
	}
	e := startEdge(t, func(o *setup) { o.tls, o.kind = true, ImplicitTLS })
	c := e.connect()
	c.secure(e.trust)
	c.want(`220 edge\.relay\.test ESMTP`)
	c.ask("EHLO client.test", always+"250-AUTH PLAIN LOGIN\n250-REQUIRETLS\n250 DSN")
	c.login("anna@ok.test", password, "235 .*")
	c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
}

func TestUserSendsOverTLSWithBothMechanisms(t *testing.T) {
	for _, kind := range []Kind{Submission, Relay} {
		t.Run(kind.String(), func(t *testing.T) {
			e := startEdge(t, func(o *setup) { o.tls, o.kind = true, kind })
			c := e.hello()
			c.startTLS(e.trust)
			c.ask("AUTH LOGIN", "334 VXNlcm5hbWU6")
			c.ask("YW5uYUBvay50ZXN0", "334 UGFzc3dvcmQ6")
			c.ask("Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==", "235 .*")
			c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
			messages, texts := e.stored()
			if messages[0].User != "anna@ok.test" || !strings.Contains(texts[0], "with ESMTPSA id ") ||
				!strings.Contains(texts[0], "(using TLS1.3 with cipher TLS_") {
				t.Errorf("stored %+v %q", messages[0], texts[0])
			}
		})
	}
}

func TestBulkMailIsRefusedByDefaultAndPassesWhereAllowedOrWatched(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	mark := "List-Unsubscribe: <https://x.test/>"
	c.mail("anna@ok.test", text("anna@ok.test", mark), `(?s)550-5\.7\.1 Newsletters and bulk mail are not relayed\n.*reason=bulk .*`)
	c.mail("anna@exempt.test", text("anna@exempt.test", mark), queuedAs)
	c.mail("anna@watched.test", text("anna@watched.test", mark), queuedAs)
	var kinds []string
	for _, event := range e.events() {
		kinds = append(kinds, string(event.Kind))
		if event.Kind == api.EdgeEventKindBulkObserved && *event.Detail != "header List-unsubscribe" {
			t.Errorf("observed %q", *event.Detail)
		}
	}
	if got := strings.Join(kinds, " "); got != "message-refused message-accepted message-accepted bulk-observed" {
		t.Errorf("events are %s", got)
	}
}

func TestUnscannedMailPassesOnlyWhereThereIsNoScannerAndThePlatformSaysSo(t *testing.T) {
	e := startEdge(t, func(o *setup) {
		o.scanner = scan.Chain{}
		o.world.settings(func(s *api.Settings) { s.AllowUnscanned = true })
	})
	e.hello().mail("anna@ok.test", text("anna@ok.test"), queuedAs)
}
