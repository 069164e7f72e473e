package httpapi

import (
	"context"
	"strings"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// ListDomains lists the domains that the token may see, by name.
func (a *API) ListDomains(ctx context.Context, r rest.ListDomainsRequestObject) (rest.ListDomainsResponseObject, error) {
	filter := store.DomainFilter{
		Partner: text(r.Params.Partner), Status: text(r.Params.Status), Prefix: strings.ToLower(text(r.Params.Prefix)),
	}
	cursor, err := a.page(ctx, r.Params.PageSize, r.Params.PageToken, filter)
	if err != nil {
		return nil, err
	}
	var rows []store.Domain
	var facts map[string]store.InForce
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if rows, err = tx.Domains(filter, cursor.after, cursor.limit()); err != nil {
			return err
		}
		facts, err = tx.InForce(rows...)
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.Domain) string { return row.Name })
	items := convert(rows, func(row store.Domain) api.Domain { return domainToAPI(row, facts[row.Name]) })
	return rest.ListDomains200JSONResponse{Items: items, NextPageToken: next}, nil
}

// GetDomain shows one domain.
func (a *API) GetDomain(ctx context.Context, r rest.GetDomainRequestObject) (rest.GetDomainResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	var response rest.DomainResponseJSONResponse
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.Domain(name)
		if err != nil {
			return notFound(err, "domain")
		}
		response, err = domainResponse(tx, row)
		return err
	})
	return rest.GetDomain200JSONResponse{DomainResponseJSONResponse: response}, err
}

// PutDomain creates a domain or replaces what can be written of it.
func (a *API) PutDomain(ctx context.Context, r rest.PutDomainRequestObject) (rest.PutDomainResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	edit, err := replacementOf(*r.Body)
	if err != nil {
		return nil, err
	}
	var result domainOutcome
	var response rest.DomainResponseJSONResponse
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		if result, err = a.putDomain(ctx, tx, name, edit, r.Params.IfMatch); err != nil {
			return err
		}
		response, err = domainResponse(tx, result.row)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case result.created:
		headers := rest.PutDomain201ResponseHeaders(response.Headers)
		return rest.PutDomain201JSONResponse{Body: response.Body, Headers: headers}, nil
	default:
		return rest.PutDomain200JSONResponse{DomainResponseJSONResponse: response}, nil
	}
}

// UpdateDomain changes the properties that the merge patch names.
func (a *API) UpdateDomain(ctx context.Context, r rest.UpdateDomainRequestObject) (rest.UpdateDomainResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	edit, err := patchOf(*r.Body)
	if err != nil {
		return nil, err
	}
	var response rest.DomainResponseJSONResponse
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockDomain(name)
		if err != nil {
			return notFound(err, "domain")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if _, err := a.editDomain(ctx, tx, &row, edit, ""); err != nil {
			return err
		}
		response, err = domainResponse(tx, row)
		return err
	})
	return rest.UpdateDomain200JSONResponse{DomainResponseJSONResponse: response}, err
}

// DeleteDomain deletes a domain with its relay IPs, users and routes. What is disabled for abuse stays until the operator
// deletes it, since making it anew would be a way around that.
func (a *API) DeleteDomain(ctx context.Context, r rest.DeleteDomainRequestObject) (rest.DeleteDomainResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockDomain(name)
		if err != nil {
			return notFound(err, "domain")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if err := mayDelete(ctx, tx, name); err != nil {
			return err
		}
		before, err := showDomain(tx, row)
		if err != nil {
			return err
		}
		if err := tx.As(store.System()).RevokeTokens(row.Partner, name); err != nil {
			return err
		}
		if err := tx.DeleteDomain(name); err != nil {
			return err
		}
		tx.Publish(store.DomainKey(name))
		if err := tx.PublishDomainsAbove(name); err != nil {
			return err
		}
		return a.audit(ctx, tx, change{object: "domain/" + name, partner: row.Partner, before: before})
	})
	if err != nil {
		return nil, err
	}
	return rest.DeleteDomain204Response{}, nil
}

func mayDelete(ctx context.Context, tx *store.Tx, name string) error {
	if PrincipalFrom(ctx).Role == api.RoleOperator {
		return nil
	}
	disabled, err := tx.DisabledForAbuse(name)
	if err == nil && disabled {
		return problem.Forbidden("Relaying is disabled for abuse here, so only the operator can delete the domain")
	}
	return err
}

// domainResponse is a domain as its row stands in this transaction.
func domainResponse(tx *store.Tx, row store.Domain) (rest.DomainResponseJSONResponse, error) {
	shown, err := showDomain(tx, row)
	return rest.DomainResponseJSONResponse{
		Body: shown, Headers: rest.DomainResponseResponseHeaders{ETag: etag(row.Version)},
	}, err
}

func showDomain(tx *store.Tx, row store.Domain) (api.Domain, error) {
	facts, err := tx.InForce(row)
	return domainToAPI(row, facts[row.Name]), err
}

func domainToAPI(row store.Domain, facts store.InForce) api.Domain {
	shown := api.Domain{
		Name: row.Name, Partner: row.Partner, Status: api.AdministrativeStatus(row.Status),
		StatusReason: optional(row.StatusReason), Relaying: relayingToAPI(row.Relaying),
		LicensedUsers: int(row.LicensedUsers), Limit: facts.Limit, TimeZone: row.TimeZone, TimeZoneInForce: facts.TimeZone,
		IncludeSubdomains: row.IncludeSubdomains, UsersMaySendAs: api.DomainUsersMaySendAs(row.UsersMaySendAs),
		Contacts: row.Contacts, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
	if shown.Contacts == nil {
		shown.Contacts = []string{}
	}
	return shown
}
