package deliver

import (
	"encoding/base64"
	"fmt"

	"activerelay/relayd/internal/queue"
)

// authenticate logs in where the route has credentials. A login that fails is
// temporary: the setting is wrong, not the mail.
func authenticate(c *conn, creds queue.Credentials) *failure {
	if creds == (queue.Credentials{}) {
		return nil
	}
	if c.tls == "" && !c.peer.Addr().IsLoopback() {
		return loginFailure("the smarthost's password is not sent without TLS")
	}
	var r reply
	var f *failure
	switch {
	case c.ext.auth["PLAIN"]:
		r, f = c.authPlain(creds)
	case c.ext.auth["LOGIN"]:
		r, f = c.authLogin(creds)
	default:
		return loginFailure("the smarthost offers neither AUTH PLAIN nor AUTH LOGIN")
	}
	if f != nil {
		return f
	}
	if r.code != 235 {
		f := loginFailure(fmt.Sprintf("the smarthost refuses the login: %d %s", r.code, r.text))
		f.code = r.code
		return f
	}
	return nil
}

func loginFailure(text string) *failure {
	f := temporary("4.7.8", text, nil)
	f.transport = true
	return f
}

// authPlain is RFC 4616 with the initial response of RFC 4954 4.
func (c *conn) authPlain(creds queue.Credentials) (reply, *failure) {
	secret := encode64("\x00" + creds.Username + "\x00" + creds.Password.Reveal())
	return c.command("AUTH", "AUTH PLAIN "+secret, c.timeouts.Hello)
}

// authLogin answers the two prompts in the order in which everyone asks.
func (c *conn) authLogin(creds queue.Credentials) (reply, *failure) {
	r, f := c.command("AUTH", "AUTH LOGIN", c.timeouts.Hello)
	for _, answer := range []string{creds.Username, creds.Password.Reveal()} {
		if f != nil || r.code != 334 {
			return r, f
		}
		r, f = c.command("AUTH", encode64(answer), c.timeouts.Hello)
	}
	return r, f
}

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
