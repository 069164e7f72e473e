package smtpwire

import (
	"bytes"

	"activerelay/api/reason"

	"github.com/emersion/go-smtp"
)

// maxVerb is the longest command word that is looked at.
const maxVerb = 8

// run does what one line says.
func (c *Conn) run(line []byte) {
	c.busy()
	word, arg, hasArg := bytes.Cut(line, []byte(" "))
	arg = bytes.Trim(arg, " ")
	var upper [maxVerb]byte
	verb := upper[:copy(upper[:], word)]
	if len(word) > maxVerb {
		verb = nil
	}
	for i, b := range verb {
		if 'a' <= b && b <= 'z' {
			verb[i] = b - ('a' - 'A')
		}
	}
	// Comparing a converted slice does not allocate.
	switch string(verb) {
	case "MAIL":
		c.mail(arg)
		return
	case "RCPT":
		c.rcpt(arg)
		return
	}
	// In a path a control character is for the session to refuse, which knows
	// whose address it is. Elsewhere it is for us.
	if hasControl(line) {
		c.badSyntax(reason.StageConnect, "control character in a command")
		return
	}
	if hasArg && len(arg) > 0 && isHTTP(verb) {
		c.hangUp(reason.StageConnect, reason.NotSMTP)
		return
	}
	if !c.runBare(string(verb), len(arg) > 0) {
		c.runWithArg(string(verb), arg)
	}
}

// runBare runs the commands that take no argument.
func (c *Conn) runBare(verb string, hasArg bool) (known bool) {
	var do func()
	switch verb {
	case "DATA":
		do = c.data
	case "RSET":
		do = c.rset
	case "QUIT":
		do = c.quit
	case "STARTTLS":
		do = c.startTLS
	default:
		return false
	}
	if hasArg {
		c.badSyntax(reason.StageConnect, verb+" takes no argument")
		return true
	}
	do()
	return true
}

func (c *Conn) runWithArg(verb string, arg []byte) {
	switch verb {
	case "EHLO", "HELO":
		c.hello(verb == "EHLO", arg)
	case "AUTH":
		c.auth(arg)
	case "NOOP":
		c.put(sayReset)
		c.countJunk()
	case "VRFY":
		c.vrfy(arg)
	case "HELP":
		c.put(sayHelp)
		c.countJunk()
	case "BDAT":
		// The chunk follows whatever is said, and must not be run.
		c.refuse(Refusal{Stage: reason.StageData, Slug: reason.CommandNotOffered})
		c.ended = true
	case "EXPN", "TURN", "ETRN", "ATRN", "SEND", "SOML", "SAML":
		c.refuse(Refusal{Stage: reason.StageConnect, Slug: reason.CommandNotOffered})
	default:
		c.refuse(Refusal{Stage: reason.StageConnect, Slug: reason.CommandUnknown})
	}
}

func hasControl(line []byte) bool {
	for _, b := range line {
		if b < ' ' || b == 0x7f {
			return true
		}
	}
	return false
}

// isHTTP reports whether a browser, or somebody with a web page to post, is
// talking to us.
func isHTTP(verb []byte) bool {
	switch string(verb) {
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE":
		return true
	}
	return false
}

func (c *Conn) badSyntax(stage reason.Stage, detail string) {
	c.refuse(Refusal{Stage: stage, Slug: reason.CommandSyntax, Args: reason.Args{Detail: detail}})
}

func (c *Conn) badSequence(stage reason.Stage, detail string) {
	c.refuse(Refusal{Stage: stage, Slug: reason.CommandSequence, Args: reason.Args{Detail: detail}})
}

// hello is EHLO and HELO. The first makes the session, further ones reset it
// (RFC 5321 4.1.4).
func (c *Conn) hello(extended bool, arg []byte) {
	name, _, _ := bytes.Cut(arg, []byte(" "))
	if len(name) == 0 || len(name) > maxHelloBytes {
		c.badSyntax(reason.StageConnect, "a host name or address literal is required")
		return
	}
	before, again := c.helo, c.session != nil
	c.helo = string(name)
	if again {
		c.reset()
	} else {
		ses, err := c.server.backend.NewSession(c)
		if err == nil && !c.ended {
			c.session = ses
		} else {
			c.helo = before
			c.noSession(ses, err)
			return
		}
	}
	c.esmtp = extended
	if extended {
		c.announce()
	} else {
		c.put("250 " + c.server.config.Hostname + "\r\n")
	}
	if again {
		c.countJunk()
	}
}

// noSession is what happens when the backend gave an error, or rejected.
func (c *Conn) noSession(ses smtp.Session, err error) {
	c.session = ses // so that it is logged out
	if c.ended {
		return
	}
	c.session = nil
	if c.fail(reason.StageConnect, err) {
		c.ended = true // an error that says yes is nothing to go on with
	}
}

// announce lists what the server can do.
func (c *Conn) announce() {
	size, recipients := c.server.config.MaxMessageBytes, 0
	if a, ok := c.session.(Announcer); ok {
		size, recipients = a.Announce()
	}
	c.out = append(c.out, "250-"...)
	c.out = append(c.out, c.server.config.Hostname...)
	c.out = append(c.out, "\r\n250-SIZE"...)
	if size > 0 {
		c.out = appendNumber(append(c.out, ' '), size)
	}
	c.out = append(c.out, "\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n"...)
	if recipients > 0 { // RFC 9422
		c.out = append(appendNumber(append(c.out, "250-LIMITS RCPTMAX="...), int64(recipients)), "\r\n"...)
	}
	if c.tls == nil && c.server.config.TLS != nil {
		c.out = append(c.out, "250-STARTTLS\r\n"...)
	}
	if c.authAllowed() {
		for i, mechanism := range c.mechanisms() {
			if i == 0 {
				c.out = append(c.out, "250-AUTH"...)
			}
			c.out = append(append(c.out, ' '), mechanism...)
		}
		if len(c.mechanisms()) > 0 {
			c.out = append(c.out, "\r\n"...)
		}
	}
	if c.tls != nil { // RFC 8689 4.2.1
		c.out = append(c.out, "250-REQUIRETLS\r\n"...)
	}
	c.put("250 DSN\r\n")
}

func (c *Conn) vrfy(arg []byte) {
	if len(arg) == 0 {
		c.badSyntax(reason.StageConnect, "VRFY needs an argument")
		return
	}
	c.put(sayVrfy)
	c.countJunk()
}

// rset is RSET. MAIL and RSET in turn are worth as little as RSET alone: whoever wants to send asks for a recipient.
func (c *Conn) rset() {
	junk := !c.asked
	c.reset()
	c.put(sayReset)
	if junk {
		c.countJunk()
	}
}

// reset forgets the transaction.
func (c *Conn) reset() {
	c.inMail, c.asked = false, false
	c.rcpts = 0
	if c.session != nil {
		c.session.Reset()
	}
}

func (c *Conn) quit() {
	c.put(sayBye)
	c.ended = true
	c.clean = c.r == c.w
}
