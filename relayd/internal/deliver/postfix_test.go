package deliver_test

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

// smtpSink starts Postfix's own sink, which writes what it takes into files
// below dir, and returns its address.
func smtpSink(t *testing.T, dir string, args ...string) netip.AddrPort {
	t.Helper()
	path, err := exec.LookPath("smtp-sink")
	if err != nil {
		if path = "/usr/sbin/smtp-sink"; !executable(path) {
			t.Fatal("smtp-sink is missing: install the Debian package postfix")
		}
	}
	addr := netip.MustParseAddrPort("127.0.0.1:" + relaytest.FreePort(t))
	args = append([]string{"-d", filepath.Join(dir, "m.")}, args...)
	if os.Getuid() == 0 {
		args = append([]string{"-u", "postfix"}, args...)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	sink := exec.Command(path, append(args, addr.String(), "100")...)
	sink.Stdout, sink.Stderr = &said, &said
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sink.Process.Kill()
		_ = sink.Wait()
	})
	waitForPort(t, addr, &said)
	return addr
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}

// waitForPort polls, because a process of somebody else's cannot tell when it
// is ready.
func waitForPort(t *testing.T, addr netip.AddrPort, said *bytes.Buffer) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", addr.String())
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("smtp-sink does not listen on %s: %v: %s", addr, err, said)
		}
	}
}

// sunk returns the messages below dir as smtp-sink wrote them: lines end in LF,
// and its own fields, the last of them a Received of three lines, are cut off.
func sunk(t *testing.T, dir string) []string {
	t.Helper()
	own := regexp.MustCompile(`(?s)\AX-Client-Addr: .*?\nReceived: [^\n]*\n\t[^\n]*\n\t[^\n]*\n`)
	paths, err := filepath.Glob(filepath.Join(dir, "m.*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimSuffix(own.ReplaceAllString(string(text), ""), "\n"))
	}
	return out
}

func TestPostfixsSinkReceivesTheMessageByteForByte(t *testing.T) {
	text := "From: a@example.com\r\nTo: b@y.test\r\nSubject: dots\r\n\r\n.\r\n..\r\n.x\r\n" +
		strings.Repeat("0123456789", 90) + "\r\n\xff\xfe\r\n\r\nend\r\n"
	want := strings.ReplaceAll(text, "\r\n", "\n")
	for name, args := range map[string][]string{"pipelined": nil, "without pipelining": {"-p"}, "without ESMTP": {"-e"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			addr := smtpSink(t, dir, args...)
			job := jobByMX(text, "b@y.test", "c@y.test")
			job.Route = queue.Route{Host: addr.Addr().String(), Port: addr.Port()}
			s := newSender(t, nil)
			for range 3 {
				if got := s.Attempt(t.Context(), job); briefs(got) != "delivered 250 2.0.0; delivered 250 2.0.0" {
					t.Fatalf("got %s %q (%v)", briefs(got), got[0].Text, got[0].Err)
				}
			}
			got := sunk(t, dir)
			if len(got) != 3 || got[0] != want || got[1] != want || got[2] != want {
				t.Errorf("the sink has %q, want three times %q", got, want)
			}
		})
	}
}

// Matrix row 42, with a peer of somebody else's.
func TestRow42PostfixsSinkThatWaitsIsNotWaitedFor(t *testing.T) {
	for _, command := range []string{"ehlo", "mail", "rcpt", "data", "."} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			// -p: it answers pipelined commands out of turn while it waits.
			addr := smtpSink(t, t.TempDir(), "-p", "-W", command+":60")
			job := jobByMX(mail, "b@y.test")
			job.Route = queue.Route{Host: addr.Addr().String(), Port: addr.Port()}
			got := newSender(t, impatient).Attempt(t.Context(), job)
			if r := got[0]; r.Class != queue.TempFail || r.Enhanced != "4.4.2" || r.Uncertain != (command == ".") {
				t.Errorf("got %s %q (%v)", briefs(got), r.Text, r.Err)
			}
		})
	}
}

func TestPostfixsSinkCanFailInEveryWay(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{name: "hard error at RCPT", args: []string{"-f", "rcpt"}, want: "permanent 500 5.3.0"},
		{name: "soft error at RCPT", args: []string{"-r", "rcpt"}, want: "temporary 450 4.3.0"},
		{name: "hard error after the dot", args: []string{"-f", "."}, want: "permanent 500 5.3.0"},
		{name: "soft error after the dot", args: []string{"-r", "."}, want: "temporary 450 4.3.0"},
		{name: "closes at MAIL", args: []string{"-q", "mail"}, want: "temporary 0 4.4.2"},
		{name: "closes at DATA", args: []string{"-q", "data"}, want: "temporary 0 4.4.2"},
		{name: "421 and close at MAIL", args: []string{"-Q", "mail"}, want: "temporary 421 4.0.0"},
		{name: "421 and close after the dot", args: []string{"-Q", "."}, want: "temporary 421 4.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			addr := smtpSink(t, dir, c.args...)
			job := jobByMX(mail, "b@y.test")
			job.Route = queue.Route{Host: addr.Addr().String(), Port: addr.Port()}
			if got := newSender(t, nil).Attempt(t.Context(), job); briefs(got) != c.want {
				t.Errorf("got %s %q (%v), want %s", briefs(got), got[0].Text, got[0].Err, c.want)
			}
		})
	}
}
