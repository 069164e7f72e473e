package relaytest_test

import (
	"net/smtp"
	"slices"
	"strings"
	"testing"

	"activerelay/relayd/relaytest"

	"github.com/miekg/dns"
)

func TestAnMXRecordsMessagesByteForByte(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"PIPELINING", "SIZE 1000"}})
	body := "Subject: x\r\n\r\n.leading dot\r\nend\r\n"
	err := smtp.SendMail(mx.Addr().String(), nil, "a@x.test", []string{"b@y.test", "c@y.test"}, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	got := mx.WaitMessages(t.Context(), t, 1)[0]
	if string(got.Body) != body {
		t.Errorf("body %q, want %q", got.Body, body)
	}
	if !strings.Contains(string(got.Wire), "\r\n..leading") {
		t.Errorf("wire form %q has no stuffed dot", got.Wire)
	}
	if want := []string{"b@y.test", "c@y.test"}; got.From != "a@x.test" || !slices.Equal(got.Addresses(), want) {
		t.Errorf("envelope %q to %q", got.From, got.Addresses())
	}
}

func TestAScriptDecidesByRecipient(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Decide: func(s relaytest.Step) (relaytest.Action, bool) {
		return relaytest.Say("550 5.1.1 no"), s.Address == "b@y.test"
	}})
	err := smtp.SendMail(mx.Addr().String(), nil, "a@x.test", []string{"b@y.test"}, []byte("x\r\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "550") {
		t.Errorf("got %v, want the scripted 550", err)
	}
	if n := len(mx.Messages()); n != 0 {
		t.Errorf("%d messages taken, want none", n)
	}
}

func TestTheDNSServerAnswersAndFailsAsTold(t *testing.T) {
	server := relaytest.StartDNS(t, relaytest.Zone{
		"y.test": {"MX 10 mx.y.test."}, "mx.y.test": {"A 127.0.0.1"}, "alias.test": {"CNAME mx.y.test."}, "empty.test": {},
	})
	server.Fail("broken.test", relaytest.ServFail)
	for _, c := range []struct {
		name    string
		kind    uint16
		rcode   int
		answers int
	}{
		{name: "y.test.", kind: dns.TypeMX, answers: 1},
		{name: "alias.test.", kind: dns.TypeA, answers: 2},
		{name: "empty.test.", kind: dns.TypeA},
		{name: "absent.test.", kind: dns.TypeA, rcode: dns.RcodeNameError},
		{name: "broken.test.", kind: dns.TypeA, rcode: dns.RcodeServerFailure},
	} {
		query := new(dns.Msg)
		query.SetQuestion(c.name, c.kind)
		reply, err := dns.Exchange(query, server.Addr().String())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if reply.Rcode != c.rcode || len(reply.Answer) != c.answers {
			t.Errorf("%s: rcode %d with %d answers, want %d with %d", c.name, reply.Rcode, len(reply.Answer), c.rcode, c.answers)
		}
	}
}
