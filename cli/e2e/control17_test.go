package e2e

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
)

// Control 17: passwords are made by the platform, taken over TLS alone, for no other user, and checked by what the edge has on its own
// disk: while the control plane is away, and after a start without it, too. Whether a user exists cannot be told from the reply.
// Package verifier has the cost of a check, package smtpd how many there may be at once and what guessers get.
func TestControl17AnEdgeChecksPasswordsByItselfAndOverTLSOnly(t *testing.T) {
	u := newUsers(t)
	password := u.create("anna@example.com")
	if letters := strings.ReplaceAll(password, "-", ""); len(letters) < 24 { // of an alphabet of more than 40: 128 bits
		t.Errorf("a password has %d letters", len(letters))
	}
	if u.create("ben@example.com") == password {
		t.Error("two users have the same password")
	}
	plain := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00anna@example.com\x00"+password))
	for _, server := range []string{u.edge.relay, u.submission} {
		d := dial(t, server, "127.0.0.9")
		if r := d.say("EHLO client.example"); strings.Contains(strings.Join(r.lines, "\n"), "AUTH") {
			t.Errorf("a password is asked for without TLS: %v", r)
		}
		if r := d.say(plain); r.code < 500 {
			t.Errorf("a password without TLS is answered %v", r)
		}
	}
	wrong := regexp.MustCompile(`(?m)^<~\* +(535[ -].*)$`)
	known, _ := u.login(u.submission, "PLAIN", "anna@example.com", "guess", "--tls")
	unknown, _ := u.login(u.submission, "PLAIN", "nobody@example.com", "guess", "--tls")
	if a, b := wrong.FindStringSubmatch(known), wrong.FindStringSubmatch(unknown); a == nil || b == nil || a[1] != b[1] {
		t.Errorf("a wrong password is answered %q, an unknown user %q", a, b)
	}

	login := func(when string) {
		t.Helper()
		if talk, code := u.login(u.submission, "PLAIN", "anna@example.com", password, "--tls", "--quit-after", "AUTH"); code != 0 || !strings.Contains(talk, " 235 ") {
			t.Errorf("%s: exit %d\n%s", when, code, talk)
		}
	}
	u.server.kill()
	login("without the control plane")
	u.edge.kill()
	u.edge.start()
	u.waitJoined(u.edge.admin)
	login("after a start without the control plane")
}
