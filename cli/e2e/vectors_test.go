package e2e

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// guarded is an edge with all its listeners, a user, and a next hop that must never hear of other.example.
type guarded struct {
	*stack
	edge                 *edgeProcess
	submission, implicit string
	password             string
	mx                   *relaytest.MX
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
	s := newStack(t)
	cert, key := s.dir+"/cert.pem", s.dir+"/key.pem"
	run(t, need(t, "openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
		"-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=edge1.relay.example")
	g := &guarded{stack: s, submission: "127.0.0.1:" + freePort(t), implicit: "127.0.0.1:" + freePort(t), mx: mx}
	g.edge = s.addEdge("--submission-listen", g.submission, "--tls-listen", g.implicit, "--tls-cert", cert, "--tls-key", key)
	s.seed(mx.Addr().String())
	var made struct{ Password string }
	s.ctlJSON(&made, "user", "create", "--address", "anna@example.com")
	g.password = made.Password
	s.synced()
	return g
}

// says sends bytes and answers everything that comes back until the edge closes the connection.
func (g *guarded) says(t *testing.T, server, wire string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", server, 10*time.Second)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	greeting := make([]byte, 512)
	n, err := conn.Read(greeting)
	must(t, err)
	if !strings.HasPrefix(string(greeting[:n]), "220 ") {
		t.Fatalf("greeting %q", greeting[:n])
	}
	_, _ = io.WriteString(conn, wire) // the edge may have closed by the end of it
	must(t, conn.(*net.TCPConn).CloseWrite())
	replies, err := io.ReadAll(conn)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("%q was answered %q, then %v", wire, replies, err)
	}
	return string(replies)
}

// codes are the codes of replies, in order.
func codes(replies string) string {
	var all []string
	for line := range strings.Lines(replies) {
		if len(line) > 3 && line[3] == ' ' {
			all = append(all, line[:3])
		}
	}
	return strings.Join(all, " ")
}

// clean holds that the next hop got so many messages, all of example.com.
func (g *guarded) clean(t *testing.T, messages int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages", messages), func() bool { return len(g.mx.Messages()) >= messages })
	eventually(t, "an empty queue", func() bool { return g.edge.metric(t, "relayd_queue_messages") == 0 })
	if got := g.mx.Messages(); len(got) != messages {
		t.Errorf("%d messages at the next hop, want %d", len(got), messages)
	}
	for _, line := range g.mx.Commands() {
		if strings.Contains(line, "other.example") || strings.Contains(line, "victim") {
			t.Errorf("the next hop was told %q", line)
		}
	}
}

// The vectors of state: whatever a client says in whatever order, only what it may say has an effect.
func TestWireVectorsOfState(t *testing.T) {
	g := newGuarded(t)
	plain := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00anna@example.com\x00"+g.password)) + "\r\n"
	const (
		hello = "EHLO client.example\r\n"
		mail  = "MAIL FROM:<anna@example.com>\r\n"
		rcpt  = "RCPT TO:<bob@example.net>\r\n"
		text  = "From: anna@example.com\r\nSubject: t-x\r\n\r\ntext\r\n.\r\n"
		evil  = "MAIL FROM:<x@other.example>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nFrom: x@other.example\r\n\r\nsmuggled\r\n.\r\n"
		quit  = "QUIT\r\n"
	)
	messages := 0
	for _, v := range []struct {
		name, wire, codes string
		accepted          int
	}{
		{name: "nested MAIL", wire: hello + mail + "MAIL FROM:<x@other.example>\r\n" + rcpt + "DATA\r\n" + text + quit, codes: "250 250 503 250 354 250 221", accepted: 1},
		{name: "MAIL MAIL DATA", wire: hello + mail + mail + "DATA\r\n" + quit, codes: "250 250 503 503 221"},
		{name: "denied MAIL after RCPT", wire: hello + mail + rcpt + "MAIL FROM:<a@evil@other.example>\r\nDATA\r\n" + text + quit, codes: "250 250 250 503 354 250 221", accepted: 1},
		{name: "AUTH in a transaction", wire: hello + mail + plain + rcpt + "DATA\r\n" + text + quit, codes: "250 250 (503|530|538) 250 354 250 221", accepted: 1},
		{name: "AUTH without TLS", wire: hello + plain + quit, codes: "250 (530|538) 221"},
		{name: "BDAT", wire: hello + mail + rcpt + "BDAT 10\r\n0123456789RSET\r\n" + mail + rcpt + "BDAT 3 LAST\r\nabc" + quit, codes: "250 250 250 50[0-9].*"},
		{name: "BDAT 0 LAST, then a transaction", wire: hello + mail + rcpt + "BDAT 0 LAST\r\n" + quit, codes: "250 250 250 50[0-9]( 221)?"},
		{name: "QUIT, then a transaction", wire: hello + quit + hello + evil, codes: "250 221"},
		{name: "STARTTLS, then a transaction", wire: hello + "STARTTLS\r\n" + hello + evil, codes: "250 503"},
		{name: "HTTP, then a transaction", wire: "POST / HTTP/1.1\r\nHost: x\r\n\r\n" + hello + evil, codes: "[45]21|554|500"},
		{name: "a TLS hello", wire: "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + strings.Repeat("a", 154) + "\r\n" + hello + evil, codes: "([45]21|5[05].)( .*)?"},
		{name: "DATA without RCPT, then a message", wire: hello + mail + "DATA\r\n" + "RCPT TO:<victim@example.net>\r\n" + quit, codes: "250 250 50[0-9] 250 221"},
		{name: "RCPT without MAIL", wire: hello + rcpt + "DATA\r\n" + quit, codes: "250 503 503 221"},
		{name: "MAIL without EHLO", wire: mail + rcpt + quit, codes: "503 503 221"},
		{name: "a refused recipient, then DATA", wire: hello + mail + "RCPT TO:<a@[>\r\nDATA\r\n" + quit, codes: "250 250 (501|553) 50[0-9] 221"},
		{name: "RSET drops the recipients", wire: hello + mail + rcpt + "RSET\r\n" + mail + "DATA\r\n" + quit, codes: "250 250 250 250 250 50[0-9] 221"},
		{name: "EHLO drops the recipients", wire: hello + mail + rcpt + hello + mail + "DATA\r\n" + quit, codes: "250 250 250 250 250 50[0-9] 221"},
		{name: "commands that end in LF", wire: "EHLO c\nMAIL FROM:<x@other.example>\nRCPT TO:<victim@example.net>\nDATA\n", codes: ".{0,3}"},
		{name: "a command cut off at the end", wire: hello + "MAIL FROM:<anna@example.com", codes: "250"},
		{name: "a message cut off at the end", wire: hello + mail + rcpt + "DATA\r\nFrom: anna@example.com\r\n\r\ntext\r\n.", codes: "250 250 250 354( 4..)?"},
		{name: "two messages in one write", wire: hello + mail + rcpt + "DATA\r\n" + text + mail + rcpt + "DATA\r\n" + text + quit, codes: "250 250 250 354 250 250 250 354 250 221", accepted: 2},
	} {
		t.Run(v.name, func(t *testing.T) {
			replies := g.says(t, g.edge.relay, v.wire)
			if !regexp.MustCompile("^(" + v.codes + ")$").MatchString(codes(replies)) {
				t.Errorf("replies %s, want %s:\n%s", codes(replies), v.codes, replies)
			}
			if n := strings.Count(replies, "queued as"); n != v.accepted {
				t.Errorf("%d messages accepted, want %d", n, v.accepted)
			}
		})
		messages += v.accepted
	}
	g.clean(t, messages)
}

// badAddresses are addresses that another server could read in another way, or that none should see.
func badAddresses() []string {
	return []string{
		`"ceo@victim.example> ENVID="@example.com`, `"x@other.example> NOTIFY=NEVER ORCPT=rfc822;"@example.com`, `"a b"@example.com`, `"anna"@example.com`,
		"a@evil@example.com", "a@example.com@evil", "a@other.example@example.com", "a\x00b@example.com", "a\rb@example.com", "a\nb@example.com",
		"é@example.com", "a@exämple.com", "@h1,@h2:a@example.com", "@other.example:a@example.com", "a@[", "a@[IPv6:::1]", "a@[127.0.0.1]", "a@[other.example]",
		"a%b@example.com", "a%other.example@example.com", "victim!u@example.com", "other.example!victim@example.com", "a@example.com>SIZE=1", "a@example.com> SIZE=1 BODY",
		"postmaster", "a", "a@", "@example.com", "@", "a@.example.com", "a@example.com..", "a@example..com", "a@-example.com", "a@example-.com", "a@exa_mple.com",
		".a@example.com", "a.@example.com", "a..b@example.com", "a b@example.com", "a\tb@example.com", " a@example.com", "a@example.com ", "a @example.com", "a@ example.com",
		"a@example.com:25", "a@example.com/b", "a@example.com#b", "a(c)@example.com", "a@example.com(c)", `a\@b@example.com`, "a<b@example.com", "a@example.com<x",
		"<a@example.com>", "a;b@example.com", "a,b@example.com", "a:b@example.com", "a[b@example.com", "a]b@example.com", `a"b@example.com`, "a@example", "a@127.0.0.1",
		"a@2130706433", "a@example.com\x7f", "a\x1b[0m@example.com", "a\xff@example.com", "a@example.com\xff", "a\u202eb@example.com", "a@о\u043a.example",
		strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("a", 64) + ".com", "a@" + strings.Repeat("abcdefg.", 32) + "com", strings.Repeat("a", 3000) + "@example.com",
	}
}

// Matrix row 16 at the real edge: none of them is taken as sender or recipient, and no other domain is heard of at the next hop.
func TestRow16NoAddressThatCouldBeReadInTwoWaysPassesTheEdge(t *testing.T) {
	g := newGuarded(t)
	for _, address := range badAddresses() {
		for _, wire := range []string{
			"MAIL FROM:<" + address + ">\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nFrom: anna@example.com\r\n\r\nx\r\n.\r\n",
			"MAIL FROM:<anna@example.com>\r\nRCPT TO:<" + address + ">\r\nDATA\r\nFrom: anna@example.com\r\n\r\nx\r\n.\r\n",
		} {
			replies := g.says(t, g.edge.relay, "EHLO client.example\r\n"+wire+"QUIT\r\n")
			if strings.Contains(replies, "queued as") {
				t.Errorf("%.200q was accepted:\n%s", wire, replies)
			}
		}
	}
	t.Logf("%d addresses", len(badAddresses()))
	g.clean(t, 0)
}

// Matrix row 18 at the real edge: nothing that was said in plain text counts after STARTTLS, a handshake that fails ends the
// connection, and old versions of TLS are not spoken.
func TestRow18OnlyWholeTLSIsSpoken(t *testing.T) {
	g := newGuarded(t)
	const evil = "MAIL FROM:<anna@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nFrom: anna@example.com\r\n\r\ninjected\r\n.\r\nQUIT\r\n"
	for _, server := range []string{g.edge.relay, g.submission} {
		if got := codes(g.says(t, server, "EHLO c.example\r\nSTARTTLS\r\nEHLO c.example\r\n"+evil)); got != "250 503" {
			t.Errorf("plain text behind STARTTLS was answered %s", got)
		}
		conn, err := net.Dial("tcp", server)
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		d := &dialog{t: t, conn: conn, in: textproto.NewReader(bufio.NewReader(conn))}
		d.reply()
		d.say("EHLO c.example")
		if r := d.say("STARTTLS"); r.code != 220 {
			t.Fatal(r)
		}
		_, _ = io.WriteString(conn, "no handshake at all\r\nEHLO c.example\r\n"+evil)
		rest, _ := io.ReadAll(conn)
		if strings.Contains(string(rest), "250") {
			t.Errorf("after a failed handshake the edge went on: %q", rest)
		}
	}
	openssl := need(t, "openssl", "openssl")
	for version, speaks := range map[string]bool{"-tls1": false, "-tls1_1": false, "-tls1_2": true, "-tls1_3": true} {
		for server, starttls := range map[string]bool{g.edge.relay: true, g.submission: true, g.implicit: false} {
			args := []string{"s_client", "-connect", server, version, "-cipher", "DEFAULT@SECLEVEL=0", "-brief"}
			if starttls {
				args = append(args, "-starttls", "smtp")
			}
			cmd := exec.Command(openssl, args...)
			cmd.Stdin = strings.NewReader("QUIT\r\n")
			out, _ := cmd.CombinedOutput()
			if strings.Contains(string(out), "CONNECTION ESTABLISHED") != speaks {
				t.Errorf("openssl %s at %s (STARTTLS %v):\n%s", version, server, starttls, out)
			}
		}
	}
	g.clean(t, 0)
}
