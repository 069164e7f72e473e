package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// transaction is a message with the parameters of its commands, and the code that it is to be answered with.
type transaction struct {
	want                       int
	from, params, to, toParams string
	text                       string
}

func (d *dialog) transact(m transaction) {
	d.t.Helper()
	r := d.say("MAIL FROM:<" + m.from + ">" + m.params)
	if r.code == 250 {
		r = d.say("RCPT TO:<" + m.to + ">" + m.toParams)
	}
	if r.code == 250 {
		if r = d.say("DATA"); r.code == 354 {
			r = d.say(m.text + "\r\n.")
		}
	}
	if r.code != m.want {
		d.t.Errorf("mail from %q%s to %s is answered %v, want %d", m.from, m.params, m.to, r, m.want)
	}
	if r.code != 250 {
		d.say("RSET")
	}
}

// Matrix row 47: what the relay sends by itself goes to its customers alone, whatever addresses a message names, and nobody
// answers the null sender.
func TestRow47NobodyButCustomersHearsOfMailThatFails(t *testing.T) {
	s := newStack(t)
	edge := s.addEdge()
	mx := outside(t, s)
	const stranger = "victim@stranger.example"
	own := letter("anna@example.com", "")
	lure := letter("anna@example.com", "Reply-To: <"+stranger+">\r\nSender: <"+stranger+">\r\nErrors-To: <"+stranger+">\r\nReturn-Path: <"+stranger+
		">\r\nDisposition-Notification-To: <"+stranger+">\r\nReturn-Receipt-To: <"+stranger+">\r\n")
	d := dial(t, edge.relay, "127.0.0.1")
	for _, m := range []transaction{
		// Refused mail makes nothing.
		{want: 550, from: stranger, to: "bob@example.net", text: own},
		{want: 550, from: stranger, to: "x@reject.example", toParams: " NOTIFY=SUCCESS,FAILURE", text: own},
		{want: 550, from: "anna@example.com", to: "x@reject.example", text: letter(stranger, "")},
		{want: 550, from: "", to: "x@reject.example", text: letter(stranger, "")},
		{want: 550, from: "anna@example.com", to: "x@reject.example", text: letter("anna@example.com", "From: <"+stranger+">\r\n")},
		// The null sender is never answered; nor is a notification that cannot be delivered.
		{want: 250, from: "", to: "x@reject.example", toParams: " NOTIFY=SUCCESS,FAILURE,DELAY", text: own},
		{want: 250, from: "", params: " RET=FULL", to: "bob@example.net", toParams: " NOTIFY=SUCCESS", text: own},
		{want: 250, from: "void@example.com", to: "x@reject.example", text: own},
		// A notification goes to the envelope sender, whatever else is written.
		{
			want: 250, from: "anna@example.com", params: " RET=FULL ENVID=victim+40stranger.example",
			to: "x@reject.example", toParams: " NOTIFY=FAILURE ORCPT=rfc822;victim+40stranger.example", text: lure,
		},
		{want: 250, from: "anna@example.com", to: "y@reject.example", toParams: " NOTIFY=NEVER", text: lure},
		{want: 250, from: "ben@example.com", to: "bob@example.net", toParams: " NOTIFY=SUCCESS", text: lure},
	} {
		d.transact(m)
	}
	if r := dial(t, edge.relay, "127.0.0.9").send("anna@example.com", "x@reject.example", own); r.code != 550 {
		t.Errorf("a foreign address is answered %v", r)
	}
	want := map[string]int{"anna@example.com": 1, "bob@example.net": 2}
	// An infected host invents senders of its own domain.
	for n := range 100 {
		forged := fmt.Sprintf("forged%d@example.com", n)
		d.transact(transaction{want: 250, from: forged, to: fmt.Sprintf("u%d@reject.example", n), text: lure})
		want[forged] = 1
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
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("messages by recipient (-want +got):\n%s", diff)
	}
	for _, line := range mx.Commands() {
		if strings.HasPrefix(line, "RCPT") && strings.Contains(line, "stranger.example>") {
			t.Errorf("a stranger was written to: %s", line)
		}
	}
}
