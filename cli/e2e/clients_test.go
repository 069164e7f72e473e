package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// What is done with a message that the edge takes, or why it takes none.
const (
	fine      = ""
	irregular = `550.{1,4}5\.5\.2` // where line ends are not made regular
	noHeader  = `550.{1,4}5\.6\.0`
	tooLong   = `554.{1,4}5\.6\.0`
)

// letterTo is a message that relays have choked on.
type letterTo struct{ name, text, fate string }

// awkward are such messages, by name, with a header of their own.
func awkward(subject func(name string) string) []letterTo {
	line := strings.Repeat("x", 65_000)
	letters := []letterTo{
		{name: "dots", text: "\r\n.\r\n..\r\n...\r\n.a\r\n\r\n.\r\nend\r\n"},
		{name: "only-dots", text: "\r\n.\r\n.\r\n.\r\n"},
		{name: "crcrlf", text: "\r\none\r\r\ntwo\r\r\n", fate: irregular},
		{name: "crcrlf-dot", text: "\r\none\r\r\n.\r\r\ntwo\r\n", fate: irregular},
		{name: "bare-lf", text: "\r\none\ntwo\n.\nthree\r\n", fate: irregular},
		{name: "bare-cr", text: "\r\none\rtwo\r.\rthree\r\n", fate: irregular},
		{name: "nul", text: "\r\na\x00b\r\n", fate: irregular},
		{name: "long-line", text: "\r\n" + line + "\r\n.after\r\n"},
		{name: "longest-line", text: "\r\n" + strings.Repeat("y", 65_534) + "\r\n"},
		{name: "too-long-line", text: "\r\n" + strings.Repeat("z", 65_535) + "\r\nafter\r\n", fate: tooLong},
		{name: "eight-bit", text: "\r\n\xe4\xf6\xfc \xff\xfe\r\n"},
		{name: "control-bytes", text: "\r\n\x01\x02\x07\x08\x0b\x0c\x1a\x1b[31m\x7f\r\n"},
		{name: "no-final-newline", text: "\r\nfirst\r\nlast"},
		{name: "empty-body", text: "\r\n"},
		{name: "header-only", text: ""},
		{name: "no-separator", text: "This is text, not a field\r\nmore\r\n", fate: noHeader},
		{name: "white-space", text: "\r\ntrailing  \r\n\t\t\r\n   \r\n\r\n\r\nend \t\r\n\r\n\r\n"},
		{name: "long-header", text: "X-Long: " + line[:60_000] + "\r\nX-Folded: a" + strings.Repeat("\r\n\tfolded and folded again", 800) + "\r\n\r\nbody\r\n"},
		{name: "many-fields", text: strings.Repeat("X-Field: value\r\n", 1500) + "\r\nbody\r\n"},
		{name: "mebibyte-of-dots", text: "\r\n" + strings.Repeat("."+strings.Repeat(".x", 30)+"\r\n", 17_000)},
	}
	for i, l := range letters {
		letters[i].text = "From: anna@example.com\r\nTo: bob@example.net\r\nDate: Sun, 22 Nov 2026 10:00:00 +0100\r\n" +
			"Message-ID: <" + subject(l.name) + "@example.com>\r\nSubject: " + subject(l.name) + "\r\n" + l.text
	}
	return letters
}

// mailClient makes the command that sends a file from anna@example.com.
type mailClient func(server, file string, to ...string) *exec.Cmd

func mailClients(t *testing.T) map[string]mailClient {
	t.Helper()
	curl, swaks, msmtp := need(t, "curl", "curl"), need(t, "swaks", "swaks"), need(t, "msmtp", "msmtp")
	clients := map[string]mailClient{
		"curl": func(server, file string, to ...string) *exec.Cmd {
			args := []string{"-v", "--url", "smtp://" + server, "--mail-from", "anna@example.com", "--upload-file", file}
			for _, a := range to {
				args = append(args, "--mail-rcpt", a)
			}
			return exec.Command(curl, args...)
		},
		"swaks": func(server, file string, to ...string) *exec.Cmd {
			return exec.Command(swaks, "--server", server, "--from", "anna@example.com", "--to", strings.Join(to, ","), "--data", "@"+file)
		},
		"smtplib": smtplib,
		"msmtp": func(server, file string, to ...string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(server)
			cmd := exec.Command(msmtp, append([]string{"--file=/dev/null", "--host=" + host, "--port=" + port, "--from=anna@example.com", "--auth=off", "--tls=off"}, to...)...)
			text, err := os.ReadFile(file)
			must(t, err)
			cmd.Stdin = bytes.NewReader(text)
			return cmd
		},
	}
	if client := nodemailer(t); client != nil {
		clients["nodemailer"] = client
	}
	return clients
}

func smtplib(server, file string, to ...string) *exec.Cmd {
	const script = `import smtplib, sys
host, port = sys.argv[1].rsplit(":", 1)
utf8 = not all(a.isascii() for a in sys.argv[3:])
with smtplib.SMTP(host, int(port)) as s:
    s.ehlo()
    refused = s.sendmail("anna@example.com", sys.argv[3:], open(sys.argv[2], "rb").read(), ["SMTPUTF8", "BODY=8BITMIME"] if utf8 else [])
sys.exit(bool(refused))
`
	return exec.Command("/usr/bin/python3", append([]string{"-X", "utf8", "-c", script, server, file}, to...)...)
}

// nodemailer is nil, and that is said loudly, where there is no Node.js.
func nodemailer(t *testing.T) mailClient {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Logf("SKIPPED nodemailer in %s: node is not installed; run: apt-get install --no-install-recommends nodejs", t.Name())
		return nil
	}
	root := unpacked(t, "node-nodemailer")
	const script = `const [server, file, ...to] = process.argv.slice(1), [host, port] = server.split(":")
require("nodemailer").createTransport({host, port, secure: false, ignoreTLS: true}).sendMail(
  {envelope: {from: "anna@example.com", to}, raw: require("fs").readFileSync(file)},
  (err, info) => { console.log(err || info); process.exit(err || info.rejected.length ? 1 : 0) })`
	return func(server, file string, to ...string) *exec.Cmd {
		cmd := exec.Command(node, append([]string{"-e", script, server, file}, to...)...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(root, "usr/share/nodejs"))
		return cmd
	}
}

// hops are next hops of three kinds: one that compares every byte, a Postfix and an Exim.
type hops struct {
	exact *relaytest.MX
	inbox sinkFiles // behind Postfix
	exim  *exim
}

func (h *hops) addresses() []string {
	return []string{"bob@example.net", "bob@postfix.example", "bob@exim.example"}
}

// offers is what the edge offers too, so that clients say the same to both.
var offers = []string{"SIZE 26214400", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"}

func startHops(t *testing.T, s *stack) *hops {
	t.Helper()
	h := &hops{exact: relaytest.StartMX(t, relaytest.Script{Extensions: offers}), inbox: keepingSink(t), exim: startExim(t, nil, "tls_advertise_hosts =")}
	postfix := startPostfix(t, "relayhost = [127.0.0.1]:"+port(h.inbox.addr), "smtp_line_length_limit = 0", "local_header_rewrite_clients =")
	s.seed(h.exact.Addr().String())
	for domain, port := range map[string]string{"postfix.example": postfix.port, "exim.example": h.exim.port} {
		s.ctl("route", "create", "--domain", "example.com", "--recipient-domain", domain, "--host", "127.0.0.1", "--port", port, "--tls", "none")
	}
	return h
}

// Matrix row 13 with real clients and real next hops: a message that its client believes to be sent arrives once at each, and is
// byte for byte what that client says to a server that changes nothing, but that its line ends are made regular. Where it is
// refused the client hears why, it arrives nowhere, and nothing hangs.
func TestRow13WhatRealClientsBelieveToBeSentArrives(t *testing.T) {
	clients := mailClients(t)
	for _, mode := range []string{"refuse", "normalise"} {
		t.Run(mode, func(t *testing.T) {
			s := newStack(t)
			edge := s.addEdge()
			h := startHops(t, s)
			s.ctl("settings", "update", "--bare-newline", mode)
			s.synced()
			p := &passage{t: t, edge: edge.relay, mends: mode == "normalise", to: h.addresses(), believed: map[string]string{}}
			var tries sync.WaitGroup
			for name, client := range clients {
				recorder := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
				tries.Go(func() {
					for _, l := range awkward(func(l string) string { return name + "-" + l }) {
						if p.mends || l.fate != fine {
							p.try(name, client, recorder, l)
						}
					}
				})
			}
			tries.Wait()
			t.Logf("%d messages sent, %d of them refused", p.sent, p.sent-len(p.believed))
			h.check(t, p.believed)
		})
	}
}

// passage sends messages through an edge and notes what must arrive.
type passage struct {
	t     *testing.T
	edge  string
	mends bool // whether the edge makes line ends regular
	to    []string

	mu       sync.Mutex
	sent     int
	believed map[string]string // by subject
}

// try sends a letter to a server that records it, then through the edge.
func (p *passage) try(name string, client mailClient, recorder *relaytest.MX, l letterTo) {
	file := filepath.Join(p.t.TempDir(), "message.eml")
	if err := os.WriteFile(file, []byte(l.text), 0o600); err != nil {
		p.t.Error(err)
		return
	}
	before := len(recorder.Messages())
	if out, err := client(recorder.Addr().String(), file, p.to[0]).CombinedOutput(); err != nil {
		p.t.Logf("%s does not send %s at all: %v: %.200s", name, l.name, err, out)
		return
	}
	messages := recorder.Messages()
	if len(messages) != before+1 {
		p.t.Errorf("%s makes %d messages of %s", name, len(messages)-before, l.name)
		return
	}
	text, regular := normalised(string(messages[before].Wire))
	began := time.Now()
	out, err := client(p.edge, file, p.to...).CombinedOutput()
	if took := time.Since(began); took > 20*time.Second {
		p.t.Errorf("%s took %v for %s", name, took, l.name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent++
	refusal := l.fate
	if refusal == irregular && (regular || p.mends) {
		refusal = fine
	}
	switch {
	case err == nil && refusal == fine:
		p.believed[name+"-"+l.name] = text
	case err == nil:
		p.t.Errorf("%s believes %s to be sent; wire %.300q", name, l.name, messages[before].Wire)
	case refusal == fine:
		p.t.Errorf("%s was refused %s: %s", name, l.name, tail(string(out), 1500))
	case !regexp.MustCompile(refusal).Match(out):
		p.t.Errorf("%s was refused %s, but not with %s: %s", name, l.name, refusal, tail(string(out), 1500))
	}
}

// normalised is what a message on the wire means, once bare CR and LF are line ends and NUL is gone, and whether it had none.
func normalised(wire string) (text string, regular bool) {
	text = strings.ReplaceAll("\r\n"+wire, "\r\n.", "\r\n")[2:]
	regular = !strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n\x00")
	return strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n", "\x00", "").Replace(text), regular
}

// check holds that each hop has each message once, as it should be, and no other.
func (h *hops) check(t *testing.T, believed map[string]string) {
	t.Helper()
	checkExactly(t, h.exact, believed)
	for _, hop := range []struct {
		name   string
		kept   func(*testing.T) []string
		mangle func(string) string
	}{
		{name: "Postfix", kept: func(t *testing.T) []string { return kept(t, h.inbox.dir) }, mangle: func(s string) string { return s }},
		{name: "Exim", kept: h.exim.kept, mangle: func(s string) string {
			_, body, _ := strings.Cut(s, "\r\n\r\n") // Exim keeps the body apart
			return "-D\n" + strings.ReplaceAll(body, "\r\n", "\n")
		}},
	} {
		eventually(t, fmt.Sprintf("%d messages at %s", len(believed), hop.name), func() bool { return len(hop.kept(t)) >= len(believed) })
		found := map[string]int{}
		for _, text := range hop.kept(t) {
			subject := firstSubject.FindStringSubmatch(text)
			if subject == nil {
				t.Errorf("%s has a message that nobody sent: %.500q", hop.name, text)
				continue
			}
			found[subject[1]]++
			if want := hop.mangle(believed[subject[1]]); !strings.HasSuffix(text, want) {
				t.Errorf("%s has %s as %s", hop.name, subject[1], difference(text, want))
			}
		}
		for subject := range believed {
			if found[subject] != 1 {
				t.Errorf("%s has %s %d times", hop.name, subject, found[subject])
			}
		}
		if len(found) != len(believed) {
			t.Errorf("%s has %d messages, want %d", hop.name, len(found), len(believed))
		}
	}
}

var ourFields = regexp.MustCompile(`^Received: from [^\r]+(\r\n[ \t][^\r]+)*\r\nCFBL-Feedback-ID: [^\r]+(\r\n[ \t][^\r]+)*\r\n$`)

// checkExactly holds that what arrived is what was believed to be sent, below the fields that the edge adds.
func checkExactly(t *testing.T, mx *relaytest.MX, believed map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	found := map[string]int{}
	for _, m := range mx.WaitMessages(ctx, t, len(believed)) {
		text := string(m.Body)
		match := firstSubject.FindStringSubmatch(text)
		if match == nil {
			t.Errorf("a message arrived that nobody sent: %.500q", text)
			continue
		}
		subject := match[1]
		found[subject]++
		want, sent := believed[subject]
		above, ends := strings.CutSuffix(text, want)
		switch {
		case !sent:
			t.Errorf("%q arrived, though nobody believes it sent", subject)
		case found[subject] > 1:
			t.Errorf("%s arrived again", subject)
		case !ends:
			t.Errorf("%s arrived as %s", subject, difference(text, want))
		case !ourFields.MatchString(above):
			t.Errorf("above %s stands %q", subject, above)
		}
	}
	for subject := range believed {
		if found[subject] == 0 {
			t.Errorf("%s never arrived", subject)
		}
	}
}

// difference shows two texts around the last byte in which their ends differ.
func difference(got, want string) string {
	n := 0
	for n < len(got) && n < len(want) && got[len(got)-1-n] == want[len(want)-1-n] {
		n++
	}
	around := func(s string) string { return s[max(0, len(s)-n-80):min(len(s), max(0, len(s)-n)+80)] }
	return fmt.Sprintf("…%q… want …%q…, %d bytes from the end", around(got), around(want), n)
}
