package relayd_test

import (
	"strings"
	"testing"

	"activerelay/relayd"
)

func TestMailLeavesFromTheSourceAddressThatIsSetUnderItsName(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(func(c *relayd.Config) { c.SourceAddresses = []string{"127.0.0.77=Out4.relay.example"} })
	if r := send(t, e.Relay, "anna@example.com", "from there"); !strings.HasPrefix(r, "250 2.0.0 ") {
		t.Fatalf("reply %q", r)
	}
	m := w.mx.WaitMessages(t.Context(), t, 1)[0]
	if m.Client.String() != "127.0.0.77" || m.Helo != "out4.relay.example" {
		t.Errorf("mail came from %s as %q", m.Client, m.Helo)
	}
}

// Where the edge takes mail is never a way out, though the platform allows the network.
func TestRow21AnEdgeThatIsItsOwnSmarthostKeepsTheMailAndSaysWhy(t *testing.T) {
	w := newWorld(t)
	log := &lines{}
	e := w.addEdge(func(c *relayd.Config) { c.MailLog = log })
	w.routeTo(e, "own.test")
	w.enforces(e)
	d := dial(t, e.Relay)
	defer d.close()
	d.say("MAIL FROM:<anna@example.com>")
	d.say("RCPT TO:<bob@own.test>")
	d.say("DATA")
	if r := d.say("From: anna@example.com\r\nSubject: to us\r\n\r\nhello\r\n."); !strings.HasPrefix(r, "250 2.0.0 ") {
		t.Fatalf("reply %q", r)
	}
	eventually(t, "the message to wait", func() bool {
		return log.has("msg=deferred", "4.4.6", "leads back to this relay")
	})
	if n := len(w.mx.Messages()); n != 0 {
		t.Errorf("%d messages left", n)
	}
}
