package httpapi

import (
	"context"
	"errors"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/problem"
	"activerelay/server/internal/store"
)

// domainEdit is what a request wants of a domain: nil leaves a property as it is.
type domainEdit struct {
	partner           *string
	licensedUsers     *int
	timeZone          *string // empty inherits
	includeSubdomains *bool
	usersMaySendAs    *string
	contacts          []string
}

// domainOutcome is what an edit came to.
type domainOutcome struct {
	row              store.Domain
	created, changed bool
}

// replacementOf is a PUT: what it does not name gets its default.
func replacementOf(body api.DomainPut) (domainEdit, error) {
	users, zone, include, sendAs := 0, text(body.TimeZone), false, string(api.DomainPutUsersMaySendAsOwn)
	if body.LicensedUsers != nil {
		users = *body.LicensedUsers
	}
	if body.IncludeSubdomains != nil {
		include = *body.IncludeSubdomains
	}
	if body.UsersMaySendAs != nil {
		sendAs = string(*body.UsersMaySendAs)
	}
	if body.Contacts == nil {
		body.Contacts = []string{}
	}
	return domainEdit{
		partner: body.Partner, licensedUsers: &users, timeZone: &zone, includeSubdomains: &include, usersMaySendAs: &sendAs,
		contacts: body.Contacts,
	}.checked("")
}

// patchOf is a merge patch: null clears.
func patchOf(body api.DomainPatch) (domainEdit, error) {
	edit := domainEdit{
		licensedUsers: body.LicensedUsers, includeSubdomains: body.IncludeSubdomains,
		usersMaySendAs: (*string)(body.UsersMaySendAs), contacts: body.Contacts,
	}
	if zone, named := nullableText(body.TimeZone); named {
		edit.timeZone = &zone
	}
	return edit.checked("")
}

// checked holds an edit to the rules that the contract cannot state, and brings contacts to their canonical form. prefix
// is where in the body the edit stands.
func (e domainEdit) checked(prefix string) (domainEdit, error) {
	if e.timeZone != nil {
		if _, err := timeZone(prefix+"/time_zone", *e.timeZone); err != nil {
			return e, err
		}
	}
	if e.contacts == nil {
		return e, nil
	}
	contacts := make([]string, 0, len(e.contacts))
	for i, contact := range e.contacts {
		address, err := mailaddr.Parse(contact, mailaddr.Options{})
		if err != nil {
			return e, invalid(indexed(prefix+"/contacts", i), "email", "is not an e-mail address: "+err.Error())
		}
		contacts = append(contacts, address.String())
	}
	e.contacts = contacts
	return e, nil
}

// apply writes the edit into a row.
func (e domainEdit) apply(row *store.Domain) {
	if e.licensedUsers != nil {
		row.LicensedUsers = int64(*e.licensedUsers)
	}
	if e.timeZone != nil {
		row.TimeZone = optional(*e.timeZone)
	}
	if e.includeSubdomains != nil {
		row.IncludeSubdomains = *e.includeSubdomains
	}
	if e.usersMaySendAs != nil {
		row.UsersMaySendAs = *e.usersMaySendAs
	}
	if e.contacts != nil {
		row.Contacts = e.contacts
	}
}

// putDomain edits the domain of a name, or makes it where the caller sees none.
func (a *API) putDomain(ctx context.Context, tx *store.Tx, name string, edit domainEdit, seen *string) (domainOutcome, error) {
	row, err := tx.LockDomain(name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := ifMatch(seen, 0); err != nil {
			return domainOutcome{}, err
		}
		return a.createDomain(ctx, tx, name, edit)
	case err != nil:
		return domainOutcome{}, err
	case edit.partner != nil && *edit.partner != row.Partner:
		return domainOutcome{}, problem.Conflict("The domain belongs to another partner, and domains do not move")
	}
	if err := ifMatch(seen, row.Version); err != nil {
		return domainOutcome{}, err
	}
	changed, err := a.editDomain(ctx, tx, &row, edit, "")
	return domainOutcome{row: row, changed: changed}, err
}

func (a *API) createDomain(ctx context.Context, tx *store.Tx, name string, edit domainEdit) (domainOutcome, error) {
	partner, err := ownerOf(ctx, edit.partner)
	if err != nil {
		return domainOutcome{}, err
	}
	if _, err := tx.LockPartner(partner); errors.Is(err, store.ErrNotFound) {
		return domainOutcome{}, invalid("/partner", "partner", "is not a partner")
	} else if err != nil {
		return domainOutcome{}, err
	}
	row := store.Domain{
		Name: name, Partner: partner, UsersMaySendAs: string(api.DomainUsersMaySendAsOwn),
		Administrative: store.Active(tx.Now), Relaying: store.Enabled(),
	}
	edit.apply(&row)
	if err := tx.InsertDomain(&row); store.IsConflict(err, store.DomainTaken) {
		return domainOutcome{}, problem.DomainUnavailable()
	} else if err != nil {
		return domainOutcome{}, err
	}
	if err := tx.PublishDomainsAbove(name); err != nil {
		return domainOutcome{}, err
	}
	outcome := domainOutcome{row: row, created: true, changed: true}
	return outcome, a.noteDomain(ctx, tx, row, nil, "")
}

// ownerOf is the partner of a new domain: a partner's own, or the one that the operator names.
func ownerOf(ctx context.Context, named *string) (string, error) {
	own := PrincipalFrom(ctx).Partner
	switch {
	case own == "" && named == nil:
		return "", invalid("/partner", "required", "is required for a new domain")
	case own == "":
		return *named, nil
	case named != nil && *named != own:
		return "", invalid("/partner", "partner", "must be the partner of the token")
	default:
		return own, nil
	}
}

// editDomain applies an edit to a locked row. One that changes nothing is not written.
func (a *API) editDomain(ctx context.Context, tx *store.Tx, row *store.Domain, edit domainEdit, reason string) (bool, error) {
	before, err := showDomain(tx, *row)
	if err != nil {
		return false, err
	}
	old := *row
	edit.apply(row)
	after, err := showDomain(tx, *row)
	if err != nil {
		return false, err
	}
	changes, err := differences(before, after)
	if err != nil || len(changes) == 0 {
		return false, err
	}
	if before.TimeZoneInForce != after.TimeZoneInForce {
		// The new zone takes effect when the running day ends, so that day must be known under the old one.
		if err := tx.FixRunningDay(old.Name); err != nil {
			return false, err
		}
	}
	if after.Limit > before.Limit {
		if err := tx.RaiseRunningDay(row.Name, after.Limit); err != nil {
			return false, err
		}
	}
	if err := tx.UpdateDomain(row); err != nil {
		return false, err
	}
	return true, a.noteDomain(ctx, tx, *row, before, reason)
}

// noteDomain audits and publishes a domain that was written. before is nil for a new one.
func (a *API) noteDomain(ctx context.Context, tx *store.Tx, row store.Domain, before any, reason string) error {
	after, err := showDomain(tx, row)
	if err != nil {
		return err
	}
	tx.Publish(store.DomainKey(row.Name))
	return a.audit(ctx, tx, change{
		object: "domain/" + row.Name, partner: row.Partner, reason: reason, before: before, after: after,
	})
}
