package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// users is a stack whose edge takes users: STARTTLS on one port, TLS from the first byte on another.
type users struct {
	*stack
	edge             *edgeProcess
	submission, smtp string // ports of STARTTLS and implicit TLS
	inbox            string
}

func newUsers(t *testing.T) *users {
	t.Helper()
	need(t, "swaks", "swaks")
	sink, inbox := smtpSink(t)
	s := newStack(t)
	cert, key := filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	run(t, need(t, "openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
		"-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=edge1.relay.example")
	u := &users{stack: s, submission: "127.0.0.1:" + freePort(t), smtp: "127.0.0.1:" + freePort(t), inbox: inbox}
	u.edge = s.addEdge("--submission-listen", u.submission, "--tls-listen", u.smtp, "--tls-cert", cert, "--tls-key", key)
	s.seed(sink)
	return u
}

// create makes a user with a password that the platform chooses.
func (u *users) create(address string, args ...string) (password string) {
	u.t.Helper()
	var made struct{ Password string }
	u.ctlJSON(&made, append([]string{"user", "create", "--address", address}, args...)...)
	if len(made.Password) < 16 {
		u.t.Fatalf("the password that was made is %q", made.Password)
	}
	u.synced()
	return made.Password
}

// swaks sends one message as a mail program does, and answers the whole conversation and the exit code.
func swaks(t *testing.T, args ...string) (conversation string, code int) {
	t.Helper()
	cmd := exec.Command("swaks", append([]string{"--helo", "laptop.example", "--to", "bob@example.net", "--timeout", "60"}, args...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (u *users) login(port, mechanism, user, password string, args ...string) (string, int) {
	u.t.Helper()
	return swaks(u.t, append([]string{
		"--server", port, "--auth", mechanism, "--auth-user", user, "--auth-password", password, "--header-From", "<" + user + ">", "--from", user,
	}, args...)...)
}

func TestAUserWithPasswordSendsFromAnywhereOverTLS(t *testing.T) {
	u := newUsers(t)
	password := u.create("anna@example.com", "--aliases", "sales@example.com")
	for _, way := range []struct {
		name, port, mechanism, tls string
	}{
		{name: "STARTTLS and PLAIN", port: u.submission, mechanism: "PLAIN", tls: "--tls"},
		{name: "STARTTLS and LOGIN", port: u.submission, mechanism: "LOGIN", tls: "--tls"},
		{name: "TLS from the first byte", port: u.smtp, mechanism: "PLAIN", tls: "--tls-on-connect"},
		{name: "the relay port", port: u.edge.relay, mechanism: "PLAIN", tls: "--tls"},
	} {
		if talk, code := u.login(way.port, way.mechanism, "anna@example.com", password, way.tls, "--local-interface", "127.0.0.9"); code != 0 {
			t.Errorf("%s: exit %d\n%s", way.name, code, talk)
		}
	}
	if talk, code := u.login(u.submission, "PLAIN", "anna@example.com", password, "--tls", "--from", "sales@example.com", "--header-From", "<sales@example.com>"); code != 0 {
		t.Errorf("alias: exit %d\n%s", code, talk)
	}
	received(t, u.inbox, 5)
	for _, want := range []string{"anna@example.com", "127.0.0.9", "sales@example.com"} {
		eventually(t, want+" among the top senders", func() bool { return strings.Contains(u.ctl("sender", "top", "example.com"), want) })
	}
}

func TestWhoMayNotSendAsAUserHearsWhy(t *testing.T) {
	u := newUsers(t)
	password := u.create("anna@example.com")
	u.create("ben@example.com")
	refused := func(name, want string, talk string, code int) {
		t.Helper()
		if code == 0 || !regexp.MustCompile(`(?m)^<[~*-][*~-]? +`+want).MatchString(talk) {
			t.Errorf("%s: exit %d, want a reply %s in\n%s", name, code, want, talk)
		}
	}
	talk, code := u.login(u.submission, "PLAIN", "anna@example.com", "wrong password", "--tls")
	refused("wrong password", `535[- ]5\.7\.8 User name or password is wrong`, talk, code)
	talk, code = u.login(u.submission, "PLAIN", "nobody@example.com", password, "--tls")
	refused("unknown user", `535[- ]5\.7\.8 User name or password is wrong`, talk, code)
	talk, code = u.login(u.submission, "PLAIN", "anna@example.com", password, "--tls", "--from", "ben@example.com")
	refused("somebody else's address", `553[- ]5\.7\.1 anna@example\.com may not send as ben@example\.com`, talk, code)
	talk, code = u.login(u.submission, "PLAIN", "anna@example.com", password, "--tls", "--header-From", "<ben@example.com>")
	refused("somebody else's header From", `553[- ]5\.7\.1 anna@example\.com may not send as ben@example\.com`, talk, code)
	talk, code = swaks(t, "--server", u.submission, "--from", "anna@example.com")
	refused("no TLS", `530[- ]5\.7\.0 Start TLS first`, talk, code)
	talk, code = swaks(t, "--server", u.submission, "--tls", "--from", "anna@example.com")
	refused("no password", `530[- ]5\.7\.0 Authentication is required`, talk, code)

	u.ctl("user", "rotate-password", "anna@example.com", "--yes")
	u.synced()
	talk, code = u.login(u.submission, "PLAIN", "anna@example.com", password, "--tls")
	refused("the password before", `535[- ]5\.7\.8 User name or password is wrong`, talk, code)

	password = u.create("carl@example.com")
	u.ctl("user", "suspend", "carl@example.com", "--yes", "--reason", "left")
	u.synced()
	talk, code = u.login(u.submission, "PLAIN", "carl@example.com", password, "--tls")
	refused("suspended user", `450[- ]4\.7\.1 Relaying is suspended for carl@example\.com`, talk, code)
}

// A password never stands in a log, whatever became of it.
func TestControl24NoPasswordOrTokenIsLogged(t *testing.T) {
	u := newUsers(t)
	password := u.create("anna@example.com")
	_, _ = u.login(u.submission, "PLAIN", "anna@example.com", password, "--tls")
	_, _ = u.login(u.submission, "LOGIN", "anna@example.com", "guess-"+password, "--tls")
	_, _, _ = u.ctlExit("partner", "show", "nobody", "--verbose")
	for _, p := range []*process{u.server, u.edge.process} {
		for _, secret := range []string{password, u.token, strings.SplitN(u.token, "_", 3)[2]} {
			if strings.Contains(p.out.String(), secret) {
				t.Errorf("%s logs a secret", p.program)
			}
		}
		args, err := os.ReadFile("/proc/" + p.pid() + "/cmdline")
		must(t, err)
		if strings.Contains(string(args), u.token) {
			t.Errorf("%s has a token in its arguments", p.program)
		}
	}
}
