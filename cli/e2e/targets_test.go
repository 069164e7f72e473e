package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// Control 21: no mail goes to the relay's own host or network, whatever a stranger writes into the DNS. Only one address of
// loopback is allowed here, for the server that takes the notifications; a server behind another must never be dialled.
func TestControl21NoMailGoesWhereNoMailServerOfTheInternetIs(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
	zones := map[string]string{"outer.example": "@ MX 10 mx\nmx A 127.0.0.1\n"}
	bad := map[string]string{
		"private10": "A 10.1.2.3", "private172": "A 172.16.0.1", "private192": "A 192.168.1.1", "carrier": "A 100.64.0.1", "metadata": "A 169.254.169.254",
		"alibaba": "A 100.100.100.200", "azure": "A 168.63.129.16", "oracle": "A 192.0.0.192", "loopback": "A 127.0.0.2", "this-network": "A 0.0.0.0", "multicast": "A 224.0.0.1",
		"broadcast": "A 255.255.255.255", "reserved": "A 240.0.0.1", "loopback6": "AAAA ::1", "mapped": "AAAA ::ffff:127.0.0.2", "nat64": "AAAA 64:ff9b::7f00:2",
		"sixtofour": "AAAA 2002:7f00:2::1", "local6": "AAAA fc00::1", "aws6": "AAAA fd00:ec2::254", "link6": "AAAA fe80::1", "site6": "AAAA fec0::1",
	}
	var inner strings.Builder
	for name, record := range bad {
		fmt.Fprintf(&inner, "%[1]s MX 10 h-%[1]s\nh-%[1]s %[2]s\nbare-%[1]s %[2]s\nalias-%[1]s CNAME bare-%[1]s\n", name, record)
	}
	zones["inner.example"] = inner.String()
	dns := nameServer(t, zones)
	listener, err := net.Listen("tcp", "127.0.0.2:"+port(mx.Addr().String()))
	must(t, err)
	defer listener.Close()
	var dialled atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			conn.Close()
		}
	}()
	s := newStack(t)
	edge := s.addEdge("--resolver", dns, "--mx-port", port(mx.Addr().String()))
	s.seed(mx.Addr().String())
	s.deleteRoutes()
	s.ctl("settings", "update", "--allow-target-networks", "127.0.0.1/32")
	s.ctl("route", "create", "--recipient-domain", "example.com", "--host", "127.0.0.1", "--port", port(mx.Addr().String()), "--tls", "none")
	s.synced()
	d := dial(t, edge.relay, "127.0.0.1")
	var to []string
	for name := range bad {
		for _, prefix := range []string{"", "bare-", "alias-"} {
			to = append(to, "x@"+prefix+name+".inner.example")
		}
	}
	for _, address := range append(to, "bob@outer.example") {
		if r := d.send("anna@example.com", address, letter("anna@example.com", "")); r.code != 250 {
			t.Errorf("%s: refused: %v", address, r)
		}
	}
	eventually(t, "an empty queue", func() bool { return edge.metric(t, "relayd_queue_messages") == 0 })
	told, delivered := map[string]string{}, 0
	status := regexp.MustCompile(`(?s)Final-Recipient: rfc822; ?(\S+).*?Status: (\S+)`)
	for _, m := range mx.Messages() {
		if match := status.FindStringSubmatch(string(m.Body)); m.From == "" && match != nil {
			told[match[1]] = match[2]
		} else if m.From == "anna@example.com" && m.Addresses()[0] == "bob@outer.example" {
			delivered++
		} else {
			t.Errorf("arrived for %v: %s", m.Addresses(), m.Body)
		}
	}
	for _, address := range to {
		if told[address] != "5.4.4" && told[address] != "5.4.6" {
			t.Errorf("mail for %s came back with status %q", address, told[address])
		}
	}
	if delivered != 1 || dialled.Load() != 0 {
		t.Errorf("%d messages at the server that is allowed, %d connections to the one that is not", delivered, dialled.Load())
	}
}

// A route that requires TLS, to a real Exim that requires it too: what Exim offers is used, and nothing goes to one whose
// certificate nobody vouches for.
func TestEximTakesOverTLSWhatTheRouteRequires(t *testing.T) {
	trusted, stranger := relaytest.NewAuthority(t, "trusted"), relaytest.NewAuthority(t, "stranger")
	dir := openDir(t, "eximtls")
	roots := filepath.Join(dir, "roots.pem")
	must(t, os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusted.Certificate.Raw}), 0o644))
	t.Setenv("SSL_CERT_FILE", roots)
	secure := func(name string, authority *relaytest.Authority) *exim {
		files := certificateFiles(t, dir, name, authority)
		return startExim(t, nil, "tls_advertise_hosts = *", "smtputf8_advertise_hosts = *", "tls_certificate = "+files[0], "tls_privatekey = "+files[1],
			"acl_smtp_predata = ${if def:tls_in_cipher{accept}{deny}}")
	}
	good, bad := secure("good", trusted), secure("bad", stranger)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(good.addr())
	for domain, hop := range map[string]*exim{"good.example": good, "bad.example": bad} {
		s.ctl("route", "create", "--domain", "example.com", "--recipient-domain", domain, "--host", "127.0.0.1", "--port", hop.port, "--tls", "required")
	}
	s.synced()
	d := dial(t, edge.relay, "127.0.0.1")
	send := func(to, params, text string) {
		t.Helper()
		for _, line := range []string{"MAIL FROM:<anna@example.com>" + params, "RCPT TO:<" + to + ">", "DATA", text + "."} {
			if r := d.say(line); r.code >= 400 {
				t.Fatalf("%s: %v", line, r)
			}
		}
	}
	eight := letter("anna@example.com", "") + "8-bit: \xe4\xf6\xfc\r\n..dots\r\n"
	send("bob@good.example", " BODY=8BITMIME", eight)
	send("jürgen@good.example", " SMTPUTF8 BODY=8BITMIME", eight)
	for n := range 5 {
		send(fmt.Sprintf("n%d@good.example", n), "", letter("anna@example.com", ""))
	}
	send("bob@bad.example", "", letter("anna@example.com", ""))
	eventually(t, "seven messages at Exim", func() bool { return len(good.kept(t)) >= 7 })
	all := strings.Join(good.kept(t), "\n")
	if strings.Count(all, "8-bit: \xe4\xf6\xfc\n.dots\n") != 2 || !strings.Contains(all, "jürgen@good.example") {
		t.Errorf("Exim has\n%s", all)
	}
	eventually(t, "seven messages in Exim's log", func() bool { return strings.Count(good.log(t), " <= anna@example.com") >= 7 })
	if log := good.log(t); strings.Count(log, "X=TLS1.3") != 7 || strings.Count(log, " <= anna@example.com") != 7 || strings.Contains(log, "protocol error") {
		t.Errorf("Exim logged\n%s", log)
	}
	eventually(t, "the reason why mail waits", func() bool {
		return regexp.MustCompile(`(?i)certificate`).MatchString(s.ctl("queue", "list", "-o", "json"))
	})
	if got := bad.kept(t); len(got) != 0 {
		t.Errorf("an Exim that nobody vouches for has\n%s", got)
	}
}

// certificateFiles are the files of a certificate for 127.0.0.1 and of its key.
func certificateFiles(t *testing.T, dir, name string, authority *relaytest.Authority) (files [2]string) {
	t.Helper()
	issued := authority.Issue(t, time.Hour, "127.0.0.1").Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	must(t, err)
	var chain []byte
	for _, der := range issued.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	files = [2]string{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	must(t, os.WriteFile(files[0], chain, 0o644))
	must(t, os.WriteFile(files[1], pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o644))
	return files
}
