package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// awkward are messages that relays have choked on, by name. Where the content is regular every edge takes it; the rest only
// one that makes line ends regular, unless the client did so before.
func awkward() []struct {
	name, body string
	irregular  bool
} {
	return []struct {
		name, body string
		irregular  bool
	}{
		{name: "dots", body: ".\r\n..\r\n...\r\n.a\r\n\r\n.\r\nend\r\n"},
		{name: "crcrlf", body: "one\r\r\ntwo\r\r\n", irregular: true},
		{name: "long-line", body: strings.Repeat("x", 65_000) + "\r\nafter\r\n"},
		{name: "eight-bit", body: "\xe4\xf6\xfc \xff\xfe\r\n"},
		{name: "nul", body: "a\x00b\r\n", irregular: true},
		{name: "no-final-newline", body: "first\r\nlast"},
		{name: "bare-lf", body: "one\ntwo\r\n", irregular: true},
	}
}

// mailClients are commands that send the file they are given as standard input, or by name, from anna@example.com to
// bob@example.net.
func mailClients(t *testing.T, relay string) map[string]func(file string) *exec.Cmd {
	t.Helper()
	host, port, err := net.SplitHostPort(relay)
	must(t, err)
	curl, swaks, msmtp := need(t, "curl", "curl"), need(t, "swaks", "swaks"), need(t, "msmtp", "msmtp")
	const script = "import smtplib, sys\n" +
		"with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as s:\n" +
		"    s.sendmail('anna@example.com', 'bob@example.net', open(sys.argv[3], 'rb').read())\n"
	return map[string]func(string) *exec.Cmd{
		"curl": func(file string) *exec.Cmd {
			return exec.Command(curl, "-v", "--url", "smtp://"+relay, "--mail-from", "anna@example.com", "--mail-rcpt", "bob@example.net", "--upload-file", file)
		},
		"swaks": func(file string) *exec.Cmd {
			return exec.Command(swaks, "--server", host, "--port", port, "--from", "anna@example.com", "--to", "bob@example.net", "--data", "@"+file)
		},
		"smtplib": func(file string) *exec.Cmd { return exec.Command("/usr/bin/python3", "-c", script, host, port, file) },
		"msmtp": func(file string) *exec.Cmd {
			cmd := exec.Command(msmtp, "--file=/dev/null", "--host="+host, "--port="+port, "--from=anna@example.com", "--auth=off", "--tls=off", "bob@example.net")
			text, err := os.ReadFile(file)
			must(t, err)
			cmd.Stdin = bytes.NewReader(text)
			return cmd
		},
	}
}

// Matrix row 13 with real clients: a message that its client believes to be sent arrives once and whole, one that arrives was
// acknowledged, and nothing hangs.
func TestRow13WhatRealClientsBelieveToBeSentArrives(t *testing.T) {
	for _, mode := range []string{"refuse", "normalise"} {
		t.Run(mode, func(t *testing.T) {
			mx := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"8BITMIME", "PIPELINING"}})
			s := newStack(t)
			edge := s.addEdge()
			s.seed(mx.Addr().String())
			s.ctl("settings", "update", "--bare-newline", mode)
			s.synced()
			believed := map[string]string{}
			for name, client := range mailClients(t, edge.relay) {
				for _, message := range awkward() {
					subject := name + "-" + message.name
					sent, output := sendFile(t, client, subject, message.body)
					switch {
					case sent:
						believed[subject] = message.body
					case !message.irregular || mode == "normalise":
						t.Errorf("%s was refused: %s", subject, output)
					case !strings.Contains(output, "550"):
						t.Errorf("%s was refused, but not clearly: %s", subject, output)
					}
				}
			}
			checkBelieved(t, mx, believed)
		})
	}
}

// A customer's Postfix sends them too. It makes all regular but NUL, and breaks long lines.
func TestRow13APostfixSendsAwkwardMessages(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"8BITMIME", "PIPELINING"}})
	s := newStack(t)
	edge := s.addEdge()
	s.seed(mx.Addr().String())
	s.ctl("settings", "update", "--bare-newline", "normalise")
	s.synced()
	customer := startPostfix(t, "relayhost = [127.0.0.1]:"+port(edge.relay))
	believed := map[string]string{}
	for _, message := range awkward() {
		subject := "postfix-" + message.name
		customer.submit(t, "anna@example.com", "bob@example.net", []byte(header(subject)+message.body))
		believed[subject] = message.body
	}
	checkBelieved(t, mx, believed)
}

func header(subject string) string {
	return "From: anna@example.com\r\nTo: bob@example.net\r\nSubject: " + subject + "\r\nDate: Sun, 22 Nov 2026 10:00:00 +0100\r\n" +
		"Message-ID: <" + subject + "@example.com>\r\n\r\n"
}

// sendFile answers whether the client believes the message to be sent, and what it said.
func sendFile(t *testing.T, client func(string) *exec.Cmd, subject, body string) (sent bool, output string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "message.eml")
	must(t, os.WriteFile(file, []byte(header(subject)+body), 0o600))
	cmd := client(file)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%s took %v", subject, took)
	}
	return err == nil, fmt.Sprintf("%v: %s", err, tail(string(out), 2000))
}

// checkBelieved holds that what arrived is what was believed to be sent, but for line ends.
func checkBelieved(t *testing.T, mx *relaytest.MX, believed map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	messages := mx.WaitMessages(ctx, t, len(believed))
	for _, m := range messages {
		_, rest, _ := strings.Cut(string(m.Body), "\r\nSubject: ")
		subject, _, _ := strings.Cut(rest, "\r\n")
		_, body, _ := strings.Cut(rest, "\r\n\r\n")
		want, sent := believed[subject]
		delete(believed, subject)
		switch {
		case !sent:
			t.Errorf("%q arrived, though nobody believes it sent, or twice", subject)
		case unlined(body) != unlined(want):
			t.Errorf("%s arrived as %.200q, want %.200q", subject, body, want)
		case strings.ContainsAny(strings.ReplaceAll(body, "\r\n", ""), "\r\n\x00"):
			t.Errorf("%s arrived with odd line ends: %.200q", subject, body)
		}
	}
	for subject := range believed {
		t.Errorf("%s never arrived", subject)
	}
}

// unlined is a text without what a client or the edge may change: its line ends, NUL, and the space that Postfix puts where it
// breaks a long line.
func unlined(s string) string {
	return strings.NewReplacer("\r\n ", "", "\r", "", "\n", "", "\x00", "").Replace(s)
}
