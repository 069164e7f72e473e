package smtpwire

import (
	"crypto/tls"
	"net"

	"github.com/emersion/go-smtp"
)

// Peer is what a session may ask of its connection on either engine: *Conn and
// *smtp.Conn both are one.
type Peer interface {
	// Hostname is what the client called itself.
	Hostname() string
	// Conn is the network connection: a *tls.Conn once there is TLS.
	Conn() net.Conn
	TLSConnectionState() (tls.ConnectionState, bool)
	// Reject ends the connection with 421.
	Reject()
}

var (
	_ Peer = (*Conn)(nil)
	_ Peer = (*smtp.Conn)(nil)
)

// Backend makes sessions, one at the first EHLO or HELO of a connection and
// another at the first after STARTTLS. A session must not keep the options that
// Mail and Rcpt are given: the next command's are in the same place.
type Backend interface {
	NewSession(c *Conn) (smtp.Session, error)
}

// BackendFunc is a function as a Backend.
type BackendFunc func(c *Conn) (smtp.Session, error)

// NewSession calls f(c).
func (f BackendFunc) NewSession(c *Conn) (smtp.Session, error) { return f(c) }

// Announcer is a session that knows better than Config what EHLO should
// announce, for example because it follows a policy. It is asked at each EHLO.
type Announcer interface {
	// Announce returns the largest message and the most recipients of one; 0
	// announces no figure. Keeping to them is the session's business.
	Announce() (maxMessageBytes int64, maxRecipients int)
}

// Prefacer is a connection, or one beneath it, on which something comes before
// SMTP and TLS, as the header of a proxy does. Preface reads it: it is called
// first, by the connection's goroutine, and may read for Limits.Preface. Its error
// ends the connection without a word.
type Prefacer interface {
	Preface() error
}
