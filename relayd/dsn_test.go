package relayd_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// RFC 3461 5.2 and 6.2 on the wire: the sender's wishes go on to a server that
// takes them over, and are met here for one that does not.
func TestSendersAreToldOfWhatTheyAskedForAndNobodyElseTells(t *testing.T) {
	w := newWorld(t)
	refused := map[relaytest.Stage]relaytest.Action{relaytest.StageRcpt: relaytest.Say("550 5.1.1 unknown")}
	later := map[relaytest.Stage]relaytest.Action{relaytest.StageRcpt: relaytest.Say("450 4.2.0 later")}
	servers := map[string]*relaytest.MX{
		"plain.test":   relaytest.StartMX(t, relaytest.Script{}),
		"dsn.test":     relaytest.StartMX(t, relaytest.Script{Extensions: []string{"DSN"}}),
		"refuses.test": relaytest.StartMX(t, relaytest.Script{Extensions: []string{"DSN"}, On: refused}),
		"later.test":   relaytest.StartMX(t, relaytest.Script{On: later}),
		"example.com":  relaytest.StartMX(t, relaytest.Script{}), // the sender's own mailbox
	}
	for domain, mx := range servers {
		w.call("POST", "/v1/routes", fmt.Sprintf(`{"domain":"example.com","recipient_domain":%q,"host":"127.0.0.1","port":%d,"tls":"none"}`, domain, mx.Port()), nil)
	}
	inbox := servers["example.com"]
	w.call("POST", "/v1/routes", fmt.Sprintf(`{"recipient_domain":"example.com","host":"127.0.0.1","port":%d,"tls":"none"}`, inbox.Port()), nil)
	e := w.addEdge(nil)
	w.enforces(e)
	send := func(rcpt, params string) {
		t.Helper()
		d := dial(t, e.Relay)
		defer d.close()
		for _, line := range []string{"MAIL FROM:<anna@example.com> RET=HDRS ENVID=Q+2B1", "RCPT TO:<" + rcpt + ">" + params, "DATA"} {
			if r := d.say(line); r[0] != '2' && r[0] != '3' {
				t.Fatalf("%s: %q", line, r)
			}
		}
		if r := d.say("From: anna@example.com\r\nSubject: told\r\n\r\nhello\r\n."); !strings.HasPrefix(r, "250 ") {
			t.Fatalf("reply %q", r)
		}
	}
	send("success@plain.test", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bone@plain.test")
	send("silent@plain.test", "")
	send("success@dsn.test", " NOTIFY=SUCCESS ORCPT=rfc822;first@dsn.test")
	send("default@refuses.test", "")
	send("never@refuses.test", " NOTIFY=NEVER")
	send("success@refuses.test", " NOTIFY=SUCCESS")
	send("delay@later.test", " NOTIFY=DELAY")
	send("failure@later.test", " NOTIFY=FAILURE")
	eventually(t, "the first notifications", func() bool { return len(inbox.Messages()) == 2 })
	eventually(t, "the first attempts", func() bool { return strings.Count(strings.Join(servers["later.test"].Commands(), "\n"), "RCPT") == 2 })
	w.advance(5 * time.Hour)
	e = w.restart(e) // a queue that sleeps does not see the clock jump
	eventually(t, "the notification of the delay", func() bool { return len(inbox.Messages()) == 3 })
	e.Stop()

	var told []string
	for _, m := range inbox.Messages() {
		if m.From != "" {
			t.Errorf("a notification from %q", m.From)
		}
		told = append(told, brief(t, string(m.Body)))
	}
	slices.Sort(told)
	want := []string{
		"delayed 4.2.0 delay@later.test", "failed 5.1.1 default@refuses.test",
		"relayed 2.0.0 success@plain.test (first+one@plain.test)",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	passed := servers["dsn.test"].Messages()[0]
	if got, want := passed.FromParams+" / "+passed.Recipients[0].Params, "RET=HDRS ENVID=Q+2B1 / NOTIFY=SUCCESS ORCPT=rfc822;first@dsn.test"; got != want {
		t.Errorf("passed on %q, want %q", got, want)
	}
}

// brief is what a notification says of its recipient.
func brief(t *testing.T, text string) string {
	t.Helper()
	field := func(name string) string {
		_, rest, _ := strings.Cut(text, "\r\n"+name+": ")
		value, _, _ := strings.Cut(rest, "\r\n")
		return strings.TrimPrefix(value, "rfc822; ")
	}
	if field("Original-Envelope-Id") != "Q+1" || strings.Contains(text, "\r\nhello\r\n") {
		t.Errorf("not of the envelope Q+1, or with the text that was not to be returned:\n%s", text)
	}
	out := field("Action") + " " + field("Status") + " " + field("Final-Recipient")
	if original := field("Original-Recipient"); original != "" {
		out += " (" + original + ")"
	}
	return out
}
