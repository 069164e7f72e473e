package queue

import (
	"context"
	"io"

	"activerelay/api/mailaddr"
)

// Courier makes one delivery attempt. The rules:
//
//  1. Attempt returns exactly one Result for each recipient of the job, in the
//     job's order, whatever happens; it has no other way to fail.
//  2. It is called from many goroutines at once, never twice at once for one
//     recipient of a message. Those of one destination may be more than one
//     attempt is about.
//  3. It bounds its own time; when ctx ends it gives up soon and answers
//     TempFail for what it had not finished.
//  4. It opens the body through Job.Open, as often as it needs, and closes
//     what it opened before it returns.
//  5. A recipient for whom the final reply was lost is TempFail with Uncertain
//     set: a second copy is better than none (RFC 5321 4.2.5 and RFC 1047).
type Courier interface {
	Attempt(ctx context.Context, job Job) []Result
}

// Job is one message for the recipients that share a destination.
type Job struct {
	// MessageID is the id that the customer saw in the 250 reply.
	MessageID string
	// Sender is the envelope sender; the zero value is "<>".
	Sender mailaddr.Address
	// Recipients holds at least one recipient.
	Recipients []Recipient
	// RecipientDomain is the domain that all Recipients share. It selects the
	// MX hosts unless Route names a smarthost.
	RecipientDomain string
	// Route is where the queue's Router sent this job.
	Route Route
	// SizeBytes is the size of the message as stored, before dot-stuffing.
	SizeBytes int64
	// EightBit says that the message has bytes beyond ASCII.
	EightBit bool
	// UTF8 says that the client declared SMTPUTF8.
	UTF8 bool
	// RequireTLS is the sender's wish of RFC 8689.
	RequireTLS bool
	// EnvelopeID and Return are the ENVID and RET parameters of RFC 3461 as
	// the client gave them (still in xtext); empty when it gave none.
	EnvelopeID, Return string
	// Open returns the message from its first byte.
	Open func() (io.ReadCloser, error)
}

// Recipient is one addressee with its delivery status wishes.
type Recipient struct {
	Address mailaddr.Address
	// Notify holds NEVER, or any of SUCCESS, FAILURE, DELAY (RFC 3461 4.1).
	// Empty: the client said nothing.
	Notify []string
	// OriginalRecipient is ORCPT as the client gave it, still in xtext
	// (RFC 3461 4.2). Empty: it gave none.
	OriginalRecipient string
}

// Class sorts the outcome of an attempt for one recipient.
type Class uint8

// The three outcomes. TempFail is the zero value, so that a result nobody
// filled in keeps the recipient in the queue.
const (
	TempFail Class = iota
	Delivered
	PermFail
)

// String returns the word used in logs and metrics.
func (c Class) String() string {
	switch c {
	case Delivered:
		return "delivered"
	case PermFail:
		return "permanent"
	default:
		return "temporary"
	}
}

// Result is what one attempt came to for one recipient.
type Result struct {
	Class Class
	// Code is the SMTP reply code; 0 when no reply decided.
	Code int
	// Enhanced is the status of RFC 3463, such as "5.1.1"; never empty.
	Enhanced string
	// Text is the remote text, or our own sentence when no reply decided. It
	// has no control bytes.
	Text string
	// Host is the server that decided, "mx1.example.net[192.0.2.1]:25"; empty
	// when no server was reached.
	Host string
	// TLS describes the channel to Host: "none" for plain text, else version and
	// verdict, such as "TLS 1.3 dane". The verdict is "encrypted" (with whoever
	// answered), "verified" (valid certificate), "dane" or "sts" (as the
	// destination publishes it). Empty without Host.
	TLS string
	// Uncertain says that the connection broke between the final dot and its
	// reply: the server may have taken the message.
	Uncertain bool
	// StatusPassedOn says that the next server took over the recipient's
	// NOTIFY wishes (RFC 3461 5.2.1).
	StatusPassedOn bool
	// Err is the cause for the log; nil when a reply decided.
	Err error
}
