package httpapi

import (
	"context"
	"fmt"
	"time"

	openapi "github.com/oapi-codegen/runtime/types"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/quota"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// GetDomainQuota shows the quota of the running day.
func (a *API) GetDomainQuota(ctx context.Context, r rest.GetDomainQuotaRequestObject) (rest.GetDomainQuotaResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	var shown api.DomainQuota
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		figures, err := tx.DomainQuota(name)
		if err != nil {
			return notFound(err, "domain")
		}
		shown, err = quotaToAPI(figures, tx.Now)
		return err
	})
	if err != nil {
		return nil, err
	}
	// Why somebody else's limit was changed is between the operator and the partner.
	if PrincipalFrom(ctx).Role == api.RoleCustomer {
		shown.Override = nil
	}
	return rest.GetDomainQuota200JSONResponse(shown), nil
}

func quotaToAPI(figures store.DomainQuota, now time.Time) (api.DomainQuota, error) {
	day := figures.Day
	zone, err := time.LoadLocation(day.TimeZone)
	if err != nil {
		return api.DomainQuota{}, fmt.Errorf("zone of %s: %w", day.Domain, err)
	}
	date, err := localDate(day.Day)
	if err != nil {
		return api.DomainQuota{}, err
	}
	shown := api.DomainQuota{
		Domain: day.Domain, Unit: api.QuotaUnit(day.Unit), Limit: day.Limit, Used: day.Spent,
		Remaining: max(day.Limit-day.Spent, 0), Percent: int(quota.Percent(day.Limit, day.Spent)), TimeZone: day.TimeZone,
		Day: date, DayStart: day.DayStart.In(zone), ResetsAt: day.DayEnd.In(zone),
		Leases: convert(figures.Leases, leaseToAPI),
	}
	if override, inForce := overrideInForce(figures.Domain, now); inForce {
		shown.Override = &override
	}
	return shown, nil
}

func leaseToAPI(lease store.QuotaLease) api.EdgeLease {
	return api.EdgeLease{
		Edge: lease.Edge, Granted: lease.Granted, Spent: lease.Spent, Returned: lease.Returned,
		Held: max(lease.Counters().Held(), 0),
	}
}

// localDate reads a local date as it is kept, "2026-11-22".
func localDate(day string) (openapi.Date, error) {
	at, err := time.Parse(time.DateOnly, day)
	return openapi.Date{Time: at}, err
}

// overrideInForce returns the override of a domain that has not expired.
func overrideInForce(domain store.Domain, now time.Time) (api.QuotaOverride, bool) {
	if domain.OverrideLimit == nil || domain.OverrideExpiresAt == nil || !now.Before(*domain.OverrideExpiresAt) {
		return api.QuotaOverride{}, false
	}
	return api.QuotaOverride{
		Domain: domain.Name, Limit: *domain.OverrideLimit, ExpiresAt: *domain.OverrideExpiresAt, Reason: domain.OverrideReason,
	}, true
}

// GetQuotaOverride shows the override that is in force.
func (a *API) GetQuotaOverride(ctx context.Context, r rest.GetQuotaOverrideRequestObject) (rest.GetQuotaOverrideResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	var response rest.QuotaOverrideResponseJSONResponse
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		domain, err := tx.Domain(name)
		if err != nil {
			return notFound(err, "quota override")
		}
		override, inForce := overrideInForce(domain, tx.Now)
		if !inForce {
			return problem.NotFound("quota override")
		}
		response = overrideResponse(override, domain)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.GetQuotaOverride200JSONResponse{QuotaOverrideResponseJSONResponse: response}, nil
}

func overrideResponse(override api.QuotaOverride, domain store.Domain) rest.QuotaOverrideResponseJSONResponse {
	return rest.QuotaOverrideResponseJSONResponse{
		Body: override, Headers: rest.QuotaOverrideResponseResponseHeaders{ETag: etag(domain.OverrideVersion)},
	}
}

// SetQuotaOverride sets another daily limit until it expires. A rise counts at once, a fall from the next day.
func (a *API) SetQuotaOverride(ctx context.Context, r rest.SetQuotaOverrideRequestObject) (rest.SetQuotaOverrideResponseObject, error) {
	domain, err := a.changeOverride(ctx, r.Domain, r.Params.IfMatch, r.Body.Reason, func(row *store.Domain, now time.Time) error {
		expires := r.Body.ExpiresAt.UTC().Truncate(time.Microsecond)
		if !expires.After(now) {
			return invalid("/expires_at", "future", "must lie in the future")
		}
		row.OverrideLimit, row.OverrideExpiresAt, row.OverrideReason = &r.Body.Limit, &expires, r.Body.Reason
		return nil
	})
	if err != nil {
		return nil, err
	}
	response := overrideResponse(api.QuotaOverride{
		Domain: domain.Name, Limit: *domain.OverrideLimit, ExpiresAt: *domain.OverrideExpiresAt, Reason: domain.OverrideReason,
	}, domain)
	return rest.SetQuotaOverride200JSONResponse{QuotaOverrideResponseJSONResponse: response}, nil
}

// DeleteQuotaOverride lets the limit by licensed users apply again.
func (a *API) DeleteQuotaOverride(ctx context.Context, r rest.DeleteQuotaOverrideRequestObject) (rest.DeleteQuotaOverrideResponseObject, error) {
	_, err := a.changeOverride(ctx, r.Domain, r.Params.IfMatch, "", func(row *store.Domain, now time.Time) error {
		if _, inForce := overrideInForce(*row, now); !inForce {
			return problem.NotFound("quota override")
		}
		row.OverrideLimit, row.OverrideExpiresAt, row.OverrideReason = nil, nil, ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.DeleteQuotaOverride204Response{}, nil
}

// changeOverride applies an edit to the override of a domain, raises the running day where the limit is now higher,
// audits it and publishes the domain.
func (a *API) changeOverride(ctx context.Context, domain string, seen *string, reason string, edit func(*store.Domain, time.Time) error) (store.Domain, error) {
	name, err := domainName("path/domain", domain)
	if err != nil {
		return store.Domain{}, err
	}
	var row store.Domain
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.LockDomain(name); err != nil {
			return notFound(err, "domain")
		}
		before := auditedOverride(row, tx.Now)
		version := row.OverrideVersion
		if before == nil {
			version = 0
		}
		if err := ifMatch(seen, version); err != nil {
			return err
		}
		if err := edit(&row, tx.Now); err != nil {
			return err
		}
		row.OverrideVersion++
		if err := tx.UpdateDomain(&row); err != nil {
			return err
		}
		if err := raiseToday(tx, name); err != nil {
			return err
		}
		tx.Publish(store.DomainKey(name))
		return a.audit(ctx, tx, change{
			object: "quota-override/" + name, partner: row.Partner, reason: reason,
			before: before, after: auditedOverride(row, tx.Now),
		})
	})
	return row, err
}

// auditedOverride is the override in force as the audit shows it, nil where there is none.
func auditedOverride(row store.Domain, now time.Time) any {
	if override, inForce := overrideInForce(row, now); inForce {
		return override
	}
	return nil
}

// raiseToday lets a higher limit of a domain count on the running day.
func raiseToday(tx *store.Tx, domain string) error {
	figures, err := tx.DomainQuota(domain)
	if err != nil {
		return err
	}
	return tx.RaiseRunningDay(domain, figures.Day.Limit)
}
