package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/quota"
)

// Answer is yes, no, or that the part which would tell did not compile. It is
// never a boolean, because "unknown" must defer where "no" refuses.
type Answer string

// The answers.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// Standing is what the provider and the complaints let a partner, a domain or a
// user do.
type Standing struct {
	// Active is No for the suspended, and Unknown for a status that this reader
	// does not know.
	Active Answer
	// Since is when the suspension began. Zero where that is not known.
	Since time.Time
	// Disabled: complaints, or a person because of abuse, disabled relaying.
	Disabled bool
}

// Platform is the settings that an edge needs, compiled.
type Platform struct {
	QuotaUnit quota.Unit
	// AllowUnscanned lifts the rule that every message is scanned.
	AllowUnscanned bool
	// AllowTargets are the loopback and private networks that mail may be
	// delivered to.
	AllowTargets []netip.Prefix
	BulkMode     api.BulkMode
	// BulkAutoSubmitted: Auto-Submitted other than "no" marks bulk mail.
	BulkAutoSubmitted bool
	// BulkRecipientCap: a message with more recipients is bulk. 0 = no cap.
	BulkRecipientCap int
	MaxRecipients    int
	MaxMessageBytes  int64
	// MaxPolicyAge is how old the last successful poll may be before permanent
	// refusals become deferrals.
	MaxPolicyAge time.Duration
	// RefuseServersOverLimit, RefuseUsersOverLimit: over the limit a mail server
	// or an authenticated user is refused for good, not deferred.
	RefuseServersOverLimit, RefuseUsersOverLimit bool
	// SuspendedDefer is how long mail of the suspended is deferred before it is
	// refused.
	SuspendedDefer time.Duration
	// NormaliseNewlines: bare CR, LF and NUL are normalised, not refused.
	NormaliseNewlines bool
	NoticeFrom        string

	routes  routes
	limits  map[string]DestinationLimit
	unknown parts
}

// DestinationLimit is how much one edge sends to a destination.
type DestinationLimit struct {
	// MaxConnections at once. 0 means as many as to any other destination.
	MaxConnections int
	// MessagesPerMinute 0 means no limit.
	MessagesPerMinute int
}

// Partner is a reseller as its domains' mail sees it.
type Partner struct {
	Slug string
	Standing
	// Contact is its support contact, an address or a URL. "" where it has none.
	Contact string
}

// Domain is one customer domain, compiled.
type Domain struct {
	// Name is the canonical A-label form.
	Name string
	Standing
	// Limit is the daily relay limit in units, as computed for now.
	Limit int64
	// IncludeSubdomains lets a.example.com speak under example.com.
	IncludeSubdomains bool
	// ExceptSubdomains are registered domains below this one that belong to
	// other partners. An edge need not have their documents to know that this
	// domain does not speak for them.
	ExceptSubdomains []string
	// UsersSendAsDomain lets a user send from every address of the domain.
	UsersSendAsDomain bool
	// Bulk is the exception for bulk mail. nil where there is none.
	Bulk *BulkException

	partner  unique.Handle[string]
	timeZone unique.Handle[string]
	clients  clients
	users    []User // by address
	routes   routes
	unknown  parts
}

// parts is the set of parts of a document that did not compile.
type parts uint8

const (
	partWhole parts = 1 << iota // nothing of the document is known
	partClients
	partUsers
	partRoutes
	partBulk
)

// BulkException is what applies to bulk mail of one domain in place of the
// platform's mode.
type BulkException struct {
	Mode api.BulkMode
	// ExpiresAt is the first instant at which it no longer applies. Zero = never.
	ExpiresAt time.Time
}

// User is one SMTP AUTH identity.
type User struct {
	// Address is its key: the local part in lower case.
	Address string
	Standing
	// Verifier is argon2id in PHC form.
	Verifier string

	aliases []string // sorted keys
}

// Partner is the slug of the owning partner.
func (d *Domain) Partner() string { return d.partner.Value() }

// TimeZone is the name of the zone in force, "UTC" where the document names
// none. Whether this machine knows the zone is the caller's to find out.
func (d *Domain) TimeZone() string { return d.timeZone.Value() }

// Readable reports whether anything but the name of the domain is known.
func (d *Domain) Readable() bool { return d.unknown&partWhole == 0 }

// User finds a user of the domain.
func (d *Domain) User(address mailaddr.Address) (*User, Answer) {
	i, ok := slices.BinarySearchFunc(d.users, address.Key(), func(u User, key string) int {
		return strings.Compare(u.Address, key)
	})
	switch {
	case ok:
		return &d.users[i], Yes
	case d.unknown&(partUsers|partWhole) != 0:
		return nil, Unknown
	}
	return nil, No
}

// BulkMode is what applies to bulk mail of the domain at an instant. It is
// Unknown where an exception stands that did not compile.
func (d *Domain) BulkMode(platform *Platform, now time.Time) (api.BulkMode, Answer) {
	switch {
	case d.unknown&(partBulk|partWhole) != 0:
		return "", Unknown
	case d.Bulk != nil && (d.Bulk.ExpiresAt.IsZero() || now.Before(d.Bulk.ExpiresAt)):
		return d.Bulk.Mode, Yes
	}
	return platform.BulkMode, Yes
}

// UserMaySend says whether a user of d may send as an address that speaks under
// another or the same domain.
func (d *Domain) UserMaySend(u *User, as mailaddr.Address, under *Domain) Answer {
	switch {
	case u.Owns(as) || d.UsersSendAsDomain && under.Name == d.Name:
		return Yes
	case d.unknown&partUsers != 0:
		return Unknown
	}
	return No
}

// Owns reports whether an address is the user's own or one of its aliases.
func (u *User) Owns(address mailaddr.Address) bool {
	key := address.Key()
	if key == u.Address {
		return true
	}
	_, ok := slices.BinarySearch(u.aliases, key)
	return ok
}
