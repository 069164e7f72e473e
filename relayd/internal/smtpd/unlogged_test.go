package smtpd

import (
	"bufio"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
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

// tellSums has told what the minute that is over left out.
func (e *edge) tellSums() {
	e.server.strangers.tellSums()
	e.server.customers.tellSums()
}

func TestAStrangerThatHammersHasTwentyLinesForAReasonAndOneThatSaysHowManyAreLeftOut(t *testing.T) {
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
		if counted := e.counted("relayd_smtp_refused_total", string(slug)); len(lines) != linesInSession || int(counted) != all {
			t.Errorf("%s: %d lines, %v counted, want %d and %d", slug, len(lines), counted, linesInSession, all)
		}
	}
	want := fmt.Sprintf(`client=127.0.0.1 unlogged="%d ip-not-allowed, 5 sender-domain-unknown"`, many-linesInSession)
	if end := e.lines(tooOften); len(end) != 1 || !strings.Contains(end[0], want) {
		t.Errorf("when the edge goes down %q, want one with %s", end, want)
	}
	if unlogged := e.counted("relayd_smtp_refusals_unlogged_total", ""); unlogged != many-linesInSession+5 {
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
	for range linesInSession {
		c.ask("MAIL FROM:<anna@nobody.test>", "250 .*")
		c.ask("RCPT TO:<c@sink.test>", `(?s)550-.*`)
		c.ask("RSET", "250 .*")
	}
	c.ask("QUIT", "221 .*")
	c.ended()
	e.must(e.server.Shutdown(t.Context()))
	if log := e.log.String(); len(e.lines(rejected)) != linesInSession || strings.Contains(log, tooOften) {
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
			for range linesInSession + 1 {
				_ = ses.refuse(refusal{stage: reason.StageMail, slug: reason.AuthRequired})
			}
			e.must(ses.Logout())
		}
		e.tellSums()
	}
	lines := func(address string) int { return len(e.lines(`client=` + address + ` `)) }
	hammer("192.0.2.1", 10)
	hammer("192.0.2.2", 1)
	const alarm = `level=WARN msg="an address is refused more often than is logged" client=192.0.2.1 `
	a, b, told, summed := lines("192.0.2.1"), lines("192.0.2.2"), len(e.lines(alarm)), len(e.lines("client=192.0.2.1 unlogged="))
	if a != linesOfStrangers+told+summed || b != linesInSession+1 || told != 1 || summed != 1 {
		t.Errorf("%d lines of the one, %d of the other, %d that tell the operator, %d sums; want %d, %d, 1, 1\n%s", a, b, told, summed,
			linesOfStrangers+2, linesInSession+1, e.log)
	}
	const unlogged = 10*(linesInSession+1) - linesOfStrangers
	if counted := int(e.counted("relayd_smtp_refusals_unlogged_total", "")); counted != unlogged+1 {
		t.Errorf("%d are counted to have no line, want %d", counted, unlogged+1)
	}
	now = now.Add(time.Minute)
	before := lines("192.0.2.1")
	hammer("192.0.2.1", 1)
	if got := lines("192.0.2.1") - before; got != linesInSession+1 {
		t.Errorf("%d lines in the next minute", got)
	}
	for i, n := range []int{unlogged, 1, 1} {
		if sums := e.lines(tooOften); len(sums) != 3 || !strings.Contains(sums[i], fmt.Sprintf(`unlogged="%d auth-required"`, n)) {
			t.Errorf("sums are %q, want number %d with %d", sums, i, n)
		}
	}
}

// What a domain's own mail is refused for is looked for by its postmaster: an incident is logged whole. But a server that comes
// again and again with the same mail must not fill the disk.
func TestACustomerThatReconnectsForEverHasAThousandLinesAMinuteAndOneThatSaysHowManyAreLeftOut(t *testing.T) {
	const each, connections = 300, 6
	e := startEdge(t, nil)
	now := time.Now()
	e.server.Now = func() time.Time { return now }
	refused := func(name string, times int) {
		domain, _ := e.world.view().Table.Domain(name)
		ses := &session{server: e.server, peer: netip.MustParseAddr("192.0.2.1")}
		for range times {
			_ = ses.refuse(refusal{stage: reason.StageRcpt, slug: reason.RecipientAddressBad, domain: domain})
		}
		e.must(ses.Logout())
	}
	for range connections {
		refused("ok.test", each)
	}
	const alarm = `level=WARN msg="mail of a domain is refused more often than is logged" domain=ok.test `
	lines, events, told := len(e.lines(rejected)), len(e.events()), len(e.lines(alarm))
	if lines != linesOfCustomers || events != eventsOfCustomers || told != 1 {
		t.Errorf("%d lines, %d events and %d warnings, want %d, %d and 1", lines, events, told, linesOfCustomers, eventsOfCustomers)
	}
	e.tellSums()
	sum := fmt.Sprintf(`partner=acme domain=ok.test from=<> unlogged="%d recipient-address-bad"`, each*connections-linesOfCustomers)
	if sums := e.lines(tooOften); len(sums) != 1 || !strings.Contains(sums[0], sum) {
		t.Errorf("the sums are %q, want one with %s", sums, sum)
	}
	refused("other.test", 1) // has lines of its own
	now = now.Add(time.Minute)
	refused("ok.test", 1)
	if more := len(e.lines(rejected)) - lines; more != 2 {
		t.Errorf("%d lines of another domain and of the next minute, want 2", more)
	}
	e.tellSums()
	if sums := e.lines(tooOften); len(sums) != 1 {
		t.Errorf("a minute later %q, want no more", sums)
	}
}

// A burst may be followed by silence, over the connection that it came by or over any: nobody is needed for the sums to be told.
func TestWhatABurstLeftOutIsToldWithinAMinuteWhoeverComesAfterIt(t *testing.T) {
	e := startEdge(t, nil)
	domain, _ := e.world.view().Table.Domain("ok.test")
	synctest.Test(t, func(t *testing.T) {
		customer := &session{server: e.server, peer: netip.MustParseAddr("192.0.2.1")}
		stranger := &session{server: e.server, peer: netip.MustParseAddr("2001:db8::1")}
		burst := func() {
			for range linesOfCustomers + 1 {
				_ = customer.refuse(refusal{stage: reason.StageRcpt, slug: reason.RecipientAddressBad, domain: domain, quiet: true})
				_ = stranger.refuse(refusal{stage: reason.StageRcpt, slug: reason.IPNotAllowed, quiet: true})
			}
		}
		for round := 1; round <= 2; round++ {
			burst()
			time.Sleep(sumEvery - time.Millisecond)
			synctest.Wait()
			if sums := e.lines(tooOften); len(sums) != 2*round-2 {
				t.Errorf("before the minute of burst %d was over there were %q", round, sums)
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			sums := e.lines(tooOften)
			if len(sums) != 2*round || !strings.Contains(sums[2*round-2]+sums[2*round-1], "domain=ok.test ") ||
				!strings.Contains(sums[2*round-2]+sums[2*round-1], "client=2001:db8:: ") {
				t.Errorf("after the minute of burst %d there are %q, want one more of the domain and of the address", round, sums)
			}
		}
		burst()
		e.must(e.server.Shutdown(t.Context()))
	})
	if sums := e.lines(tooOften); len(sums) != 6 {
		t.Errorf("when the edge has gone down there are %q, want two more", sums)
	}
}

func TestASessionThatSendsForSeveralDomainsSaysHowManyAreLeftOutOfEach(t *testing.T) {
	e := startEdge(t, nil)
	now := time.Now()
	e.server.Now = func() time.Time { return now }
	ses := &session{server: e.server, peer: netip.MustParseAddr("192.0.2.1")}
	for i, name := range []string{"ok.test", "other.test"} {
		domain, _ := e.world.view().Table.Domain(name)
		for range linesOfCustomers + i + 1 {
			_ = ses.refuse(refusal{stage: reason.StageRcpt, slug: reason.RecipientAddressBad, domain: domain})
		}
	}
	e.tellSums()
	sums := strings.Join(e.lines(tooOften), "")
	for _, want := range []string{`domain=ok.test from=<> unlogged="1 rec`, `domain=other.test from=<> unlogged="2 rec`} {
		if strings.Count(sums, want) != 1 {
			t.Errorf("%q, want one with %s", sums, want)
		}
	}
}

func TestWhatIsRememberedOfRefusalsIsBounded(t *testing.T) {
	told := 0
	s := newShare(1, 1, func(string, string) { told++ })
	defer s.end()
	for i := range 3 * maxLeftOut {
		s.leaveOut(fmt.Sprint(i), reason.IPNotAllowed)
	}
	if n := len(s.leftOut); n > maxLeftOut {
		t.Errorf("%d sums are kept, want at most %d", n, maxLeftOut)
	}
	if s.tellSums(); told == 0 || told > maxLeftOut || len(s.leftOut) != 0 {
		t.Errorf("%d sums are told, %d are kept after that", told, len(s.leftOut))
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
				for range eventsOfStrangers / 4 {
					_ = ses.refuse(r)
				}
				e.must(ses.Logout())
			}
			e.tellSums()
			if lines, sums := len(e.lines(rejected)), len(e.lines(tooOften)); lines != linesOfStrangers || sums != 1 {
				t.Errorf("%d lines and %d sums, want %d and 1", lines, sums, linesOfStrangers)
			}
			if events := len(e.events()); events != eventsOfStrangers {
				t.Errorf("%d events, want %d", events, eventsOfStrangers)
			}
		})
	}
	// A user of the domain is no stranger.
	r := refusal{stage: reason.StageRcpt, slug: reason.PolicyStale, userDomain: "ok.test", domain: new(policy.Domain)}
	if own := r.ownDomain(); own != "ok.test" {
		t.Errorf("a user of ok.test is counted to %q", own)
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
	if lines := len(e.lines("reason=too-many-recipients")); lines != linesInSession {
		t.Errorf("%d lines, want %d", lines, linesInSession)
	}
}
