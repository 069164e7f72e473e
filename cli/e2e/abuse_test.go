package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"activerelay/relayd/relaytest"
)

// Every message is scanned by a real clamd; what it finds is refused before the 250, and without a scanner mail waits at the
// sender's.
func TestMalwareIsRefusedAndWithoutAScannerMailIsDeferred(t *testing.T) {
	sink, inbox := smtpSink(t)
	s := newStack(t)
	scanned := s.addEdge("--clamd", relaytest.Clamd(t))
	blind := s.addEdge()
	s.seed(sink)
	s.ctl("settings", "update", "--allow-unscanned=false")
	s.synced()

	infected := letter("anna@example.com", "") + string(relaytest.EICAR()) + "\r\n"
	r := dial(t, scanned.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", infected)
	s.explained(t, r, "malware", `554 5\.7\.1 Message refused: malware found \(`+regexp.QuoteMeta(relaytest.MalwareName)+`\)`)
	if r := dial(t, scanned.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", "")); r.code != 250 {
		t.Errorf("clean mail is answered %v", r)
	}
	r = dial(t, blind.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", ""))
	s.explained(t, r, "scanner-unavailable", `451 4\.7\.1 Content scanner unavailable; try again later`)
	if got := received(t, inbox, 1); len(got) != 1 || strings.Contains(string(got[0]), "EICAR") {
		t.Errorf("%d messages arrived, first:\n%s", len(got), got[0])
	}
}

// Complaints about the mail of one relay IP disable that address, and nothing else, once there are as many as the settings say;
// enabling it again is an audited act.
func TestComplaintsDisableTheGuiltyRelayIPUntilItIsEnabledAgain(t *testing.T) {
	sink, inbox := smtpSink(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink)
	s.ctl("relay-ip", "request", "--domain", "example.com", "--address", "127.0.0.5")
	s.ctl("settings", "update", "--complaint-thresholds.relay-ip", "2")
	s.synced()
	for n := range 2 {
		r := dial(t, edge.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", fmt.Sprintf("X-Number: %d\r\n", n)))
		if r.code != 250 {
			t.Fatal(r)
		}
	}
	var relayIP string
	for _, message := range received(t, inbox, 2) {
		file := filepath.Join(t.TempDir(), "report.eml")
		must(t, os.WriteFile(file, abuseReport(message), 0o600))
		var complaint struct{ Domain, ClientAddress, Sender string }
		out := s.ctl("complaint", "file", "--content-type", "message/rfc822", "-f", file, "-o", "json")
		if !strings.Contains(out, `"client_address": "127.0.0.1"`) || !strings.Contains(out, `"domain": "example.com"`) {
			t.Fatalf("complaint %+v:\n%s", complaint, out)
		}
		if match := regexp.MustCompile(`relay-ip/(rip_\w+)`).FindStringSubmatch(out); match != nil {
			relayIP = match[1]
		}
	}
	if relayIP == "" {
		t.Fatal("two complaints disabled nothing")
	}
	s.synced()
	r := dial(t, edge.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", ""))
	s.explained(t, r, "relay-disabled", `550 5\.7\.1 Relaying is disabled for .*127\.0\.0\.1.* \(abuse complaints\).*contact support@acme\.example`)
	if r := dial(t, edge.relay, "127.0.0.5").send("anna@example.com", "bob@example.net", letter("anna@example.com", "")); r.code != 250 {
		t.Errorf("another address of the domain is answered %v", r)
	}
	s.ctl("relay-ip", "enable", relayIP, "--reason", "cleaned")
	s.synced()
	if r := dial(t, edge.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", "")); r.code != 250 {
		t.Errorf("enabled again it is answered %v", r)
	}
	audit := s.ctl("audit", "list", "--object", "relay-ip/"+relayIP)
	for _, act := range []string{"fileComplaint", "enableRelayIP", "cleaned"} {
		if !strings.Contains(audit, act) && !strings.Contains(s.ctl("audit", "list", "--object", "relay-ip/"+relayIP, "-o", "json"), act) {
			t.Errorf("the audit log lacks %q:\n%s", act, audit)
		}
	}
}

// abuseReport is what a mailbox provider sends about a message (RFC 5965).
func abuseReport(message []byte) []byte {
	text := "From: <fbl@provider.example>\r\nTo: <abuse@relay.example>\r\nSubject: abuse report\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=feedback-report; boundary=\"b\"\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nThis is spam.\r\n" +
		"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: Provider/1\r\nVersion: 1\r\n\r\n" +
		"--b\r\nContent-Type: message/rfc822\r\n\r\n" + strings.ReplaceAll(strings.ReplaceAll(string(message), "\r\n", "\n"), "\n", "\r\n") + "\r\n--b--\r\n"
	return []byte(text)
}
