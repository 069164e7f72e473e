package smtpwire

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"activerelay/api/reason"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// mechanisms are what the session can check.
func (c *Conn) mechanisms() []string {
	if ses, ok := c.session.(smtp.AuthSession); ok {
		return ses.AuthMechanisms()
	}
	return nil
}

func (c *Conn) authAllowed() bool { return c.tls != nil || c.server.config.AllowInsecureAuth }

// auth is AUTH (RFC 4954).
func (c *Conn) auth(arg []byte) {
	const stage = reason.StageAuth
	mechanism, initial, _ := bytes.Cut(arg, []byte(" "))
	switch name := strings.ToUpper(string(mechanism)); {
	case c.session == nil:
		c.badSequence(stage, "say EHLO first")
	case c.inMail:
		c.badSequence(stage, "AUTH within a message")
	case c.authed:
		c.badSequence(stage, "authenticated already")
	case len(c.mechanisms()) == 0:
		c.refuse(Refusal{Stage: stage, Slug: reason.CommandNotOffered})
	case !c.authAllowed():
		c.refuse(Refusal{Stage: stage, Slug: reason.TLSRequired})
	case name == "":
		c.badSyntax(stage, "AUTH needs a mechanism")
	case !slices.Contains(c.mechanisms(), name):
		c.refuse(Refusal{Stage: stage, Slug: reason.AuthMechanism})
	default:
		c.authenticate(name, bytes.Trim(initial, " "))
	}
}

// authenticate lets the session's mechanism talk with the client.
func (c *Conn) authenticate(mechanism string, initial []byte) {
	// The initial response lies in the buffer: decode it before reading on.
	var response []byte
	if len(initial) > 0 {
		var ok bool
		if response, ok = c.decodeSASL(initial); !ok {
			return
		}
	}
	ses, _ := c.session.(smtp.AuthSession) // mechanisms() was not empty
	server, err := ses.Auth(mechanism)
	if err != nil {
		c.authFailed(err)
		return
	}
	for {
		challenge, done, err := server.Next(response)
		switch {
		case err != nil:
			c.authFailed(err)
			return
		case done:
			c.authed = true
			c.put(sayAuthed)
			return
		}
		var ok bool
		if response, ok = c.ask(challenge); !ok {
			return
		}
	}
}

// ask sends a challenge and reads the response. After a false everything is
// said.
func (c *Conn) ask(challenge []byte) (response []byte, ok bool) {
	c.put("334 " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
	c.authing = true
	line, err := c.readLine()
	c.authing = false
	c.busy()
	switch {
	case err != nil:
		if !c.readFailed(err) {
			c.ended = true
		}
		return nil, false
	case string(line) == "*":
		c.refuse(Refusal{Stage: reason.StageAuth, Slug: reason.AuthCancelled})
		return nil, false
	}
	return c.decodeSASL(line)
}

// decodeSASL decodes a response. "=" is an empty one (RFC 4954 4).
func (c *Conn) decodeSASL(line []byte) (response []byte, ok bool) {
	if string(line) == "=" {
		return []byte{}, true
	}
	// The decoder of encoding/base64 skips line ends, we do not.
	response = make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Strict().Decode(response, line)
	if err != nil || hasControl(line) {
		c.badSyntax(reason.StageAuth, "not base64")
		return nil, false
	}
	return response[:n], true
}

// authFailed says why not, and counts wrong passwords, and those that could not
// be checked: they cost as much.
func (c *Conn) authFailed(err error) {
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok && (reply.Code == 535 || reply.Code == 454) {
		c.authFailures++
		if c.authFailures >= c.server.limits.AuthFailures {
			c.ended = true
		}
	}
	if errors.Is(err, sasl.ErrUnexpectedServerChallenge) {
		err = errors.Join(sasl.ErrUnexpectedClientResponse, err)
	}
	if c.fail(reason.StageAuth, err) {
		c.ended = true // an error that says yes is nothing to go on with
	}
}
