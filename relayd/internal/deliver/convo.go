package deliver

import (
	"fmt"
	"io"
	"strings"

	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/queue"
)

// pipelined is how many commands are written before their replies are read.
// Together they fit the smallest usual socket buffer, so that neither side can
// block on the other (RFC 2920 3.1).
const pipelined = 50

// checkAddresses parses every address again: what is written to another server
// is what a parser made, never what a stranger sent.
func checkAddresses(job queue.Job, out *outcome) {
	if !job.Sender.IsNull() && !parses(job.Sender) {
		out.failRest(permanent(553, "5.1.7", "the sender address cannot be written to another server"))
		return
	}
	for i, r := range job.Recipients {
		if !parses(r.Address) {
			out.decide(i, permanent(553, "5.1.3", "the address cannot be written to another server").result())
		}
	}
}

func parses(a mailaddr.Address) bool {
	again, err := mailaddr.Parse(a.String(), mailaddr.Options{SMTPUTF8: true})
	return err == nil && again == a
}

// transaction is one message on one connection.
type transaction struct {
	c   *conn
	job queue.Job
	out *outcome
	// accepted are the recipients that the server took, by index.
	accepted []int
	// refused is the reply that ended the transaction for everyone.
	refused *failure
	// proceed says that the server waits for the message.
	proceed bool
}

// step is one command of the envelope and what to do with its reply.
type step struct {
	name, command string
	heard         func(reply)
}

// transact delivers the job's undecided recipients over c. It decides all of
// them and returns nil, or returns why the rest is open.
func (c *conn) transact(job queue.Job, out *outcome) *failure {
	body, err := job.Open()
	if err != nil {
		return temporary("4.3.0", "the message cannot be read from the spool", err)
	}
	defer body.Close()
	t := &transaction{c: c, job: job, out: out}
	if f := t.refuseUnsuited(); f != nil {
		return f
	}
	c.messages++
	c.dirty = true
	if f := t.envelope(); f != nil {
		return f
	}
	if len(t.accepted) == 0 {
		return t.abandon()
	}
	if t.refused != nil {
		return t.end()
	}
	return t.message(body)
}

// envelope sends MAIL, RCPT and DATA, many at a time where the server allows
// it, and reads their replies.
func (t *transaction) envelope() *failure {
	steps := t.steps()
	window := 1
	if t.c.ext.pipelining {
		window = pipelined
	}
	for len(steps) > 0 {
		group := steps[:min(window, len(steps))]
		steps = steps[len(group):]
		if window == 1 && group[0].name == "DATA" && len(t.accepted) == 0 {
			return nil
		}
		if f := t.exchange(group); f != nil {
			return f
		}
		if t.refused != nil {
			return nil
		}
	}
	return nil
}

// exchange sends a group of commands at once and hears all their replies.
func (t *transaction) exchange(group []step) *failure {
	for _, s := range group {
		t.c.line(s.command)
	}
	if f := t.c.flush(group[0].name, t.c.patience(group[0].name)); f != nil {
		return f
	}
	for _, s := range group {
		r, f := t.c.reply(s.name, t.c.patience(s.name))
		if f != nil {
			return f
		}
		if r.code == 421 {
			return refusal(r, s.name)
		}
		s.heard(r)
	}
	return nil
}

// steps lists the envelope's commands for the recipients still undecided.
func (t *transaction) steps() []step {
	steps := []step{{name: "MAIL FROM", command: t.mailCommand(), heard: func(r reply) {
		if r.code/100 != 2 {
			t.refused = refusal(r, "MAIL FROM")
		}
	}}}
	for i, rcpt := range t.job.Recipients {
		if t.out.decided[i] {
			continue
		}
		steps = append(steps, step{name: "RCPT TO", command: t.rcptCommand(rcpt), heard: func(r reply) {
			t.heardRcpt(i, r)
		}})
	}
	return append(steps, step{name: "DATA", command: "DATA", heard: func(r reply) {
		t.proceed = r.code == 354
		if !t.proceed && t.refused == nil {
			t.refused = refusal(r, "DATA")
		}
	}})
}

func (t *transaction) heardRcpt(i int, r reply) {
	switch {
	case t.refused != nil: // MAIL was refused: this reply is about that
	case r.code/100 == 2:
		t.accepted = append(t.accepted, i)
	default:
		f := refusal(r, "RCPT TO")
		if r.code == 552 && (r.enhanced == "" || r.enhanced == "5.5.3") {
			// RFC 5321 4.5.3.1.10: an old way to say "too many recipients".
			f.class, f.enhanced = queue.TempFail, "4.5.3"
		}
		t.out.decide(i, f.at(t.c).result())
	}
}

// abandon ends a transaction in which nobody was accepted. A server that waits
// for a message all the same gets an empty one (RFC 2920 3.1), and whatever
// it answers, nobody is delivered.
func (t *transaction) abandon() *failure {
	if t.proceed {
		if _, f := t.c.command("the end of an empty message", ".", t.c.timeouts.DataStart); f != nil {
			t.c.broken = true
		}
	}
	return t.end()
}

// end clears a transaction that did not reach a message, so that the
// connection can be used again, and returns what refused it.
func (t *transaction) end() *failure {
	if !t.c.broken {
		r, f := t.c.command("RSET", "RSET", t.c.timeouts.Quit)
		t.c.dirty = f != nil || r.code/100 != 2
	}
	return t.refused
}

// message sends the body and gives everyone accepted the reply to the final
// dot.
func (t *transaction) message(body io.Reader) *failure {
	r, f := t.c.sendBody(body, t.job.SizeBytes)
	if f != nil {
		return f
	}
	t.c.dirty = false
	if r.code/100 != 2 {
		f := refusal(r, "the end of the message")
		// The server has seen everything and said no: that is its answer, and
		// asking the next host could deliver twice.
		f.transport = false
		if r.code/100 == 3 {
			f.uncertain, t.c.broken = true, true
		}
		return f
	}
	for _, i := range t.accepted {
		t.out.decide(i, queue.Result{
			Class: queue.Delivered, Code: r.code, Enhanced: orElse(r.enhanced, "2.0.0"), Text: r.text,
			Host: t.c.host, TLS: t.c.channel(), StatusPassedOn: t.c.ext.dsn,
		})
	}
	return nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// refuseUnsuited says no for a server that has told in its EHLO reply that it
// cannot take this message.
func (t *transaction) refuseUnsuited() *failure {
	e := t.c.ext
	switch {
	case e.maxSizeBytes > 0 && t.job.SizeBytes > e.maxSizeBytes:
		// RFC 1870 6.1.
		return permanent(552, "5.3.4", fmt.Sprintf("the message has %d bytes, and %s takes at most %d",
			t.job.SizeBytes, t.c.host, e.maxSizeBytes))
	case demandsTLS(t.job) && (!e.requireTLS || t.c.tls == ""):
		// RFC 8689 4.2.1: another host of the destination may promise it.
		f := permanent(0, "5.7.30", "the sender requires TLS all the way (REQUIRETLS), which "+t.c.host+" does not promise")
		f.transport = true
		return f
	case e.smtpUTF8 || !t.job.UTF8 && t.ascii():
		return nil
	case t.ascii() && headerIsASCII(t.job.Open):
		return nil // asked for, not used
	}
	// RFC 6531 3.5.
	return permanent(0, "5.6.7", t.c.host+" does not take internationalised mail")
}

func (t *transaction) ascii() bool {
	for _, r := range t.job.Recipients {
		if !r.Address.IsASCII() {
			return false
		}
	}
	return t.job.Sender.IsASCII()
}

func (t *transaction) mailCommand() string {
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + t.job.Sender.String() + ">")
	e := t.c.ext
	if e.size {
		fmt.Fprintf(&b, " SIZE=%d", t.job.SizeBytes)
	}
	if e.eightBitMIME && t.job.EightBit {
		b.WriteString(" BODY=8BITMIME")
	}
	if e.smtpUTF8 && (t.job.UTF8 || !t.ascii()) {
		b.WriteString(" SMTPUTF8")
	}
	if t.job.RequireTLS && e.requireTLS && t.c.tls != "" {
		b.WriteString(" REQUIRETLS")
	}
	if !e.dsn {
		return b.String()
	}
	if ret := strings.ToUpper(t.job.Return); ret == "FULL" || ret == "HDRS" {
		b.WriteString(" RET=" + ret)
	}
	if isXtext(t.job.EnvelopeID) {
		b.WriteString(" ENVID=" + t.job.EnvelopeID)
	}
	return b.String()
}

func (t *transaction) rcptCommand(r queue.Recipient) string {
	command := "RCPT TO:<" + r.Address.String() + ">"
	if !t.c.ext.dsn {
		return command
	}
	if notify := notifyValue(r.Notify); notify != "" {
		command += " NOTIFY=" + notify
	}
	if kind, value, ok := strings.Cut(r.OriginalRecipient, ";"); ok && isXtext(kind) && isXtext(value) {
		command += " ORCPT=" + r.OriginalRecipient
	}
	return command
}

// notifyValue keeps the keywords of RFC 3461 4.1 and nothing else.
func notifyValue(words []string) string {
	var kept []string
	for _, w := range words {
		switch w = strings.ToUpper(w); w {
		case "NEVER":
			return w
		case "SUCCESS", "FAILURE", "DELAY":
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, ",")
}

// isXtext checks RFC 3461 4: printable ASCII without "=", and "+" only before
// two hexadecimal digits.
func isXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ' || c > '~' || c == '=':
			return false
		case c == '+':
			if i+2 >= len(s) || !hexDigit(s[i+1]) || !hexDigit(s[i+2]) {
				return false
			}
		}
	}
	return s != "" && len(s) <= 500
}

func hexDigit(c byte) bool { return digit(c) || 'A' <= c && c <= 'F' }
