package reason

import (
	"fmt"
	"sync"
)

// Slug is the stable name of a reason, e.g. "quota-reached".
type Slug string

// Stage is a point at which a reason can be given.
type Stage string

// The stages of an SMTP session in their order, then delivery and the API.
const (
	StageConnect Stage = "connect"
	StageAuth    Stage = "auth"
	StageMail    Stage = "mail"
	StageRcpt    Stage = "rcpt"
	StageData    Stage = "data" // after the final dot
	StageCommit  Stage = "commit"
	StageDSN     Stage = "dsn" // after the message was accepted
	StageAPI     Stage = "api"
)

// Scope says whose trouble a reason is: an alarm counts only the platform's.
type Scope string

// The two scopes.
const (
	ScopePlatform Scope = "platform"
	ScopeTenant   Scope = "tenant"
)

// Exit is the exit code with which relayctl ends on a reason.
type Exit int

// The documented exit codes of relayctl.
const (
	ExitFailure     Exit = 1
	ExitUsage       Exit = 2
	ExitNotFound    Exit = 3
	ExitAuth        Exit = 4
	ExitConflict    Exit = 5
	ExitLimit       Exit = 6
	ExitUnavailable Exit = 7
	ExitPending     Exit = 8
)

// Enhanced is an enhanced status code of RFC 3463.
type Enhanced [3]int

// String returns "4.7.1".
func (e Enhanced) String() string { return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2]) }

// Code is one SMTP answer. The zero value means the reason is never said over
// SMTP. A reason that is only written into a DSN has SMTP 0 and an Enhanced.
type Code struct {
	SMTP     int
	Enhanced Enhanced
}

// Variant names a circumstance that changes the reply of a reason.
type Variant string

// The circumstances. The zero value is the ordinary reply.
const (
	// Ordinary is the reply of the table's first column.
	Ordinary Variant = ""
	// ForUser: the client is an authenticated user, who sees the refusal at
	// once and whose program would retry for days without telling.
	ForUser Variant = "user"
	// WhenStale: the refusal depends on something the edge may not have heard
	// of yet, so it must not be permanent.
	WhenStale Variant = "stale"
	// Later: the condition has lasted so long that the sender must hear of it.
	Later Variant = "later"
	// AtConnect: said before or instead of a session, which then ends.
	AtConnect Variant = "connect"
	// Overloaded: it is not the client that has too much of it, but the edge.
	Overloaded Variant = "overload"
	// FirstBurst: the first sight of what may prove to be bulk mail.
	FirstBurst Variant = "burst"
	// BackendDown: the question could not be answered, so it is not a "no".
	BackendDown Variant = "backend"
	// InMessage and InAuth: not in a command but in the lines of a message or of
	// an authentication.
	InMessage Variant = "message"
	InAuth    Variant = "auth"
)

// Alternative is the reply of a reason under one variant.
type Alternative struct {
	When Variant
	Code Code
	// Sentence replaces the reason's sentence. "" keeps it.
	Sentence string
}

// Reason is one row of the registry.
type Reason struct {
	Slug   Slug
	Stages []Stage
	// Title is the short name for people, without arguments.
	Title string
	// Sentence is the first line of a reply and the default detail of a
	// problem. "{name}" stands for a field of Args.
	Sentence string
	// Explanation says what it means and what to do, for whoever looks up the
	// reference of a refusal.
	Explanation string
	// Reply is the ordinary SMTP answer.
	Reply Code
	// Alternatives are the answers that differ from Reply.
	Alternatives []Alternative
	// HTTPStatus is the status of the problem of this type.
	HTTPStatus int
	// NamesContact: only the provider can mend this, so the sentence ends with
	// the partner's support contact where one is known.
	NamesContact bool
	// Charged: the message had already been counted when this is said.
	Charged bool
	// Retry: sending the same again later can succeed without anyone's help.
	Retry bool
	Scope Scope
	Exit  Exit
}

// Lookup returns the row of a slug.
func Lookup(slug Slug) (Reason, bool) {
	r, ok := bySlug()[slug]
	return r, ok
}

// bySlug is built once and never written again.
var bySlug = sync.OnceValue(func() map[Slug]Reason {
	index := make(map[Slug]Reason)
	for _, r := range All() {
		index[r.Slug] = r
	}
	return index
})

// All returns the whole registry: the message path in the order of its stages,
// then the API. The caller owns the slice.
func All() []Reason {
	all := sessionReasons()
	all = append(all, senderReasons()...)
	all = append(all, recipientReasons()...)
	all = append(all, contentReasons()...)
	all = append(all, platformReasons()...)
	return append(all, apiReasons()...)
}

// Under returns the code and the sentence of r under a variant. A variant that
// r does not know is the ordinary one.
func (r Reason) Under(v Variant) (Code, string) {
	for _, alt := range r.Alternatives {
		if alt.When != v {
			continue
		}
		if alt.Sentence != "" {
			return alt.Code, alt.Sentence
		}
		return alt.Code, r.Sentence
	}
	return r.Reply, r.Sentence
}

// RetryUnder reports whether sending the same again can succeed under a
// variant: the class of the SMTP code where there is one, else Retry.
func (r Reason) RetryUnder(v Variant) bool {
	code, _ := r.Under(v)
	if code.SMTP == 0 {
		return r.Retry
	}
	return code.SMTP < 500
}
