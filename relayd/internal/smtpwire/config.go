package smtpwire

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"activerelay/api/reason"
)

// Config is how one engine behaves. Only Hostname is required.
type Config struct {
	// Hostname is what the server calls itself.
	Hostname string
	// TLS makes STARTTLS possible. Listeners with TLS from the first byte hand
	// in *tls.Conn and do not need it.
	TLS *tls.Config
	// AllowInsecureAuth offers AUTH without TLS.
	AllowInsecureAuth bool
	// MaxMessageBytes is announced and kept to. 0 leaves both to the session: see
	// Announcer.
	MaxMessageBytes int64
	// RefuseEarlyTalkers closes connections of clients that speak before the
	// greeting, which then waits for GreetDelay. A GreetDelay of 0 only looks at
	// what has come already.
	RefuseEarlyTalkers bool
	GreetDelay         time.Duration
	Limits             Limits
	// Stressed is asked before each command and each handshake, and while a message
	// comes. While it says yes, idle time, errors and junk are cut down to what Limits
	// says for stress; within a message for those only who send it from the null
	// sender and have neither logged in nor brought another one. See Hurry for those that are idle when it begins to.
	Stressed func() bool
	// Refuse renders what the engine itself refuses: the place to count, to log
	// and to add a reference. Nil means reason.Render. It runs on the
	// connection's goroutine.
	Refuse func(c *Conn, r Refusal) reason.Reply
	// Log receives panics and failures to accept. Nil discards.
	Log *slog.Logger
}

// Refusal is a "no" of the engine's own.
type Refusal struct {
	Stage reason.Stage
	Slug  reason.Slug
	Args  reason.Args
	// Cause is for the log; nil where the slug says it all.
	Cause error
}

// Limits bound what one connection can cost. Each zero field is its default.
type Limits struct {
	// CommandIdle is how long the next whole command line may take. 0 means
	// 5 min (RFC 5321 4.5.3.2.7).
	CommandIdle time.Duration
	// FirstCommand is how long a connection may last without EHLO. 0 means
	// 5 min.
	FirstCommand time.Duration
	// SessionAge ends a session: counted from its last accepted message, and
	// from its beginning once somebody has authenticated. 0 means 30 min.
	SessionAge time.Duration
	// Write is how long one write may take, Handshake one TLS handshake, Preface
	// what a Prefacer reads. 0 means 2 min, 1 min and 5 s.
	Write, Handshake, Preface time.Duration

	// DataIdle is the longest pause within a message. 0 means 3 min (RFC 5321
	// 4.5.3.2.5).
	DataIdle time.Duration
	// DataTotal is how long one message may take. 0 means 30 min.
	DataTotal time.Duration
	// DataMinRate is the least average rate, in bytes a second, once DataGrace is
	// over. Only time spent waiting for the client counts. 0 means 256, 1 min.
	DataMinRate int
	DataGrace   time.Duration

	// Errors are the permanent refusals that a connection may have; one more ends
	// it. 0 means 20.
	Errors int
	// Junk are the commands without use (NOOP, VRFY, HELP, EHLO again, RSET where no
	// recipient was asked for) that it may send between two accepted messages. 0
	// means 100.
	Junk int
	// AuthFailures end it. 0 means 3.
	AuthFailures int

	// StressIdle, StressErrors and StressJunk replace the above under stress.
	// 0 means 10 s, 1 and 1.
	StressIdle               time.Duration
	StressErrors, StressJunk int
}

// MaxLineBytes is the longest line of a message, with its line end.
const MaxLineBytes = 64 << 10

// What no setting changes.
const (
	maxCommandBytes = 4 << 10  // with CR LF
	maxAuthBytes    = 12 << 10 // RFC 4954 4
	maxSkippedBytes = 64 << 10 // of a line that is too long already
	maxHelloBytes   = 255
	smallBuffer     = 512
	bigBuffer       = 32 << 10 // more than maxAuthBytes
	flushBytes      = 4 << 10  // replies that are held back at most
	lingerTime      = 250 * time.Millisecond
	lingerBytes     = 64 << 10
)

func (l Limits) withDefaults() Limits {
	number := func(v *int, byDefault int) {
		if *v == 0 {
			*v = byDefault
		}
	}
	span := func(v *time.Duration, byDefault time.Duration) {
		if *v == 0 {
			*v = byDefault
		}
	}
	span(&l.CommandIdle, 5*time.Minute)
	span(&l.FirstCommand, 5*time.Minute)
	span(&l.SessionAge, 30*time.Minute)
	span(&l.Write, 2*time.Minute)
	span(&l.Handshake, time.Minute)
	span(&l.Preface, 5*time.Second)
	span(&l.DataIdle, 3*time.Minute)
	span(&l.DataTotal, 30*time.Minute)
	number(&l.DataMinRate, 256)
	span(&l.DataGrace, time.Minute)
	number(&l.Errors, 20)
	number(&l.Junk, 100)
	number(&l.AuthFailures, 3)
	span(&l.StressIdle, 10*time.Second)
	number(&l.StressErrors, 1)
	number(&l.StressJunk, 1)
	return l
}

func (c Config) withDefaults() (Config, error) {
	if c.Hostname == "" {
		return c, errors.New("Hostname is required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Stressed == nil {
		c.Stressed = func() bool { return false }
	}
	if c.Refuse == nil {
		c.Refuse = func(_ *Conn, r Refusal) reason.Reply { return reason.Render(r.Slug, r.Args) }
	}
	c.Limits = c.Limits.withDefaults()
	return c, nil
}
