package deliver

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/queue"
)

// pipelined is how many commands are written before their replies are read.
// Together they fit the smallest usual socket buffer, so that neither side can
// block on the other (RFC 2920 3.1).
const pipelined = 50

// checkAddresses parses every address again: what is written to another server
// is what a parser made, never what a stranger sent.
func checkAddresses(job *queue.Job, out *outcome) {
	if !job.Sender.IsNull() && !parses(job.Sender) {
		out.failRest(permanent(553, "5.1.7", "the sender address cannot be written to another server"))
		return
	}
	for i := range job.Recipients {
		if !parses(job.Recipients[i].Address) {
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
	job *queue.Job
	out *outcome
	// refused is the reply that ended the transaction for everyone.
	refused *failure
	// proceed says that the server waits for the message.
	proceed bool
}

// verb is a command of the envelope.
type verb uint8

const (
	verbMail verb = iota
	verbRcpt
	verbData
)

// String names the command in failures.
func (v verb) String() string { return [...]string{"MAIL FROM", "RCPT TO", "DATA"}[v] }

// step is one command of the envelope.
type step struct {
	verb      verb
	recipient int // of verbRcpt
}

// transact delivers the job's undecided recipients over c. It decides all of
// them and returns nil, or returns why the rest is open.
func (c *conn) transact(job *queue.Job, out *outcome) *failure {
	body, err := job.Open()
	if err != nil {
		return temporary("4.3.0", "the message cannot be read from the spool", err)
	}
	defer body.Close()
	t := &transaction{c: c, job: job, out: out}
	if f := t.refuseUnsuited(); f != nil || out.left == 0 {
		return f
	}
	c.messages++
	c.dirty, c.accepted = true, c.accepted[:0]
	if f := t.envelope(); f != nil {
		return f
	}
	if len(t.c.accepted) == 0 {
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
		if window == 1 && group[0].verb == verbData && len(t.c.accepted) == 0 {
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

// steps lists the envelope's commands for the recipients still undecided.
func (t *transaction) steps() []step {
	steps := append(t.c.steps[:0], step{verb: verbMail})
	for i := range t.job.Recipients {
		if !t.out.decided[i] {
			steps = append(steps, step{verb: verbRcpt, recipient: i})
		}
	}
	t.c.steps = append(steps, step{verb: verbData})
	return t.c.steps
}

// exchange sends a group of commands at once and hears all their replies.
func (t *transaction) exchange(group []step) *failure {
	for _, s := range group {
		t.say(s)
	}
	if f := t.c.send(group[0].verb.String(), t.c.patience(group[0].verb)); f != nil {
		return f
	}
	for _, s := range group {
		r, f := t.c.verdict(s.verb.String(), t.c.patience(s.verb))
		if f != nil {
			return f
		}
		if r.code == 421 {
			return refusal(r, s.verb.String())
		}
		t.heard(s, r)
	}
	return nil
}

// patience is how long the reply to a command of the envelope may take.
func (c *conn) patience(v verb) time.Duration {
	switch v {
	case verbMail:
		return c.timeouts.Mail
	case verbData:
		return c.timeouts.DataStart
	}
	return c.timeouts.Rcpt
}

// heard notes the reply to one command.
func (t *transaction) heard(s step, r reply) {
	switch {
	case s.verb == verbData:
		if t.proceed = r.code == 354; t.proceed {
			return
		}
	case s.verb == verbRcpt && t.refused == nil:
		t.heardRcpt(s.recipient, r)
		return
	case r.code/100 == 2:
		return
	}
	if t.refused == nil { // else it is about MAIL, which was refused
		t.refused = refusal(r, s.verb.String())
	}
}

func (t *transaction) heardRcpt(i int, r reply) {
	if r.code/100 == 2 {
		t.c.accepted = append(t.c.accepted, i)
		return
	}
	f := refusal(r, verbRcpt.String())
	if r.code == 552 && (r.enhanced == "" || r.enhanced == "5.5.3") {
		// RFC 5321 4.5.3.1.10: an old way to say "too many recipients".
		f.class, f.enhanced = queue.TempFail, "4.5.3"
	}
	t.out.decide(i, f.at(t.c).result())
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
	for _, i := range t.c.accepted {
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
// cannot take this message, or not for some of the recipients.
func (t *transaction) refuseUnsuited() *failure {
	e := &t.c.ext
	switch {
	case e.maxSizeBytes > 0 && t.job.SizeBytes > e.maxSizeBytes:
		// RFC 1870 6.1.
		return permanent(0, "5.3.4", fmt.Sprintf("the message has %d bytes, and %s takes at most %d",
			t.job.SizeBytes, t.c.host, e.maxSizeBytes))
	case demandsTLS(t.job) && (!e.requireTLS || t.c.tls == ""):
		// RFC 8689 4.2.1: another host of the destination may promise it.
		f := permanent(0, "5.7.30", "the sender requires TLS all the way (REQUIRETLS), which "+t.c.host+" does not promise")
		f.transport = true
		return f
	case e.smtpUTF8 || !t.job.UTF8 && t.ascii():
		return nil
	}
	// RFC 6531 3.5.
	f := permanent(0, "5.6.7", t.c.host+" does not take internationalised mail")
	if !t.job.Sender.IsASCII() || !headerIsASCII(t.job.Open) {
		return f
	}
	// Asked for and not used, or for some of the recipients only.
	for i := range t.job.Recipients {
		if !t.job.Recipients[i].Address.IsASCII() {
			t.out.decide(i, f.at(t.c).result())
		}
	}
	return nil
}

func (t *transaction) ascii() bool {
	for i := range t.job.Recipients {
		if !t.job.Recipients[i].Address.IsASCII() {
			return false
		}
	}
	return t.job.Sender.IsASCII()
}

// say puts a command of the envelope into the connection's write buffer.
func (t *transaction) say(s step) {
	switch s.verb {
	case verbMail:
		t.c.out = append(t.mail(t.c.out), "\r\n"...)
	case verbRcpt:
		t.c.out = append(t.rcpt(t.c.out, &t.job.Recipients[s.recipient]), "\r\n"...)
	case verbData:
		t.c.line("DATA")
	}
}

// appendPath appends an address in brackets; "<>" for the null sender.
func appendPath(out []byte, a mailaddr.Address) []byte {
	out = append(out, '<')
	if !a.IsNull() {
		out = append(append(append(out, a.Local...), '@'), a.Domain...)
	}
	return append(out, '>')
}

func (t *transaction) mail(out []byte) []byte {
	out = appendPath(append(out, "MAIL FROM:"...), t.job.Sender)
	e := &t.c.ext
	if e.size {
		out = strconv.AppendInt(append(out, " SIZE="...), t.job.SizeBytes, 10)
	}
	if e.eightBitMIME && t.job.EightBit {
		out = append(out, " BODY=8BITMIME"...)
	}
	if e.smtpUTF8 && (t.job.UTF8 || !t.ascii()) {
		out = append(out, " SMTPUTF8"...)
	}
	if t.job.RequireTLS && e.requireTLS && t.c.tls != "" {
		out = append(out, " REQUIRETLS"...)
	}
	if !e.dsn {
		return out
	}
	if ret := strings.ToUpper(t.job.Return); ret == "FULL" || ret == "HDRS" {
		out = append(append(out, " RET="...), ret...)
	}
	if isXtext(t.job.EnvelopeID) {
		out = append(append(out, " ENVID="...), t.job.EnvelopeID...)
	}
	return out
}

func (t *transaction) rcpt(out []byte, r *queue.Recipient) []byte {
	out = appendPath(append(out, "RCPT TO:"...), r.Address)
	if !t.c.ext.dsn {
		return out
	}
	if notify := notifyValue(r.Notify); notify != "" {
		out = append(append(out, " NOTIFY="...), notify...)
	}
	if kind, value, ok := strings.Cut(r.OriginalRecipient, ";"); ok && isXtext(kind) && isXtext(value) {
		out = append(append(out, " ORCPT="...), r.OriginalRecipient...)
	}
	return out
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
