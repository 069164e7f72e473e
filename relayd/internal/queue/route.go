package queue

import (
	"log/slog"
	"net"
	"strconv"
)

// Router says where mail of sender for recipient goes. Both are domains in
// canonical form; sender is "" for the null sender. The zero Route means the
// MX hosts of the recipient domain. It is asked again before every attempt, so
// that a changed route is obeyed by mail that already waits.
type Router func(sender, recipient string) Route

// Route is a way out. The zero value is delivery by MX.
type Route struct {
	// Host is the smarthost: a name, whose address records are used and never
	// its MX, or an IP address. Empty means delivery by MX.
	Host string
	// Port is the smarthost's port. 0 means 25. Port 465 speaks TLS from the
	// first byte (RFC 8314 3.3).
	Port uint16
	// TLS is the rule for the channel; the zero value is opportunistic.
	TLS TLSRule
	// Credentials are for AUTH; the zero value means none.
	Credentials Credentials
	// Unknown says why it cannot be told just now where the mail goes; empty
	// when it can. The mail waits: sent past a route that nobody could read,
	// it might go where it must not.
	Unknown string
}

// TLSRule says how much the channel must be protected.
type TLSRule uint8

// The rules. With Credentials, TLSOpportunistic acts as TLSRequired: a
// password is not handed to whoever answers.
const (
	// TLSOpportunistic takes STARTTLS where it is offered, without checking
	// the name, and goes on in plain text where it is not (RFC 7435).
	TLSOpportunistic TLSRule = iota
	// TLSRequired defers unless the channel is encrypted and the certificate
	// is valid for the host's name.
	TLSRequired
	// TLSNone never starts TLS.
	TLSNone
	// TLSImplicit is TLSRequired with TLS from the first byte, on any port.
	TLSImplicit
)

// Credentials log in to a smarthost.
type Credentials struct {
	Username string
	Password Secret
	// SecretID and SecretVersion name the password where the Router does not
	// hold it. A courier fetches it before it begins.
	SecretID      string
	SecretVersion int64
}

// Secret is a text that no log and no format verb shows.
type Secret string

// String hides the value.
func (Secret) String() string { return "[secret]" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "[secret]" }

// LogValue hides the value from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText keeps the value out of every text encoding, JSON included.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Reveal returns the value, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }

// IsMX reports whether the route is delivery by MX.
func (r Route) IsMX() bool { return r.Host == "" && r.Unknown == "" }

// Address returns "host:port" of the smarthost.
func (r Route) Address() string {
	port := r.Port
	if port == 0 {
		port = 25
	}
	return net.JoinHostPort(r.Host, strconv.Itoa(int(port)))
}

// way is a destination as a key: what attempts that share a fate have in common.
type way struct {
	kind    wayKind
	port    uint16
	suspect bool   // for messages that may be what ends the process
	host    string // of a smarthost
	user    string
	domain  string // of the recipients
}

type wayKind uint8

const (
	wayMX wayKind = iota
	waySmarthost
	wayUnknown
)

func (r Route) way(recipientDomain string) way {
	switch {
	case r.Unknown != "":
		return way{kind: wayUnknown, domain: recipientDomain}
	case r.Host == "":
		return way{domain: recipientDomain}
	}
	return way{kind: waySmarthost, host: r.Host, port: r.Port, user: r.Credentials.Username}
}

// limited is what Config.DestinationLimit knows the destination by.
func (w way) limited() string {
	if w.kind == waySmarthost {
		return w.host
	}
	return w.domain
}

// RouteByMX is the Router that knows no smarthosts.
func RouteByMX(_, _ string) Route { return Route{} }
