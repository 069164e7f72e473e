package spool

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"activerelay/api/mailaddr"

	"github.com/oklog/ulid/v2"
)

// Message is the envelope of one accepted message: everything but its text.
type Message struct {
	// ID names the message everywhere; see NewID.
	ID string `json:"id"`
	// Domain is the customer domain that was charged; empty for a Notice.
	Domain string `json:"domain,omitempty"`
	// Partner is the slug of the domain's partner.
	Partner string `json:"partner,omitempty"`
	// From is the envelope sender. The zero value is the null sender.
	From mailaddr.Address `json:"from"`
	// Recipients are all that were accepted, in the order they were given.
	Recipients []Recipient `json:"recipients"`
	// Client is the address of the host that gave us the message.
	Client netip.Addr `json:"client,omitzero"`
	// User is the identity it authenticated as; empty for a relay IP.
	User string `json:"user,omitempty"`
	// Helo is what it called itself, made safe for writing.
	Helo string `json:"helo,omitempty"`
	// Size is the whole text in bytes, our added fields included. Stage sets it.
	Size int64 `json:"size"`
	// AcceptedAt is the moment of the 250.
	AcceptedAt time.Time `json:"accepted_at"`
	// SMTPUTF8 and EightBit say what the next hop must offer (RFC 6531, 6152).
	SMTPUTF8 bool `json:"smtputf8,omitempty"`
	EightBit bool `json:"eight_bit,omitempty"`
	// RequireTLS is the sender's wish of RFC 8689.
	RequireTLS bool `json:"require_tls,omitempty"`
	// Ret is the DSN wish FULL or HDRS, EnvID the sender's name for the
	// envelope (RFC 3461 4.3, 4.4). Empty: not given.
	Ret   string `json:"ret,omitempty"`
	EnvID string `json:"env_id,omitempty"`
	// Notice marks mail that the relay itself sends. It is never charged.
	Notice bool `json:"notice,omitempty"`
	// Units were charged to Domain on the day that began at DayStart.
	Units    int64     `json:"units,omitempty"`
	DayStart time.Time `json:"day_start,omitzero"`
	// PolicyRevision is the revision that admitted the message.
	PolicyRevision int64 `json:"policy_revision,omitempty"`
}

// Recipient is one address and what has become of it.
type Recipient struct {
	Address mailaddr.Address `json:"address"`
	// Notify holds NEVER, or any of SUCCESS, FAILURE, DELAY (RFC 3461 4.1).
	// Empty: not given.
	Notify []string `json:"notify,omitempty"`
	// ORCPT is the original recipient, as given (RFC 3461 4.2).
	ORCPT string `json:"orcpt,omitempty"`
	// State is Pending until the recipient is settled. Empty means Pending.
	State State `json:"state,omitempty"`
	// Attempts counts the tries begun, LastAttempt is when the last one was;
	// NextAttempt is when the next is due. Zero: never, at once.
	Attempts    int       `json:"attempts,omitempty"`
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	// LastReply is what the last host said, made safe for writing by whoever
	// sets it, or UnderWay.
	LastReply string `json:"last_reply,omitempty"`
	// Interrupted counts the attempts in a row that ended with a panic or with
	// the process, the one that UnderWay stands for left out.
	Interrupted int `json:"interrupted,omitempty"`
	// DelayNoticed is set once a delay notification was sent.
	DelayNoticed bool `json:"delay_noticed,omitempty"`
	// Held is set while an operator keeps the recipient from being tried. It
	// does not expire meanwhile.
	Held bool `json:"held,omitempty"`
	// Cancelling is set when an operator cancelled the recipient while an
	// attempt was under way: unless that one delivers, nothing more is tried.
	Cancelling bool `json:"cancelling,omitempty"`
}

// UnderWay stands in LastReply while an attempt is under way. Found at the start
// of the process it says that the attempt was cut short.
const UnderWay = "attempt under way"

// State is what has become of a recipient. All but Pending are final.
type State string

// The states of a recipient.
const (
	Pending   State = "pending"
	Delivered State = "delivered"
	Bounced   State = "bounced"
	Expired   State = "expired"
	Cancelled State = "cancelled"
)

// Final reports whether nothing more will happen to the recipient.
func (s State) Final() bool { return s != Pending && s != "" }

// Settled reports whether every recipient has reached its final state.
func (m *Message) Settled() bool {
	for i := range m.Recipients {
		if !m.Recipients[i].State.Final() {
			return false
		}
	}
	return true
}

// NewID makes the id of a message accepted at now: a ULID, so ids sort by time
// and cannot be guessed.
func NewID(now time.Time, entropy io.Reader) (string, error) {
	id, err := ulid.New(ulid.Timestamp(now), entropy)
	if err != nil {
		return "", fmt.Errorf("make message id: %w", err)
	}
	return id.String(), nil
}

// validID keeps anything but a ULID out of keys and file names.
func validID(id string) error {
	if _, err := ulid.ParseStrict(id); err != nil {
		return fmt.Errorf("message id %q: %w", id, err)
	}
	return nil
}
