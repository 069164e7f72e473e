// Package maillog writes the mail log: one line for each event in a message's
// life, with the same keys everywhere, so that "what became of it" is one
// search for an id.
//
// Each event is a method, and each method's message is constant: "accepted",
// "rejected", "deferred", "delivered", "bounced", "expired", "cancelled",
// "on hold", "released", "held", "notified", "not notified". Values come from strangers, so every one is made safe
// before it is handed to the logger: no control bytes, no text direction
// tricks, no endless text. The package knows no secrets and takes none.
package maillog

import (
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The keys of the mail log. Nothing else appears in it.
const (
	KeyID       = "id"
	KeyPartner  = "partner"
	KeyDomain   = "domain"
	KeyFrom     = "from"
	KeyTo       = "to"
	KeyClient   = "client"
	KeyUser     = "user"
	KeyReason   = "reason"
	KeyRef      = "ref"
	KeyStage    = "stage"
	KeyHost     = "host"
	KeyTLS      = "tls"
	KeyCode     = "code"
	KeyEnhanced = "enhanced"
	KeyReply    = "reply"
	KeyError    = "error"
	KeyAttempt  = "attempt"
	KeyNext     = "next"
	KeyDelay    = "delay"
	KeySize     = "size"
	KeyNotice   = "notice"
)

// maxValueBytes bounds each value. A reply of another server is shortened to
// 1,000 bytes where it is read; nothing honest is longer.
const maxValueBytes = 1200

// Log writes the mail log. Its methods may be called from any goroutine.
type Log struct {
	log *slog.Logger
}

// New returns a Log that writes to l. nil discards.
func New(l *slog.Logger) *Log {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return &Log{log: l}
}

// Message says which message an event is about. Empty fields are left out of
// the line.
type Message struct {
	// ID is the message's id, the one in the 250 reply.
	ID              string
	Partner, Domain string
	// From is the envelope sender; "" is written as "<>".
	From   string
	Client netip.Addr
	User   string
	// SizeBytes is the message as stored.
	SizeBytes int64
}

// Refusal is why a session said no.
type Refusal struct {
	// Reason is the slug in the reason registry, Ref the reference that the
	// reply showed.
	Reason, Ref string
	// Stage is where the session stood: connect, auth, mail, rcpt, data.
	Stage string
	// To is the recipient, when the refusal is about one.
	To string
	// Reply is the first line that the client saw.
	Reply string
	// Cause is what went wrong inside; nil when nothing did. It is never shown
	// to the client.
	Cause error
}

// Attempt is what a delivery attempt came to for one recipient.
type Attempt struct {
	To string
	// Number counts attempts from 1.
	Number int
	// Host is the server that decided, TLS its channel: "none" for plain text,
	// else version and verdict.
	Host, TLS string
	// Code, Enhanced and Reply are its answer, or our own words for a failure.
	Code            int
	Enhanced, Reply string
	// Cause is the error behind a failure; nil when a reply decided.
	Cause error
	// Delay is the time since the message was accepted.
	Delay time.Duration
	// Uncertain says that the reply after the final dot was lost.
	Uncertain bool
}

// Accepted notes that a message was stored and answered with 250.
func (l *Log) Accepted(m Message, to []string) {
	l.log.Info("accepted", m.attrs(), text(KeyTo, strings.Join(to, " ")), slog.Int64(KeySize, m.SizeBytes))
}

// Rejected notes a refusal, of a message or of a session that had none yet.
func (l *Log) Rejected(m Message, r Refusal) {
	l.log.Info("rejected", m.attrs(), text(KeyTo, r.To), text(KeyReason, r.Reason), text(KeyRef, r.Ref),
		text(KeyStage, r.Stage), text(KeyReply, r.Reply), cause(r.Cause))
}

// ReplyUndelivered notes that a stored message's 250 did not reach the client:
// it may send the message again.
func (l *Log) ReplyUndelivered(m Message, err error) {
	l.log.Info("reply undelivered", m.attrs(), cause(err))
}

// Delivered notes that another server took the message for one recipient.
func (l *Log) Delivered(m Message, a Attempt) {
	l.log.Info("delivered", m.attrs(), a.attrs(), slog.Int64(KeySize, m.SizeBytes))
}

// Deferred notes a temporary failure and when the next attempt is due.
func (l *Log) Deferred(m Message, a Attempt, next time.Time) {
	name := "deferred"
	if a.Uncertain {
		name = "deferred, perhaps delivered"
	}
	l.log.Info(name, m.attrs(), a.attrs(), slog.Time(KeyNext, next.UTC()))
}

// Bounced notes a permanent failure.
func (l *Log) Bounced(m Message, a Attempt) { l.log.Info("bounced", m.attrs(), a.attrs()) }

// Expired notes that a recipient was given up on after the queue's lifetime.
func (l *Log) Expired(m Message, a Attempt) { l.log.Info("expired", m.attrs(), a.attrs()) }

// Cancelled notes that an operator took a recipient out of the queue.
func (l *Log) Cancelled(m Message, to, reason string) {
	l.log.Info("cancelled", m.attrs(), text(KeyTo, to), text(KeyReason, reason))
}

// Held notes that a message was set aside for a human, which is why it is an
// error.
func (l *Log) Held(m Message, reason string, err error) {
	l.log.Error("held", m.attrs(), text(KeyReason, reason), cause(err))
}

// OnHold notes that an operator keeps a recipient from being tried; ref is the
// operation.
func (l *Log) OnHold(m Message, to, ref string) {
	l.log.Info("on hold", m.attrs(), text(KeyTo, to), text(KeyRef, ref))
}

// Released notes that a recipient on hold may be tried again.
func (l *Log) Released(m Message, to, ref string) {
	l.log.Info("released", m.attrs(), text(KeyTo, to), text(KeyRef, ref))
}

// Notified notes that a delivery status notification about m was queued: kind
// is failed, delayed, relayed; notice is the id of the notification.
func (l *Log) Notified(m Message, kind, notice string) {
	l.log.Info("notified", m.attrs(), text(KeyReason, kind), text(KeyNotice, notice))
}

// NotNotified notes that the sender of m is not told, because the senders of his
// domain were told too often.
func (l *Log) NotNotified(m Message, kind string) {
	l.log.Warn("not notified", m.attrs(), text(KeyReason, kind))
}

func (m Message) attrs() slog.Attr {
	from := m.From
	if from == "" {
		from = "<>"
	}
	client := ""
	if m.Client.IsValid() {
		client = m.Client.String()
	}
	return group(text(KeyID, m.ID), text(KeyPartner, m.Partner), text(KeyDomain, m.Domain), text(KeyFrom, from),
		text(KeyClient, client), text(KeyUser, m.User))
}

func (a Attempt) attrs() slog.Attr {
	code := slog.Attr{}
	if a.Code != 0 {
		code = slog.Int(KeyCode, a.Code)
	}
	return group(text(KeyTo, a.To), slog.Int(KeyAttempt, a.Number), text(KeyHost, a.Host), text(KeyTLS, a.TLS),
		code, text(KeyEnhanced, a.Enhanced), text(KeyReply, a.Reply), cause(a.Cause),
		slog.Duration(KeyDelay, a.Delay.Round(time.Millisecond)))
}

// group returns attrs as one attribute that slog inlines.
func group(attrs ...slog.Attr) slog.Attr { return slog.Attr{Value: slog.GroupValue(attrs...)} }

// text returns a safe attribute, or one that slog leaves out when the value is
// empty.
func text(key, value string) slog.Attr {
	if value == "" {
		return slog.Attr{}
	}
	return slog.String(key, Clean(value))
}

func cause(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return text(KeyError, err.Error())
}

// Clean makes a stranger's text fit for a log: what cannot be printed, or
// changes how the rest is shown, becomes "?", and the length is bounded.
func Clean(s string) string {
	if len(s) > maxValueBytes {
		s = s[:maxValueBytes]
	}
	return strings.Map(func(r rune) rune {
		if r == ' ' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
