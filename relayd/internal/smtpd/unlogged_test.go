package smtpd

import (
	"bufio"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"activerelay/api/policy"
	"activerelay/api/reason"
)

// lines are those of the log that have a text.
func (e *edge) lines(text string) (found []string) {
	for line := range strings.Lines(e.log.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

const (
	rejected = " msg=rejected "
	tooOften = ` msg="rejected too often" `
)

func TestAStrangerThatHammersHasTwentyLinesForAReasonAndOneAtTheEnd(t *testing.T) {
	const many = 10_000
	e := startEdge(t, stale) // permanent refusals would end the connection soon
	c := e.hello()
	e.must(c.conn.SetDeadline(time.Now().Add(10 * patience)))
	c.ask("MAIL FROM:<anna@elsewhere.test>", "250 .*")
	go func() {
		w := bufio.NewWriter(c.conn)
		for i := range many {
			fmt.Fprintf(w, "RCPT TO:<c%d@sink.test>\r\n", i)
		}
		_ = w.Flush() // the replies are missing then
	}()
	for range many {
		got, err := c.reply()
		e.must(err)
		if !strings.Contains(got, "reason=ip-not-allowed ref=") {
			t.Fatalf("got %q", got)
		}
	}
	for range 25 { // each of them another decision
		c.ask("RSET", "250 .*")
		c.ask("MAIL FROM:<anna@nobody.test>", "250 .*")
		c.ask("RCPT TO:<c@sink.test>", `(?s)451-.*reason=sender-domain-unknown ref=.*`)
	}
	c.ask("QUIT", "221 .*")
	c.ended()
	e.must(e.server.Shutdown(t.Context()))
	for slug, all := range map[reason.Slug]int{reason.IPNotAllowed: many, reason.SenderDomainUnknown: 25} {
		lines := e.lines("reason=" + string(slug) + " ref=")
		if counted := e.counted("relayd_smtp_refused_total", string(slug)); len(lines) != linesOfStrangers || int(counted) != all {
			t.Errorf("%s: %d lines, %v counted, want %d and %d", slug, len(lines), counted, linesOfStrangers, all)
		}
	}
	want := fmt.Sprintf(`client=127.0.0.1 unlogged="%d ip-not-allowed, 5 sender-domain-unknown"`, many-linesOfStrangers)
	if end := e.lines(tooOften); len(end) != 1 || !strings.Contains(end[0], want) {
		t.Errorf("at the end %q, want one with %s", end, want)
	}
	if unlogged := e.counted("relayd_smtp_refusals_unlogged_total", ""); unlogged != many-linesOfStrangers+5 {
		t.Errorf("%v are counted to have no line", unlogged)
	}
	// What has no line is told to the control plane all the same: there are not too many for that.
	if events := e.events(); len(events) != 1+25 {
		t.Errorf("%d events, want one for each decision", len(events))
	}
}

// The session that is refused little has no line at the end.
func TestASessionThatIsNotRefusedTooOftenEndsWithoutALine(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	for range linesOfStrangers {
		c.ask("MAIL FROM:<anna@nobody.test>", "250 .*")
		c.ask("RCPT TO:<c@sink.test>", `(?s)550-.*`)
		c.ask("RSET", "250 .*")
	}
	c.ask("QUIT", "221 .*")
	c.ended()
	e.must(e.server.Shutdown(t.Context()))
	if log := e.log.String(); len(e.lines(rejected)) != linesOfStrangers || strings.Contains(log, tooOften) {
		t.Errorf("the log:\n%s", log)
	}
}

func TestAnAddressThatHammersOverManyConnectionsHasSomeLinesAMinute(t *testing.T) {
	e := startEdge(t, nil)
	now := time.Now()
	e.server.Now = func() time.Time { return now }
	hammer := func(address string, connections int) {
		for range connections {
			ses := &session{server: e.server, peer: netip.MustParseAddr(address)}
			for range linesOfStrangers + 1 {
				_ = ses.refuse(refusal{stage: reason.StageMail, slug: reason.AuthRequired})
			}
			e.must(ses.Logout())
		}
	}
	lines := func(address string) int { return len(e.lines(`client=` + address + ` `)) }
	hammer("192.0.2.1", 10)
	hammer("192.0.2.2", 1)
	const alarm = `level=WARN msg="an address is refused more often than is logged" client=192.0.2.1 `
	if a, b, told := lines("192.0.2.1"), lines("192.0.2.2"), len(e.lines(alarm)); a != linesPerMinute+told || b != linesOfStrangers+1 || told != 1 {
		t.Errorf("%d lines of the one, %d of the other, %d that tell the operator; want %d, %d, 1\n%s",
			a, b, told, linesPerMinute+1, linesOfStrangers+1, e.log)
	}
	if unlogged := int(e.counted("relayd_smtp_refusals_unlogged_total", "")); unlogged < 10*21+21-2*linesPerMinute {
		t.Errorf("%d are counted to have no line", unlogged)
	}
	now = now.Add(time.Minute)
	before := lines("192.0.2.1")
	hammer("192.0.2.1", 1)
	if got := lines("192.0.2.1") - before; got != linesOfStrangers+1 {
		t.Errorf("%d lines in the next minute", got)
	}
}

// What a domain's own mail is refused for is looked for by its postmaster.
func TestRefusalsOfACustomerHaveManyLinesAndNoMoreEventsThanLines(t *testing.T) {
	const many = linesOfCustomers + 200
	e := startEdge(t, nil)
	domain, _ := e.world.view().Table.Domain("ok.test")
	ses := &session{server: e.server, peer: netip.MustParseAddr("192.0.2.1"), partner: "acme"}
	e.server.joinPartner("acme")
	for range many {
		_ = ses.refuse(refusal{stage: reason.StageRcpt, slug: reason.RecipientAddressBad, domain: domain})
	}
	e.must(ses.Logout())
	if lines, events := len(e.lines(rejected)), len(e.events()); lines != linesOfCustomers || events != linesOfCustomers {
		t.Errorf("%d lines and %d events, want %d of each", lines, events, linesOfCustomers)
	}
	if end := e.lines(tooOften); len(end) != 1 || !strings.Contains(end[0], "200 recipient-address-bad") {
		t.Errorf("at the end %q", end)
	}
}

// Who guesses a user's passwords is no customer, nor is who names a domain of which it is not known who may send for it.
func TestAStrangerWhoNamesADomainHasNoMoreLinesAndEventsThanAnyOther(t *testing.T) {
	for name, r := range map[string]refusal{
		"turned away at AUTH": {stage: reason.StageAuth, slug: reason.RateLimited, login: "anna@ok.test"},
		"domain not readable": {stage: reason.StageRcpt, slug: reason.PolicyStale},
	} {
		t.Run(name, func(t *testing.T) {
			e := startEdge(t, nil)
			now := time.Now()
			e.server.Now = func() time.Time { return now }
			r.domain, _ = e.world.view().Table.Domain("ok.test")
			for range 5 {
				ses := &session{server: e.server, peer: netip.MustParseAddr("192.0.2.1")}
				for range noisePerMinute / 4 {
					_ = ses.refuse(r)
				}
				e.must(ses.Logout())
			}
			if lines := len(e.lines(rejected)) + len(e.lines(tooOften)); lines != linesPerMinute {
				t.Errorf("%d lines, want %d", lines, linesPerMinute)
			}
			if events := len(e.events()); events != noisePerMinute {
				t.Errorf("%d events, want %d", events, noisePerMinute)
			}
		})
	}
	// A user of the domain is no stranger.
	r := refusal{stage: reason.StageRcpt, slug: reason.PolicyStale, login: "anna@ok.test", domain: new(policy.Domain)}
	if r.ofStranger() {
		t.Error("a user is a stranger")
	}
}

// Each refusal of one decision has the same reference, which the log has.
func TestADecisionThatIsRepeatedHasNoMoreLinesForACustomerThanForAStranger(t *testing.T) {
	e := startEdge(t, nil)
	c := e.hello()
	c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
	for i := range 130 {
		c.ask(fmt.Sprintf("RCPT TO:<c%d@sink.test>", i), "(?s).*")
	}
	c.ask("QUIT", "221 .*")
	c.ended()
	e.must(e.server.Shutdown(t.Context()))
	if lines := len(e.lines("reason=too-many-recipients")); lines != linesOfStrangers {
		t.Errorf("%d lines, want %d", lines, linesOfStrangers)
	}
}
