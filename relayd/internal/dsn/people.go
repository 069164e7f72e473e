package dsn

import (
	"fmt"
	"strings"
	"time"
)

// people writes the part that is meant to be read. It says who, what, why and
// what to do, in this order.
func (r Report) people(w *writer, utf8 bool) {
	w.line("Content-Type: text/plain; charset=utf-8")
	if utf8 {
		w.line("Content-Transfer-Encoding: 8bit")
	}
	w.line()
	w.line("This is the mail relay ", r.Hostname, ".")
	w.line()
	w.paragraph("", r.opening())
	for _, rcpt := range r.Recipients {
		w.line()
		w.line("  <", rcpt.Address.String(), ">")
		w.paragraph("    ", rcpt.reason(utf8))
		if r.Action == Delayed && !rcpt.RetryUntil.IsZero() {
			w.paragraph("    ", "The relay keeps trying until "+date(rcpt.RetryUntil)+".")
		}
	}
	w.line()
	w.paragraph("", r.closing())
	w.line()
	w.line("Message id at the relay: ", r.MessageID)
	w.line("Accepted: ", date(r.AcceptedAt))
	w.line()
}

func (r Report) opening() string {
	switch r.Action {
	case Delayed:
		return "Your message has not been delivered yet to:"
	case Relayed:
		return "Your message was handed on, to a server that sends no reports of its own, for:"
	default:
		return "Your message could not be delivered to:"
	}
}

func (r Report) closing() string {
	switch r.Action {
	case Delayed:
		return "This is only a warning. You need not send the message again."
	case Relayed:
		return "This report was sent because you asked to be told."
	default:
		return "The relay has given up on these addresses and does not try again. " +
			"The header of your message is attached. If you turn to your administrator, send this whole report along."
	}
}

func (r Recipient) reason(utf8 bool) string {
	text := clean(r.Text, utf8)
	switch {
	case r.Host != "" && r.Code != 0:
		return fmt.Sprintf("The server %s answered: %d %s %s", clean(r.Host, false), r.Code, r.Status, text)
	case r.Host != "":
		return fmt.Sprintf("At the server %s: %s (%s)", clean(r.Host, false), text, r.Status)
	default:
		return fmt.Sprintf("%s (%s)", text, r.Status)
	}
}

// GaveUp is the sentence for a recipient whose time in the queue is over: last
// is what was said at the last attempt, "" when nothing was.
func GaveUp(lifetime time.Duration, last string) string {
	text := "The message could not be delivered within " + span(lifetime) + "."
	if last != "" {
		text += " At the last attempt: " + strings.TrimSpace(last)
	}
	return text
}

// span writes a duration for people, in its largest whole unit.
func span(d time.Duration) string {
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := d / unit.of; n >= 1 {
			if n == 1 {
				return "1 " + unit.name
			}
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return d.String()
}
