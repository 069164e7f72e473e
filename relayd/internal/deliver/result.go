package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"activerelay/relayd/internal/queue"
)

// failure is why an attempt could not go on for the recipients that were still
// undecided. It becomes their Result.
type failure struct {
	class     queue.Class
	code      int
	enhanced  string
	text      string
	err       error
	uncertain bool
	// transport says that the channel, not the server, said no: another host
	// may do better.
	transport bool
	// host and tls are those of the connection, empty when there was none.
	host, tls string
}

func (f *failure) Error() string {
	if f.err != nil {
		return fmt.Sprintf("%s %s: %v", f.enhanced, f.text, f.err)
	}
	return f.enhanced + " " + f.text
}

// temporary is a failure of ours or of the network.
func temporary(enhanced, text string, err error) *failure {
	return &failure{class: queue.TempFail, enhanced: enhanced, text: text, err: err}
}

// permanent is a failure that trying again cannot mend.
func permanent(code int, enhanced, text string) *failure {
	return &failure{class: queue.PermFail, code: code, enhanced: enhanced, text: text}
}

// broken is a connection that ended or fell silent at a step.
func broken(step string, err error) *failure {
	f := &failure{class: queue.TempFail, enhanced: "4.4.2", transport: true, err: err}
	switch {
	case errors.Is(err, context.Canceled):
		f.enhanced, f.text = "4.3.2", "the relay is going down and gave up at "+step
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		f.text = "no answer in time from the server at " + step
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		f.text = "the server closed the connection at " + step
	case badReply(err):
		f.enhanced, f.text = "4.5.0", "the server broke the protocol at "+step+": "+err.Error()
	default:
		f.text = "the connection broke at " + step
	}
	return f
}

func badReply(err error) bool {
	return errors.Is(err, errReplyLine) || errors.Is(err, errReplyLines) ||
		errors.Is(err, errReplyShape) || errors.Is(err, errReplyMixed)
}

// refusal is a failure that the server's reply decided. RFC 5321 4.2.1: 4yz
// try again, 5yz do not. Any other reply here is out of place, and no reason to
// give up on the message.
func refusal(r reply, step string) *failure {
	f := &failure{class: queue.TempFail, code: r.code, enhanced: r.enhanced, text: r.text}
	switch {
	case r.code == 421:
		// RFC 5321 3.8: the server is about to close, whatever the step.
		f.transport = true
	case r.code >= 500:
		f.class = queue.PermFail
	case r.code < 400:
		f.enhanced, f.text = "4.5.0", strings.TrimSpace(fmt.Sprintf("unexpected reply at %s: %d %s", step, r.code, r.text))
	}
	if f.enhanced == "" {
		f.enhanced = fmt.Sprintf("%d.0.0", max(4, r.code/100))
	}
	if f.text == "" {
		f.text = fmt.Sprintf("the server said only %d at %s", r.code, step)
	}
	return f
}

// outcome collects the results of one attempt. Each recipient is decided once.
type outcome struct {
	results []queue.Result
	decided []bool
	left    int
}

func newOutcome(recipients int) outcome {
	return outcome{results: make([]queue.Result, recipients), decided: make([]bool, recipients), left: recipients}
}

// decide settles recipient i; a second decision is ignored.
func (o *outcome) decide(i int, r queue.Result) {
	if o.decided[i] {
		return
	}
	o.decided[i], o.results[i] = true, r
	o.left--
}

// failRest settles everyone who is undecided with f.
func (o *outcome) failRest(f *failure) {
	for i := range o.results {
		o.decide(i, f.result())
	}
}

// at notes which connection saw the failure.
func (f *failure) at(c *conn) *failure {
	f.host, f.tls = c.host, c.channel()
	return f
}

// result turns f into a recipient's result.
func (f *failure) result() queue.Result {
	return queue.Result{
		Class: f.class, Code: f.code, Enhanced: f.enhanced, Text: f.text,
		Host: f.host, TLS: f.tls, Uncertain: f.uncertain, Err: f.err,
	}
}

// worse returns which of two failures at different hosts speaks for the
// attempt: while any host might take the message later, the message waits.
func worse(before, now *failure) *failure {
	if before != nil && before.class == queue.TempFail && now.class == queue.PermFail {
		return before
	}
	return now
}
