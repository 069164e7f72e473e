package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"activerelay/api/mailaddr"
)

// Bounds of what is sent back.
const (
	// MaxFullBytes is the largest original that is returned whole.
	MaxFullBytes = 1 << 20
	// maxHeaderBytes is how much of the original's header is returned.
	maxHeaderBytes = 64 << 10
	// maxDiagnosticBytes keeps each field on one line below the 998 octets of
	// RFC 5322 2.1.1.
	maxDiagnosticBytes = 800
)

// ErrNullSender means that there is nobody to tell.
var ErrNullSender = errors.New("a message from the null sender is not answered")

// Report is everything that a notification says. Times are written in UTC.
type Report struct {
	// ID is the id of the notification itself. It makes the Message-ID and the
	// boundary, so it must not be known to others beforehand.
	ID string
	// Date is now.
	Date time.Time
	// Hostname names the reporting relay.
	Hostname string
	// To is the sender of the original.
	To mailaddr.Address
	// Action is what happened to all Recipients of this notification.
	Action     Action
	Recipients []Recipient
	// MessageID is the id under which the original was accepted, AcceptedAt
	// when.
	MessageID  string
	AcceptedAt time.Time
	// EnvelopeID and Return are the original's ENVID and RET as given; empty
	// when they were not.
	EnvelopeID, Return string
	// Original is the original message, or as much from its beginning as there
	// is room for; OriginalBytes its whole size.
	Original      []byte
	OriginalBytes int64
}

// Recipient is one address and its fate.
type Recipient struct {
	Address mailaddr.Address
	// ORCPT is the parameter as given; empty when it was not.
	ORCPT string
	// Status is the RFC 3463 code, such as "5.1.1".
	Status string
	// Host is the server that decided; empty when none was reached.
	Host string
	// Code and Text are its reply. Without Code or Host, Text is our own sentence.
	Code int
	Text string
	// LastAttempt is when the last attempt began; zero leaves it out.
	LastAttempt time.Time
	// RetryUntil is when a delayed recipient is given up on.
	RetryUntil time.Time
}

// Notice is a composed notification.
type Notice struct {
	// Text is the message: header and body, lines ended by CRLF.
	Text []byte
	// EightBit and UTF8 say what the next server must offer (RFC 6152, 6531).
	EightBit, UTF8 bool
}

// Compose writes the notification.
func Compose(r Report) (Notice, error) {
	if r.To.IsNull() {
		return Notice{}, ErrNullSender
	}
	if len(r.Recipients) == 0 {
		return Notice{}, errors.New("compose notification: no recipients")
	}
	n := Notice{UTF8: r.internationalised()}
	original := r.original()
	n.EightBit = n.UTF8 || !ascii(original.content)
	boundary := "=_dsn_" + r.ID
	if bytes.Contains(original.content, []byte(boundary)) {
		// Nobody can know the id beforehand; if he does, he gets nothing back.
		original.content = nil
	}
	var w writer
	r.header(&w, boundary, n.EightBit)
	w.line("--", boundary)
	r.people(&w, n.UTF8)
	w.line("--", boundary)
	r.machines(&w, n.UTF8)
	w.line("--", boundary)
	original.write(&w, n.UTF8)
	w.line("--", boundary, "--")
	n.Text = w.Bytes()
	return n, nil
}

// internationalised reports whether an address forces RFC 6533 forms.
func (r Report) internationalised() bool {
	for _, rcpt := range r.Recipients {
		if !rcpt.Address.IsASCII() {
			return true
		}
	}
	return !r.To.IsASCII()
}

func (r Report) header(w *writer, boundary string, eightBit bool) {
	w.line("From: Mail Delivery System <MAILER-DAEMON@", r.Hostname, ">")
	w.line("To: <", r.To.String(), ">")
	w.line("Subject: ", r.subject())
	w.line("Date: ", date(r.Date))
	w.line("Message-ID: <", r.ID, "@", r.Hostname, ">")
	// RFC 3834 5: nobody's robot should answer this.
	w.line("Auto-Submitted: auto-replied")
	w.line("MIME-Version: 1.0")
	w.line("Content-Type: multipart/report; report-type=delivery-status;")
	w.line("\tboundary=\"", boundary, "\"")
	if eightBit {
		w.line("Content-Transfer-Encoding: 8bit")
	}
	w.line()
	w.line("This is a MIME message with a delivery status notification.")
	w.line()
}

func (r Report) subject() string {
	switch r.Action {
	case Delayed:
		return "Delayed mail (still being tried)"
	case Relayed:
		return "Mail handed on to another server"
	default:
		return "Undelivered mail returned to sender"
	}
}

// machines writes message/delivery-status (RFC 3464 2.1).
func (r Report) machines(w *writer, utf8 bool) {
	if utf8 {
		w.line("Content-Type: message/global-delivery-status; charset=utf-8")
		w.line("Content-Transfer-Encoding: 8bit")
	} else {
		w.line("Content-Type: message/delivery-status")
	}
	w.line()
	w.line("Reporting-MTA: dns; ", r.Hostname)
	if id := clean(decodeXtext(r.EnvelopeID), false); id != "" {
		w.line("Original-Envelope-Id: ", id)
	}
	w.line("Arrival-Date: ", date(r.AcceptedAt))
	w.line("X-Relay-Message-ID: ", r.MessageID)
	for _, rcpt := range r.Recipients {
		w.line()
		rcpt.machines(w, r.Action, utf8)
	}
	w.line()
}

func (r Recipient) machines(w *writer, a Action, utf8 bool) {
	if kind, address, ok := strings.Cut(r.ORCPT, ";"); ok {
		w.line("Original-Recipient: ", clean(kind, false), "; ", clean(decodeXtext(address), utf8))
	}
	kind := "rfc822"
	if !r.Address.IsASCII() {
		kind = "utf-8"
	}
	w.line("Final-Recipient: ", kind, "; ", r.Address.String())
	w.line("Action: ", string(a))
	w.line("Status: ", r.Status)
	if r.Host != "" {
		w.line("Remote-MTA: dns; ", hostName(r.Host))
	}
	if r.Text != "" {
		w.line("Diagnostic-Code: ", r.diagnostic(utf8))
	}
	if !r.LastAttempt.IsZero() {
		w.line("Last-Attempt-Date: ", date(r.LastAttempt))
	}
	if a == Delayed && !r.RetryUntil.IsZero() {
		w.line("Will-Retry-Until: ", date(r.RetryUntil))
	}
}

// diagnostic is of type smtp only for what a server really said (RFC 3464
// 2.3.6).
func (r Recipient) diagnostic(utf8 bool) string {
	if r.Code == 0 || r.Host == "" {
		return "x-relay; " + clean(r.Text, utf8)
	}
	return fmt.Sprintf("smtp; %d %s %s", r.Code, r.Status, clean(r.Text, utf8))
}

// hostName takes the name out of "mx1.example.net[192.0.2.1]:25".
func hostName(host string) string {
	name, _, _ := strings.Cut(host, "[")
	return clean(name, false)
}

func date(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000") }
