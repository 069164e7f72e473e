package admit

import (
	"net/netip"
	"time"

	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/reason"
)

// View is what is known at one moment. A session takes one for each
// transaction, so that all its checks see the same policy.
type View struct {
	Table *policy.Table
	// Complete: a first pass over the policy has ended, now or in an earlier
	// life of this edge.
	Complete bool
	// LastPoll is the last successful poll. Zero means never.
	LastPoll time.Time
	Now      time.Time
}

// Fresh reports whether a permanent refusal may be based on the policy.
func (v View) Fresh() bool {
	return v.Complete && v.Now.Sub(v.LastPoll) <= v.Table.Platform().MaxPolicyAge
}

// Client is who is connected.
type Client struct {
	Address netip.Addr
	// User is the authenticated user. The null address means that the client
	// did not authenticate and is known by its address alone. An authenticated
	// client is judged by its user alone, so that disabling a user stops it
	// behind a relay IP too.
	User mailaddr.Address
}

// Authenticated reports whether the client is known by a user.
func (c Client) Authenticated() bool { return !c.User.IsNull() }

// Action is what happens to the command.
type Action string

// The actions.
const (
	Accept Action = "accept"
	Defer  Action = "defer"
	Reject Action = "reject"
)

// CheckName names one check of a receipt.
type CheckName string

// The checks.
const (
	CheckUser         CheckName = "user"
	CheckSenderDomain CheckName = "sender-domain"
	CheckPartner      CheckName = "partner"
	CheckClient       CheckName = "client-address"
	CheckStanding     CheckName = "standing"
	CheckRecipients   CheckName = "recipients"
	CheckSize         CheckName = "size"
	CheckQuota        CheckName = "quota"
	CheckBulk         CheckName = "bulk"
)

// Outcome is how one check went.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown"
	// Noted: a mark was seen that policy lets pass.
	Noted Outcome = "noted"
)

// Check is one line of a receipt.
type Check struct {
	Name    CheckName `json:"name"`
	Outcome Outcome   `json:"outcome"`
	Detail  string    `json:"detail,omitempty"`
}

// Verdict is one decision.
type Verdict struct {
	Action Action
	// Reason is "" for an accepted command.
	Reason reason.Slug
	// Args fill the sentence of the reason. The caller adds Ref and Edge.
	Args reason.Args
	// Checks is the receipt. The last one decided.
	Checks []Check
	// Domain is what the sender speaks under; of an envelope sender it is the
	// one that is charged. nil where that is not known (yet).
	Domain *policy.Domain
	// Partner owns Domain. nil where Domain is.
	Partner *policy.Partner
	// RelayIP is the id of the relay IP that let the client in. "" for a user.
	RelayIP string
}

// Reply is the answer to write for a verdict that is not Accept.
func (v Verdict) Reply(ref, edge string) reason.Reply {
	args := v.Args
	args.Ref, args.Edge = ref, edge
	return reason.Render(v.Reason, args)
}

// Detail is the deciding check in words, for the record of a refusal.
func (v Verdict) Detail() string {
	if len(v.Checks) == 0 {
		return ""
	}
	last := v.Checks[len(v.Checks)-1]
	if last.Detail == "" {
		return string(last.Name) + " " + string(last.Outcome)
	}
	return string(last.Name) + " " + string(last.Outcome) + ": " + last.Detail
}

// note adds a line to the receipt.
func (v *Verdict) note(name CheckName, outcome Outcome, detail string) {
	if v.Checks == nil {
		v.Checks = make([]Check, 0, 4) // as many as ordinary mail passes
	}
	v.Checks = append(v.Checks, Check{Name: name, Outcome: outcome, Detail: detail})
}

// refuse ends a verdict with a reason. Whether that defers or rejects is what
// the code of the reason says.
func (v *Verdict) refuse(view View, slug reason.Slug, args reason.Args) Verdict {
	args.Revision = view.Table.Revision()
	if args.Contact == "" && v.Partner != nil {
		args.Contact = v.Partner.Contact
	}
	v.Reason, v.Args, v.Action = slug, args, Reject
	if r, ok := reason.Lookup(slug); !ok || r.RetryUnder(args.Variant) {
		v.Action = Defer
	}
	return *v
}

// refuseByPolicy is refuse for what another policy would let pass: while policy
// is stale it defers.
func (v *Verdict) refuseByPolicy(view View, slug reason.Slug, args reason.Args) Verdict {
	r, _ := reason.Lookup(slug)
	if !view.Fresh() && !r.RetryUnder(args.Variant) {
		args.Variant = reason.WhenStale
	}
	return v.refuse(view, slug, args)
}
