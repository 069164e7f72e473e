package e2e

import (
	"fmt"
	"strings"
	"testing"

	"activerelay/relayd/relaytest"
)

// outside is everything outside the relay in one server: whatever leaves the edge goes to it, whoever it is for. It refuses
// recipients in reject.example, and those that are called void.
func outside(t *testing.T, s *stack) *relaytest.MX {
	t.Helper()
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers, Decide: func(step relaytest.Step) (relaytest.Action, bool) {
		no := strings.HasSuffix(step.Address, "@reject.example") || strings.HasPrefix(step.Address, "void@")
		return relaytest.Say("550 5.1.1 no such mailbox"), no && step.Stage == relaytest.StageRcpt
	}})
	s.seed(mx.Addr().String())
	s.ctl("route", "create", "--host", "127.0.0.1", "--port", port(mx.Addr().String()), "--tls", "none")
	s.ctl("settings", "update", "--quota-floor", "100000")
	s.synced()
	return mx
}

// Matrix row 47: what the relay sends by itself goes to its customers alone, whatever addresses a message names, and nobody
// answers the null sender.
func TestRow47NobodyButCustomersHearsOfMailThatFails(t *testing.T) {
	s := newStack(t)
	edge := s.addEdge()
	mx := outside(t, s)
	const stranger = "victim@stranger.example"
	d := dial(t, edge.relay, "127.0.0.1")
	try := func(want int, from, params, to, toParams, message string) {
		t.Helper()
		r := d.say("MAIL FROM:<" + from + ">" + params)
		if r.code == 250 {
			r = d.say("RCPT TO:<" + to + ">" + toParams)
		}
		if r.code == 250 {
			if r = d.say("DATA"); r.code == 354 {
				r = d.say(message + "\r\n.")
			}
		}
		if r.code != want {
			t.Errorf("mail from %q%s to %s is answered %v, want %d", from, params, to, r, want)
		}
		if r.code != 250 {
			d.say("RSET")
		}
	}
	own := letter("anna@example.com", "")
	lure := letter("anna@example.com", "Reply-To: <"+stranger+">\r\nSender: <"+stranger+">\r\nErrors-To: <"+stranger+">\r\nReturn-Path: <"+stranger+
		">\r\nDisposition-Notification-To: <"+stranger+">\r\nReturn-Receipt-To: <"+stranger+">\r\n")

	// Refused mail makes nothing.
	try(550, stranger, "", "bob@example.net", "", own)
	try(550, stranger, "", "x@reject.example", " NOTIFY=SUCCESS,FAILURE", own)
	try(550, "anna@example.com", "", "x@reject.example", "", letter(stranger, ""))
	try(550, "", "", "x@reject.example", "", letter(stranger, ""))
	try(550, "anna@example.com", "", "x@reject.example", "", letter("anna@example.com", "From: <"+stranger+">\r\n"))
	foreign := dial(t, edge.relay, "127.0.0.9").send("anna@example.com", "x@reject.example", own)
	if foreign.code != 550 {
		t.Errorf("a foreign address is answered %v", foreign)
	}
	// The null sender is never answered; nor is a notification that cannot be delivered.
	try(250, "", "", "x@reject.example", " NOTIFY=SUCCESS,FAILURE,DELAY", own)
	try(250, "", " RET=FULL", "bob@example.net", " NOTIFY=SUCCESS", own)
	try(250, "void@example.com", "", "x@reject.example", "", own)
	// A notification goes to the envelope sender, whatever else is written.
	try(250, "anna@example.com", " RET=FULL ENVID=victim+40stranger.example", "x@reject.example", " NOTIFY=FAILURE ORCPT=rfc822;victim+40stranger.example", lure)
	try(250, "anna@example.com", "", "y@reject.example", " NOTIFY=NEVER", lure)
	try(250, "ben@example.com", "", "bob@example.net", " NOTIFY=SUCCESS", lure)
	// An infected host invents senders of its own domain.
	const flood = 100
	for n := range flood {
		try(250, fmt.Sprintf("forged%d@example.com", n), "", fmt.Sprintf("u%d@reject.example", n), "", lure)
	}
	eventually(t, "an empty queue", func() bool { return edge.metric(t, "relayd_queue_messages") == 0 })

	told := map[string]int{}
	for _, m := range mx.Messages() {
		if m.From != "" && m.From != "ben@example.com" {
			t.Errorf("mail of %s arrived at %v", m.From, m.Addresses())
		}
		for _, to := range m.Addresses() {
			told[to]++
		}
	}
	want := map[string]int{"anna@example.com": 1, "bob@example.net": 2}
	for n := range flood {
		want[fmt.Sprintf("forged%d@example.com", n)] = 1
	}
	for to, n := range told {
		if n != want[to] {
			t.Errorf("%s got %d messages, want %d", to, n, want[to])
		}
	}
	for to := range want {
		if told[to] == 0 {
			t.Errorf("%s got nothing", to)
		}
	}
	for _, line := range mx.Commands() {
		if strings.HasPrefix(line, "RCPT") && strings.Contains(line, "stranger.example>") {
			t.Errorf("a stranger was written to: %s", line)
		}
	}
}
