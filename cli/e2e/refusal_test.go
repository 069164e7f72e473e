package e2e

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// Each refusal has its exact reply on the wire, an entry of the reason registry, and a reference that the API explains.
func TestEveryRefusalOfAClientByAddressSaysWhyAndCanBeLookedUp(t *testing.T) {
	sink, _ := smtpSink(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink)
	s.ctl("domain", "put", "paused.example", "--partner", "acme")
	s.ctl("relay-ip", "request", "--domain", "paused.example", "--address", "127.0.0.1")
	s.ctl("domain", "suspend", "paused.example", "--reason", "contract ended", "--yes")
	var ip struct{ ID string }
	s.ctlJSON(&ip, "relay-ip", "request", "--domain", "example.com", "--address", "127.0.0.3")
	s.ctl("relay-ip", "disable", ip.ID, "--reason", "infected host", "--yes")
	s.synced()

	for _, test := range []struct {
		name, client, from, header, message string
		reason, reply                       string
	}{
		{name: "unknown sender domain", client: "127.0.0.1", from: "x@unknown.example", reason: "sender-domain-unknown", reply: `550 5\.7\.1 Sender domain unknown\.example is not registered for relaying`},
		{name: "wrong client", client: "127.0.0.2", from: "anna@example.com", reason: "ip-not-allowed", reply: `550 5\.7\.1 Relaying denied: client address 127\.0\.0\.2 is not active for example\.com; contact support@acme\.example`},
		{name: "suspended domain", client: "127.0.0.1", from: "x@paused.example", reason: "relay-suspended", reply: `450 4\.7\.1 Relaying is suspended for paused\.example.*`},
		{name: "disabled relay IP", client: "127.0.0.3", from: "anna@example.com", reason: "ip-not-allowed", reply: `550 5\.7\.1 Relaying denied: client address 127\.0\.0\.3 is not active for example\.com; contact support@acme\.example`},
		{name: "newsletter", client: "127.0.0.1", from: "anna@example.com", header: "List-Unsubscribe: <https://example.com/u>\r\n", reason: "bulk", reply: `550 5\.7\.1 Newsletters and bulk mail are not relayed.*`},
		{name: "foreign header From", client: "127.0.0.1", from: "anna@example.com", message: letter("boss@other.example", ""), reason: "sender-domain-unknown", reply: `550 5\.7\.1 Sender domain other\.example is not registered for relaying`},
		{name: "bad address", client: "127.0.0.1", from: `"a b"@example.com`, reason: "sender-address-bad", reply: `553 5\.1\.7 .*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			message := test.message
			if message == "" {
				message = letter(test.from, test.header)
			}
			r := dial(t, edge.relay, test.client).send(test.from, "bob@example.net", message)
			s.explained(t, r, test.reason, test.reply)
		})
	}
}

// explained checks a refusal on the wire, then in the registry, then by its reference.
func (s *stack) explained(t *testing.T, r reply, reason, pattern string) {
	t.Helper()
	if !regexp.MustCompile("^" + pattern + "$").MatchString(r.first()) {
		t.Errorf("reply  %s\nwant   %s", r.first(), pattern)
	}
	slug, ref := r.reference()
	if slug != reason || ref == "" {
		t.Fatalf("machine line of %v names %q and reference %q, want reason %q", r, slug, ref, reason)
	}
	if registry := s.ctl("reason", "list", "--jq", ".items[].slug"); !strings.Contains("\n"+registry, "\n"+reason+"\n") {
		t.Errorf("the registry lacks %q", reason)
	}
	var decision struct{ Reason, Reply, Explanation string }
	eventually(t, "an explanation of "+ref, func() bool {
		out, _, code := s.ctlExit("decision", "show", ref, "-o", "json")
		return code == 0 && json.Unmarshal([]byte(out), &decision) == nil
	})
	if decision.Reason != reason || decision.Explanation == "" {
		t.Errorf("decision %+v", decision)
	}
}
