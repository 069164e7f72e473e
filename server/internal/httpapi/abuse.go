package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"activerelay/api"
	"activerelay/server/internal/store"
)

// suspects are who may be guilty of the mail that a complaint is about, from the smallest scope up. The smallest one
// that has reached its threshold is disabled, and the larger ones, who have other people in them, are left alone for
// this time. Once mail is stopped, further complaints about it, which arrive for days, say nothing new and count against
// nobody; those that led to it go on counting against the larger scopes, so that a domain that brings forth one guilty
// user after the other is disabled in the end.
type suspects struct {
	// user is who authenticated; nil where nobody did, or who is no more.
	user *store.User
	// relayIP is what let the client in where nobody authenticated; nil where it is no more.
	relayIP  *store.RelayIP
	domain   store.Domain
	partner  store.Partner
	settings store.Settings
}

// suspects finds who may be guilty, and notes the relay IP in the complaint.
func (a *API) suspects(tx *store.Tx, row *store.Complaint, domain store.Domain) (suspects, error) {
	s := suspects{domain: domain}
	var err error
	if s.settings, err = tx.Settings(); err != nil {
		return s, err
	}
	if s.partner, err = tx.LockPartner(domain.Partner); err != nil {
		return s, err
	}
	if row.UserAddress != "" {
		user, err := tx.LockUser(row.UserAddress)
		if errors.Is(err, store.ErrNotFound) {
			return s, nil
		}
		s.user = &user
		return s, err
	}
	address, err := netip.ParseAddr(row.ClientAddress)
	if err != nil {
		return s, nil // told by the domain alone
	}
	relayIP, err := tx.MostSpecificRelayIP(domain.Name, address)
	if errors.Is(err, store.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	relayIP, err = tx.LockRelayIP(relayIP.ID)
	s.relayIP, row.RelayIP = &relayIP, relayIP.ID
	return s, err
}

// stopped reports whether mail like the one complained about is refused already. A relay IP that a partner disabled it
// may enable again, so that does not end the counting.
func (s suspects) stopped() bool {
	switch {
	case s.domain.Relaying.State == store.RelayingDisabled, s.partner.Relaying.State == store.RelayingDisabled:
		return true
	case s.user != nil:
		return s.user.Relaying.State == store.RelayingDisabled
	case s.relayIP != nil:
		return s.relayIP.State == store.RelayIPDisabled && s.relayIP.Cause != store.CausePartner
	}
	return false
}

// suspect is one scope with how many complaints it takes to disable it, and how.
type suspect struct {
	// object is "kind/key".
	object string
	scope  store.ComplaintScope
	// threshold is how many complaints it takes; 0 means that none do.
	threshold int
	clearedAt *time.Time
	disable   func(reason string) error
}

// disableGuilty disables the smallest scope that has reached its threshold, and returns what that was.
func (a *API) disableGuilty(ctx context.Context, tx *store.Tx, s suspects) (store.Strings, error) {
	window := time.Duration(s.settings.ComplaintsWindowHours) * time.Hour
	for _, one := range a.lineUp(ctx, tx, s) {
		if one.threshold == 0 {
			continue
		}
		after := tx.Now.Add(-window)
		if one.clearedAt != nil && one.clearedAt.After(after) {
			after = *one.clearedAt
		}
		count, err := tx.CountComplaints(one.scope, after)
		if err != nil {
			return nil, err
		}
		if count < int64(one.threshold) {
			continue
		}
		reason := fmt.Sprintf("%d abuse complaints within %d hours", count, s.settings.ComplaintsWindowHours)
		return store.Strings{one.object}, one.disable(reason)
	}
	return store.Strings{}, nil
}

// lineUp lists the suspects from the smallest scope up.
func (a *API) lineUp(ctx context.Context, tx *store.Tx, s suspects) []suspect {
	var all []suspect
	domain := store.ComplaintScope{Partner: s.partner.Slug, Domain: s.domain.Name}
	switch {
	case s.user != nil:
		scope := domain
		scope.User = s.user.Address
		all = append(all, suspect{
			object: "user/" + s.user.Address, scope: scope, threshold: s.settings.ComplaintsUser,
			clearedAt: s.user.Relaying.ClearedAt,
			disable:   func(reason string) error { return a.disableUserFor(ctx, tx, s.user, reason) },
		})
	case s.relayIP != nil:
		scope := domain
		scope.RelayIP = s.relayIP.ID
		all = append(all, suspect{
			object: "relay-ip/" + s.relayIP.ID, scope: scope, threshold: s.settings.ComplaintsRelayIP,
			clearedAt: s.relayIP.RelayingClearedAt,
			disable:   func(reason string) error { return a.disableRelayIPFor(ctx, tx, s.relayIP, reason) },
		})
	}
	return append(all,
		suspect{
			object: "domain/" + s.domain.Name, scope: domain, threshold: s.settings.ComplaintsDomain,
			clearedAt: s.domain.Relaying.ClearedAt,
			disable:   func(reason string) error { return a.disableDomainFor(ctx, tx, &s.domain, reason) },
		},
		suspect{
			object: "partner/" + s.partner.Slug, scope: store.ComplaintScope{Partner: s.partner.Slug},
			threshold: s.settings.ComplaintsPartner, clearedAt: s.partner.Relaying.ClearedAt,
			disable: func(reason string) error { return a.disablePartnerFor(ctx, tx, &s.partner, reason) },
		},
	)
}

func (a *API) disableUserFor(ctx context.Context, tx *store.Tx, row *store.User, reason string) error {
	before := userToAPI(*row)
	row.Relaying.Disable(store.CauseComplaints, reason, tx.Now)
	return a.saveUser(ctx, tx, row, before, change{reason: reason})
}

func (a *API) disableRelayIPFor(ctx context.Context, tx *store.Tx, row *store.RelayIP, reason string) error {
	before := relayIPToAPI(*row)
	row.State, row.Cause, row.Reason = store.RelayIPDisabled, store.CauseComplaints, reason
	return a.saveRelayIP(ctx, tx, row, before, reason)
}

// relayingChange is what the audit shows of a domain or partner that complaints disabled.
type relayingChange struct {
	Relaying api.Relaying `json:"relaying"`
}

func (a *API) disableDomainFor(ctx context.Context, tx *store.Tx, row *store.Domain, reason string) error {
	before := relayingChange{Relaying: relayingToAPI(row.Relaying)}
	row.Relaying.Disable(store.CauseComplaints, reason, tx.Now)
	if err := tx.UpdateDomain(row); err != nil {
		return err
	}
	tx.Publish(store.DomainKey(row.Name))
	return a.audit(ctx, tx, change{
		object: "domain/" + row.Name, partner: row.Partner, reason: reason, before: before,
		after: relayingChange{Relaying: relayingToAPI(row.Relaying)},
	})
}

func (a *API) disablePartnerFor(ctx context.Context, tx *store.Tx, row *store.Partner, reason string) error {
	before := partnerToAPI(*row)
	row.Relaying.Disable(store.CauseComplaints, reason, tx.Now)
	return a.savePartner(ctx, tx, row, before, reason)
}
