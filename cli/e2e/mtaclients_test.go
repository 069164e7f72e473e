package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"activerelay/relayd/relaytest"
)

// submitter is a customer's mail server.
type submitter interface {
	submit(t *testing.T, from, to string, message []byte)
	log(t *testing.T) string
}

// A customer's Postfix and Exim send awkward messages: what arrives through the edge is byte for byte what the same mail server
// hands to a server that changes nothing, below the fields that the edge adds.
func TestRow13WhatMailServersSendThroughTheEdgeIsWhatTheySendDirectly(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, edge, direct string) submitter{
		"postfix": func(t *testing.T, edge, direct string) submitter {
			return startPostfix(t, "relayhost = [127.0.0.1]:"+port(edge),
				"transport_maps = inline:{ {direct.example = smtp:[127.0.0.1]:"+port(direct)+"} }")
		},
		"exim": func(t *testing.T, edge, direct string) submitter {
			return startExim(t, map[string]string{"example.net": edge, "direct.example": direct})
		},
	} {
		t.Run(name, func(t *testing.T) {
			direct := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
			mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
			s := newStack(t)
			edge := s.addEdge()
			s.seed(mx.Addr().String())
			s.ctl("settings", "update", "--bare-newline", "normalise")
			s.synced()
			customer := begin(t, edge.relay, direct.Addr().String())
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("%s logged\n%s", name, tail(customer.log(t), 4000))
				}
			})
			sent := map[string]letterTo{}
			for _, l := range awkward(func(l string) string { return name + "-" + l }) {
				customer.submit(t, "anna@example.com", "bob@example.net,bob@direct.example", []byte(l.text))
				sent[name+"-"+l.name] = l
			}
			checkExactly(t, mx, recorded(t, direct, sent))
		})
	}
}

// recorded waits until a server has every message, and answers by subject what the edge is to make of each; for those that it
// must refuse, nothing.
func recorded(t *testing.T, direct *relaytest.MX, sent map[string]letterTo) map[string]string {
	t.Helper()
	subjects := func() map[string]string {
		found := map[string]string{}
		for _, m := range direct.Messages() {
			text, _ := normalised(string(m.Wire))
			if match := firstSubject.FindStringSubmatch(text); match != nil {
				found[match[1]] = text
			}
		}
		return found
	}
	eventually(t, fmt.Sprintf("%d messages that went directly", len(sent)), func() bool { return len(subjects()) >= len(sent) })
	found := subjects()
	for subject, l := range sent {
		// Postfix breaks lines that are too long.
		if l.fate == tooLong && strings.Contains(found[subject], strings.Repeat("z", 65_535)) {
			delete(found, subject)
		}
	}
	return found
}

// One message to a thousand recipients is one at each of them, and Postfix, behind the edge, hears of each once.
func TestAMessageToAThousandRecipientsArrivesOnceAtEach(t *testing.T) {
	var to []string
	for n := range 1000 {
		to = append(to, fmt.Sprintf("r%d@example.net", n))
	}
	file := filepath.Join(t.TempDir(), "message.eml")
	must(t, os.WriteFile(file, []byte(letter("anna@example.com", "")), 0o600))
	clients := mailClients(t)
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		t.Run(name, func(t *testing.T) {
			mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
			hop := startPostfix(t, "relayhost = [127.0.0.1]:"+fmt.Sprint(mx.Port()))
			s := newStack(t)
			edge := s.addEdge()
			s.seed(hop.addr())
			s.ctl("settings", "update", "--max-recipients", "1000", "--quota-unit", "message")
			s.synced()
			if out, err := clients[name](edge.relay, file, to...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, tail(string(out), 2000))
			}
			arrived := func() (all []string) {
				for _, m := range mx.Messages() {
					all = append(all, m.Addresses()...)
				}
				return all
			}
			eventually(t, "a thousand recipients", func() bool { return len(arrived()) >= len(to) })
			got := arrived()
			slices.Sort(got)
			if want := slices.Sorted(slices.Values(to)); !slices.Equal(got, want) {
				t.Errorf("%d recipients, %d of them distinct, want each of %d once", len(got), len(slices.Compact(got)), len(want))
			}
		})
	}
}

// An address beyond ASCII goes on where the next server takes it, and is told of in a notification where it does not.
func TestAnAddressBeyondASCIIGoesOnlyWhereItIsUnderstood(t *testing.T) {
	clients := mailClients(t)
	file := filepath.Join(t.TempDir(), "message.eml")
	must(t, os.WriteFile(file, []byte(letter("anna@example.com", "")), 0o600))
	knows := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
	plain := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"PIPELINING", "8BITMIME"}})
	hop := startPostfix(t, "relayhost = [127.0.0.1]:"+fmt.Sprint(knows.Port()), "smtputf8_enable = yes")
	s := newStack(t)
	edge := s.addEdge()
	s.seed(hop.addr())
	s.ctl("route", "create", "--domain", "example.com", "--recipient-domain", "plain.example", "--host", "127.0.0.1", "--port", fmt.Sprint(plain.Port()), "--tls", "none")
	s.ctl("route", "create", "--recipient-domain", "example.com", "--host", "127.0.0.1", "--port", hop.port, "--tls", "none") // for notifications
	s.synced()
	sent := 0
	for _, name := range []string{"smtplib", "nodemailer", "curl"} {
		client, ok := clients[name]
		if !ok {
			continue
		}
		for _, to := range []string{"jürgen@example.net", "jürgen@plain.example"} {
			if out, err := client(edge.relay, file, to).CombinedOutput(); err != nil {
				t.Errorf("%s to %s: %v: %s", name, to, err, tail(string(out), 1000))
				continue
			}
		}
		sent++
	}
	var told int
	eventually(t, "the messages and the notifications", func() bool {
		told = 0
		for _, m := range knows.Messages() {
			if m.From == "" && strings.Contains(string(m.Body), "5.6.7") {
				told++
			}
		}
		return len(knows.Messages()) >= 2*sent && told >= sent
	})
	if len(plain.Messages()) > 0 || told != sent {
		t.Errorf("%d messages where the address is not understood, %d notifications of %d", len(plain.Messages()), told, sent)
	}
	for _, m := range knows.Messages() {
		if m.From != "" && (m.Recipients[0].Address != "jürgen@example.net" || !strings.Contains(m.FromParams, "SMTPUTF8")) {
			t.Errorf("arrived for %q with %q", m.Recipients[0].Address, m.FromParams)
		}
	}
}
