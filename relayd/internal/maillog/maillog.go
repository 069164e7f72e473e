// Package maillog writes the mail log: one line for each event in a message's
// life, with the same keys everywhere, so that "what became of it" is one
// search for an id.
//
// Each event is a method, and each method's message is constant: "accepted",
// "rejected", "rejected too often", "deferred", "delivered", "bounced", "expired",
// "cancelled", "on hold", "released", "held", "notified", "not notified",
// "reply undelivered". Values come from strangers, so every one is made safe before
// it is written: no control bytes, no text direction tricks, no endless text. The
// package knows no secrets and takes none.
//
// A line is, byte for byte, what the handlers of log/slog write, so that it can
// stand in one stream with the log of the process. It is put together here all
// the same, because two lines for each message through slog's reflection and
// with a system call each were a twelfth of what relaying costs. [Buffer] saves
// the system calls; its comment says what a crash may take.
package maillog

import (
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"
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
	KeyUnlogged = "unlogged"
)

// maxValueBytes bounds each value. A reply of another server is shortened to
// 1,000 bytes where it is read; nothing honest is longer.
const maxValueBytes = 1200

// Config says where the mail log goes.
type Config struct {
	// Out gets each line in one Write. Nil discards them. If it has a method
	// Flush() error, that is called after each line that is an error.
	Out io.Writer
	// JSON writes lines as slog.JSONHandler does, not as slog.TextHandler.
	JSON bool
	// Level is the least severe level that is written. The zero value is
	// slog.LevelInfo.
	Level slog.Level
	// Now stamps the lines. Nil means time.Now.
	Now func() time.Time
}

// Log writes the mail log. Its methods may be called from any goroutine.
type Log struct {
	config Config
	lines  sync.Pool // of *line
}

// New returns a Log.
func New(c Config) *Log {
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &Log{config: c}
	l.lines.New = func() any { return &line{json: c.JSON} }
	return l
}

// write writes one line, whose message and values fill adds. That the log
// cannot be written is nothing that mail should wait for; who reads it sees.
func (l *Log) write(level slog.Level, msg string, m *Message, fill func(*line)) {
	if l.config.Out == nil || level < l.config.Level {
		return
	}
	w, _ := l.lines.Get().(*line)
	w.begin(l.config.Now(), level, msg)
	m.add(w)
	fill(w)
	_, _ = l.config.Out.Write(w.end())
	l.lines.Put(w)
	if flusher, ok := l.config.Out.(interface{ Flush() error }); ok && level >= slog.LevelError {
		_ = flusher.Flush()
	}
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
	l.write(slog.LevelInfo, "accepted", &m, func(w *line) {
		w.text(KeyTo, strings.Join(to, " "))
		w.number(KeySize, m.SizeBytes)
	})
}

// Rejected notes a refusal, of a message or of a session that had none yet.
func (l *Log) Rejected(m Message, r Refusal) {
	l.write(slog.LevelInfo, "rejected", &m, func(w *line) {
		w.text(KeyTo, r.To)
		w.text(KeyReason, r.Reason)
		w.text(KeyRef, r.Ref)
		w.text(KeyStage, r.Stage)
		w.text(KeyReply, r.Reply)
		w.cause(r.Cause)
	})
}

// Unlogged notes, once a minute at most, how many refusals of a domain or an address
// were not noted by Rejected, and for which reasons, because there were too many.
func (l *Log) Unlogged(m Message, refusals string) {
	l.write(slog.LevelInfo, "rejected too often", &m, func(w *line) { w.text(KeyUnlogged, refusals) })
}

// ReplyUndelivered notes that a stored message's 250 did not reach the client:
// it may send the message again.
func (l *Log) ReplyUndelivered(m Message, err error) {
	l.write(slog.LevelInfo, "reply undelivered", &m, func(w *line) { w.cause(err) })
}

// Delivered notes that another server took the message for one recipient.
func (l *Log) Delivered(m Message, a Attempt) {
	l.write(slog.LevelInfo, "delivered", &m, func(w *line) {
		a.add(w)
		w.number(KeySize, m.SizeBytes)
	})
}

// Deferred notes a temporary failure and when the next attempt is due.
func (l *Log) Deferred(m Message, a Attempt, next time.Time) {
	name := "deferred"
	if a.Uncertain {
		name = "deferred, perhaps delivered"
	}
	l.write(slog.LevelInfo, name, &m, func(w *line) {
		a.add(w)
		w.time(KeyNext, next.UTC())
	})
}

// Bounced notes a permanent failure for one recipient.
func (l *Log) Bounced(m Message, a Attempt) { l.write(slog.LevelInfo, "bounced", &m, a.add) }

// Expired notes that a recipient was given up on after the queue's lifetime.
func (l *Log) Expired(m Message, a Attempt) { l.write(slog.LevelInfo, "expired", &m, a.add) }

// Cancelled notes that an operator took a recipient out of the queue.
func (l *Log) Cancelled(m Message, to, reason string) {
	l.write(slog.LevelInfo, "cancelled", &m, func(w *line) {
		w.text(KeyTo, to)
		w.text(KeyReason, reason)
	})
}

// Held notes that a message was set aside for a human, which is why it is an
// error.
func (l *Log) Held(m Message, reason string, err error) {
	l.write(slog.LevelError, "held", &m, func(w *line) {
		w.text(KeyReason, reason)
		w.cause(err)
	})
}

// OnHold notes that an operator keeps a recipient from being tried; ref is the
// operation.
func (l *Log) OnHold(m Message, to, ref string) {
	l.write(slog.LevelInfo, "on hold", &m, func(w *line) {
		w.text(KeyTo, to)
		w.text(KeyRef, ref)
	})
}

// Released notes that a recipient on hold may be tried again.
func (l *Log) Released(m Message, to, ref string) {
	l.write(slog.LevelInfo, "released", &m, func(w *line) {
		w.text(KeyTo, to)
		w.text(KeyRef, ref)
	})
}

// Notified notes that a delivery status notification about m was queued: kind
// is failed, delayed, relayed; notice is the id of the notification.
func (l *Log) Notified(m Message, kind, notice string) {
	l.write(slog.LevelInfo, "notified", &m, func(w *line) {
		w.text(KeyReason, kind)
		w.text(KeyNotice, notice)
	})
}

// NotNotified notes that the sender of m is not told, because the senders of his
// domain were told too often.
func (l *Log) NotNotified(m Message, kind string) {
	l.write(slog.LevelWarn, "not notified", &m, func(w *line) { w.text(KeyReason, kind) })
}

func (m *Message) add(w *line) {
	w.text(KeyID, m.ID)
	w.text(KeyPartner, m.Partner)
	w.text(KeyDomain, m.Domain)
	if m.From == "" {
		w.text(KeyFrom, "<>")
	} else {
		w.text(KeyFrom, m.From)
	}
	if m.Client.IsValid() {
		w.address(KeyClient, m.Client)
	}
	w.text(KeyUser, m.User)
}

func (a *Attempt) add(w *line) {
	w.text(KeyTo, a.To)
	w.number(KeyAttempt, int64(a.Number))
	w.text(KeyHost, a.Host)
	w.text(KeyTLS, a.TLS)
	if a.Code != 0 {
		w.number(KeyCode, int64(a.Code))
	}
	w.text(KeyEnhanced, a.Enhanced)
	w.text(KeyReply, a.Reply)
	w.cause(a.Cause)
	w.duration(KeyDelay, a.Delay.Round(time.Millisecond))
}
