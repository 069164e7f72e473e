package relaytest

import (
	"crypto/tls"
	"strings"
	"time"
)

// Stage is a point of the conversation at which the server acts.
type Stage string

// The stages, in the order of a conversation. StageBody is the reply to the
// final dot.
const (
	StageConnect  Stage = "connect"
	StageEHLO     Stage = "ehlo"
	StageHELO     Stage = "helo"
	StageStartTLS Stage = "starttls"
	StageAuth     Stage = "auth"
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data"
	StageBody     Stage = "body"
	StageRset     Stage = "rset"
	StageNoop     Stage = "noop"
	StageQuit     Stage = "quit"
)

// Step is what the server is looking at when it chooses its action.
type Step struct {
	Stage Stage
	// Connection counts connections to this server from 1.
	Connection int
	// Line is the command as it came, without CRLF; empty at StageConnect and
	// StageBody.
	Line string
	// Address is the path of MAIL or RCPT without its brackets.
	Address string
}

// Script is how a server behaves. The zero value is a polite server that takes
// everything and offers no extensions.
type Script struct {
	// Listen is the address to listen on. Default "127.0.0.1:0".
	Listen string
	// Extensions are the lines of the EHLO reply after the first, such as
	// "PIPELINING" and "SIZE 1000000". STARTTLS is added when TLS is set and
	// the channel is still plain.
	Extensions []string
	// On replaces the polite reply at a stage.
	On map[Stage]Action
	// Decide replaces both when its second result is true: for what depends on
	// the recipient or the connection.
	Decide func(Step) (Action, bool)
	// EarlyBody answers in the middle of a message instead of after its final
	// dot. nil means not.
	EarlyBody *EarlyBody
	// TLS is the certificate configuration. nil means no TLS.
	TLS *tls.Config
	// ImplicitTLS makes the server speak TLS from the first byte.
	ImplicitTLS bool
	// Username and Password are the login that AUTH accepts.
	Username, Password string
}

// EarlyBody is a server that speaks up before the message is complete.
type EarlyBody struct {
	// AfterBytes of the message, as sent, Action happens.
	AfterBytes int
	Action     Action
}

// Action is what the server does instead of its polite reply. The zero value
// says nothing at all, for ever: see Stall.
type Action struct {
	raw    []byte
	every  time.Duration // pause before each byte of raw; 0 writes it at once
	repeat bool          // write raw again and again
	ends   bool          // close afterwards
	reset  bool          // close with a reset
	deaf   bool          // never read again
}

// Say replies with lines, each ended by CRLF, and goes on.
func Say(lines ...string) Action {
	return Action{raw: []byte(strings.Join(lines, "\r\n") + "\r\n")}
}

// SayRaw writes text exactly as given and goes on.
func SayRaw(text string) Action { return Action{raw: []byte(text)} }

// SayAndClose replies and closes the connection.
func SayAndClose(lines ...string) Action {
	a := Say(lines...)
	a.ends = true
	return a
}

// SayRawAndClose writes text exactly as given and closes the connection.
func SayRawAndClose(text string) Action { return Action{raw: []byte(text), ends: true} }

// Stall says nothing and keeps the connection open until the client gives up.
func Stall() Action { return Action{} }

// Close closes the connection without a word.
func Close() Action { return Action{ends: true} }

// Reset closes the connection so that the client sees a reset.
func Reset() Action { return Action{ends: true, reset: true} }

// Endless repeats text until the client gives up.
func Endless(text string) Action { return Action{raw: []byte(text), repeat: true} }

// Drip writes text one byte at a time with a pause before each.
func Drip(text string, every time.Duration) Action {
	return Action{raw: []byte(text), every: every}
}

// StopReading accepts the command politely and then never reads again, so that
// the client's writes run into a closed window.
func StopReading(line string) Action {
	a := Say(line)
	a.deaf = true
	return a
}

// stalls reports whether a does nothing.
func (a Action) stalls() bool { return len(a.raw) == 0 && !a.ends }
