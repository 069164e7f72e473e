package admit

import (
	"activerelay/api/mailaddr"
	"activerelay/api/policy"
	"activerelay/api/reason"
)

// Sender decides about an envelope sender: is its domain registered, may the
// client speak for it, is relaying neither suspended nor disabled. It is asked at
// the first RCPT, so that the record of a refusal names a recipient.
//
// The null sender is let pass for now and attributed by [HeaderFrom]; only an
// authenticated client can be judged already.
func Sender(view View, client Client, from mailaddr.Address) Verdict {
	q := inquiry{view: view, client: client, from: from}
	if from.IsNull() {
		return q.null()
	}
	return q.run(nil)
}

// HeaderFrom decides about the address of the From field, after the final dot.
// envelope is the domain that the envelope sender speaks under; both must belong
// to one partner. It is nil for the null sender, whose message is then charged to
// the domain of this verdict.
func HeaderFrom(view View, client Client, envelope *policy.Domain, from mailaddr.Address) Verdict {
	q := inquiry{view: view, client: client, from: from}
	return q.run(envelope)
}

// inquiry is one question on its way through the checks. Each check returns
// true to go on; one that returns false has ended the verdict.
type inquiry struct {
	view    View
	client  Client
	from    mailaddr.Address
	verdict Verdict
	// user and home are the authenticated user and its domain, else nil.
	user *policy.User
	home *policy.Domain
}

func (q *inquiry) run(envelope *policy.Domain) Verdict {
	// The user comes first: what it is told when it is gone must not depend on
	// whose domain it asks about.
	if q.client.Authenticated() && !q.findUser() {
		return q.verdict
	}
	domain, ok := q.view.Table.Domain(q.from.Domain)
	if !ok {
		return q.unknownDomain()
	}
	if domain.Readable() && q.foreign(envelope, domain) {
		return q.unknownDomain()
	}
	if !q.owner(domain) || !q.maySend(domain) || !q.standing(domain) {
		return q.verdict
	}
	q.verdict.Action = Accept
	return q.verdict
}

// null judges what is known of a client that sends with the null sender.
func (q *inquiry) null() Verdict {
	if q.client.Authenticated() && (!q.findUser() || !q.owner(q.home) || !q.standing(q.home)) {
		return q.verdict
	}
	q.verdict.Action = Accept
	q.verdict.Domain, q.verdict.Partner = nil, nil
	return q.verdict
}

// foreign reports whether a domain belongs to another partner than the envelope
// sender's or the user's.
func (q *inquiry) foreign(envelope, domain *policy.Domain) bool {
	return envelope != nil && envelope.Partner() != domain.Partner() ||
		q.home != nil && q.home.Partner() != domain.Partner()
}

// unknownDomain answers for a domain that is not registered, and in the same
// words for one of another partner. It forgets what was found so far.
func (q *inquiry) unknownDomain() Verdict {
	q.verdict = Verdict{}
	q.verdict.note(CheckSenderDomain, q.failed(), q.from.Domain)
	return q.verdict.refuseByPolicy(q.view, reason.SenderDomainUnknown, reason.Args{Domain: q.from.Domain})
}

// failed is the outcome of a check that fails by policy: not certain while
// policy is stale.
func (q *inquiry) failed() Outcome {
	if q.view.Fresh() {
		return Failed
	}
	return Unknown
}

// unreadable ends the verdict because a part of the policy did not compile, or
// has not come yet.
func (q *inquiry) unreadable(check CheckName, domain *policy.Domain, detail string) bool {
	q.verdict.note(check, Unknown, detail)
	q.verdict.refuse(q.view, reason.PolicyStale, reason.Args{Domain: domain.Name})
	return false
}

// owner finds the partner of a domain.
func (q *inquiry) owner(domain *policy.Domain) bool {
	q.verdict.Domain = domain
	if !domain.Readable() {
		return q.unreadable(CheckSenderDomain, domain, "the document of the domain cannot be read")
	}
	q.verdict.note(CheckSenderDomain, Passed, domain.Name)
	partner, ok := q.view.Table.Partner(domain.Partner())
	if !ok {
		return q.unreadable(CheckPartner, domain, "the document of the partner has not come yet")
	}
	q.verdict.Partner = partner
	return true
}

func (q *inquiry) maySend(domain *policy.Domain) bool {
	if q.user != nil {
		return q.userMaySend(domain)
	}
	return q.clientMaySend(domain)
}

// clientMaySend is the check of a client that is known by its address.
func (q *inquiry) clientMaySend(domain *policy.Domain) bool {
	found, answer := domain.Client(q.client.Address)
	if answer == policy.Unknown {
		return q.unreadable(CheckClient, domain, "a relay IP of the domain cannot be read")
	}
	if answer == policy.Yes && found.State == policy.ClientActive {
		q.verdict.RelayIP = found.ID
		q.verdict.note(CheckClient, Passed, found.Prefix.String())
		return true
	}
	address := q.client.Address.Unmap().WithZone("").String()
	args := reason.Args{Domain: domain.Name, Client: address}
	if found.State == policy.ClientAbusive {
		q.verdict.note(CheckClient, q.failed(), address+" is disabled after complaints")
		args.Subject = address
		q.verdict.refuseByPolicy(q.view, reason.RelayDisabled, args)
		return false
	}
	detail := address + " is no relay IP of " + domain.Name
	if found.State == policy.ClientDisabled {
		detail = address + " is a disabled relay IP of " + domain.Name
	}
	q.verdict.note(CheckClient, q.failed(), detail)
	q.verdict.refuseByPolicy(q.view, reason.IPNotAllowed, args)
	return false
}

// findUser looks the authenticated user up again, because it may have been
// changed or removed since AUTH.
func (q *inquiry) findUser() bool {
	user, home, answer := q.view.Table.User(q.client.User)
	switch answer {
	case policy.Yes:
		q.user, q.home = user, home
		return true
	case policy.Unknown:
		return q.unreadable(CheckUser, home, "a user of the domain cannot be read")
	}
	return q.notOwned(q.client.User.String() + " is no user any more")
}

func (q *inquiry) notOwned(detail string) bool {
	q.verdict.note(CheckUser, q.failed(), detail)
	q.verdict.refuseByPolicy(q.view, reason.SenderNotOwned, reason.Args{
		Domain: q.from.Domain, User: q.client.User.String(), Sender: q.from.String(),
	})
	return false
}

// userMaySend is the check of an authenticated user.
func (q *inquiry) userMaySend(domain *policy.Domain) bool {
	switch q.home.UserMaySend(q.user, q.from, domain) {
	case policy.Yes:
		q.verdict.note(CheckUser, Passed, q.user.Address)
		return true
	case policy.Unknown:
		return q.unreadable(CheckUser, q.home, "the addresses of a user cannot be read")
	}
	return q.notOwned(q.user.Address + " does not own " + q.from.String())
}

// standing holds that nobody on the way has been suspended or disabled: first
// the partner, then the domain, then the user.
func (q *inquiry) standing(domain *policy.Domain) bool {
	levels := []struct {
		subject string
		policy.Standing
	}{
		// The customer knows its domain, not its partner's slug.
		{subject: domain.Name, Standing: q.verdict.Partner.Standing},
		{subject: domain.Name, Standing: domain.Standing},
	}
	if q.user != nil {
		levels = append(levels, struct {
			subject string
			policy.Standing
		}{subject: q.user.Address, Standing: q.user.Standing})
	}
	for _, level := range levels {
		args := reason.Args{Domain: domain.Name, Subject: level.subject}
		switch {
		case level.Disabled:
			q.disabled(args)
			return false
		case level.Active == policy.No:
			q.suspended(args, level.Standing)
			return false
		case level.Active != policy.Yes:
			return q.unreadable(CheckStanding, domain, "the status of "+level.subject+" cannot be read")
		}
	}
	q.verdict.note(CheckStanding, Passed, "")
	return true
}

func (q *inquiry) disabled(args reason.Args) {
	q.verdict.note(CheckStanding, q.failed(), args.Subject+" is disabled after complaints")
	if q.client.Authenticated() {
		args.Variant = reason.ForUser
	}
	q.verdict.refuseByPolicy(q.view, reason.RelayDisabled, args)
}

// suspended defers for a while, so that a mistake or a bill paid late costs no
// mail, and then refuses, so that senders come to know of it.
func (q *inquiry) suspended(args reason.Args, s policy.Standing) {
	q.verdict.note(CheckStanding, q.failed(), args.Subject+" is suspended")
	patience := q.view.Table.Platform().SuspendedDefer
	lasted := patience == 0 || !s.Since.IsZero() && q.view.Now.Sub(s.Since) >= patience
	if lasted && q.view.Fresh() {
		args.Variant = reason.Later
	}
	q.verdict.refuse(q.view, reason.RelaySuspended, args)
}
