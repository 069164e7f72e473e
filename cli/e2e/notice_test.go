package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The domain's contacts hear once at 80 % and once at the limit, from the relay itself, and neither mail is charged.
func TestTheContactsHearOnceAtEightyPercentAndOnceAtTheLimit(t *testing.T) {
	sink, inbox := smtpSink(t)
	dns := nameServer(t, map[string]string{"example.com": "@ MX 10 mx\nmx A 127.0.0.1\n"})
	s := newStack(t)
	edge := s.addEdge("--resolver", dns, "--mx-port", port(sink))
	s.seed(sink)
	s.ctl("settings", "update", "--notice-from", "postmaster@relay.example")
	s.ctl("quota", "override", "set", "example.com", "--limit", "10", "--reason", "test of the notices", "--expires-at", "2099-01-01T00:00:00Z")
	s.synced()
	send := func(n int) {
		for range n {
			dial(t, edge.relay, "127.0.0.1").send("anna@example.com", "bob@example.net", letter("anna@example.com", ""))
		}
	}
	notices := func() (found []string) {
		for _, message := range received(t, inbox, 1) {
			if strings.Contains(string(message), "X-Rcpt-Args: <admin@example.com>") {
				found = append(found, string(message))
			}
		}
		return found
	}
	send(8)
	eventually(t, "a notice at 80 %", func() bool { return len(notices()) == 1 })
	if text := notices()[0]; !strings.Contains(text, "8 of 10") || !strings.Contains(text, "postmaster@relay.example") || !strings.Contains(text, "X-Mail-Args: <>") {
		t.Errorf("the notice at 80 %%:\n%s", text)
	}
	send(4)
	eventually(t, "a notice at the limit", func() bool { return len(notices()) >= 2 })
	send(2)
	var quota struct{ Used int64 }
	eventually(t, "refusals of twelve, thirteen and fourteen", func() bool {
		s.ctlJSON(&quota, "quota", "show", "example.com")
		return quota.Used == 10
	})
	if found := notices(); len(found) != 2 {
		t.Errorf("%d notices, want two:\n%s", len(found), strings.Join(found, "\n\n"))
	}
}

// A file says what should be; the plan says what is to be done for that; the second time nothing is.
func TestApplyMakesThePlatformBeAsTheFileSaysAndIsSafeToRepeat(t *testing.T) {
	s := newStack(t)
	file := filepath.Join(s.dir, "customers.yaml")
	write := func(users int) {
		must(t, os.WriteFile(file, []byte(fmt.Sprintf(`partners:
  - {slug: acme, name: Acme IT, support_contact: support@acme.example}
domains:
  - {name: example.com, partner: acme, licensed_users: %d, time_zone: Europe/Berlin, contacts: [admin@example.com]}
relay_ips:
  - {domain: example.com, address: 192.0.2.10, state: active}
routes:
  - {domain: example.com, host: smarthost.example, port: 587}
users:
  - {address: anna@example.com, aliases: [sales@example.com]}
`, users)), 0o600))
	}
	write(40)
	plan := s.ctl("apply", "-f", file, "--dry-run")
	if _, _, code := s.ctlExit("domain", "show", "example.com"); code != 3 {
		t.Fatalf("a dry run made the domain (exit %d); plan:\n%s", code, plan)
	}
	s.ctl("apply", "-f", file, "--yes")
	if again := s.ctl("apply", "-f", file, "--yes"); strings.Contains(again, "create") || strings.Contains(again, "change ") {
		t.Errorf("the second time there is something to do:\n%s", again)
	}
	write(60)
	s.ctl("apply", "-f", file, "--yes")
	var domain struct{ Limit int64 }
	s.ctlJSON(&domain, "domain", "show", "example.com")
	if domain.Limit != 3000 {
		t.Errorf("60 licensed users give a limit of %d, want 3000", domain.Limit)
	}
	var ips struct{ Items []struct{ State string } }
	s.ctlJSON(&ips, "relay-ip", "list", "--domain", "example.com")
	if len(ips.Items) != 1 || ips.Items[0].State != "active" {
		t.Errorf("relay IPs %+v", ips)
	}
}
