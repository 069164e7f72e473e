package httpapi

import (
	"context"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// GetBulkException shows what applies to bulk mail of a domain instead of the platform's rule.
func (a *API) GetBulkException(ctx context.Context, r rest.GetBulkExceptionRequestObject) (rest.GetBulkExceptionResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	var row store.Domain
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.Domain(name); err != nil {
			return notFound(err, "domain")
		}
		if !bulkInForce(row, tx.Now) {
			return problem.NotFound("bulk exception")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.GetBulkException200JSONResponse{BulkExceptionResponseJSONResponse: bulkResponse(row)}, nil
}

// SetBulkException sets what applies until it expires.
func (a *API) SetBulkException(ctx context.Context, r rest.SetBulkExceptionRequestObject) (rest.SetBulkExceptionResponseObject, error) {
	row, err := a.changeBulk(ctx, r.Domain, r.Params.IfMatch, func(row *store.Domain, now time.Time) (string, error) {
		if r.Body.ExpiresAt != nil && !r.Body.ExpiresAt.After(now) {
			return "", invalid("/expires_at", "future", "must lie in the future")
		}
		row.BulkMode, row.BulkReason, row.BulkExpiresAt = string(r.Body.Mode), r.Body.Reason, storedTime(r.Body.ExpiresAt)
		return r.Body.Reason, nil
	})
	if err != nil {
		return nil, err
	}
	return rest.SetBulkException200JSONResponse{BulkExceptionResponseJSONResponse: bulkResponse(row)}, nil
}

// DeleteBulkException lets the platform's rule apply again.
func (a *API) DeleteBulkException(ctx context.Context, r rest.DeleteBulkExceptionRequestObject) (rest.DeleteBulkExceptionResponseObject, error) {
	_, err := a.changeBulk(ctx, r.Domain, r.Params.IfMatch, func(row *store.Domain, now time.Time) (string, error) {
		if !bulkInForce(*row, now) {
			return "", problem.NotFound("bulk exception")
		}
		row.BulkMode, row.BulkReason, row.BulkExpiresAt = "", "", nil
		return "", nil
	})
	if err != nil {
		return nil, err
	}
	return rest.DeleteBulkException204Response{}, nil
}

// changeBulk applies an edit to the exception of a domain; the edit returns the reason that is audited.
func (a *API) changeBulk(ctx context.Context, domain string, seen *string, edit func(*store.Domain, time.Time) (string, error)) (store.Domain, error) {
	name, err := domainName("path/domain", domain)
	if err != nil {
		return store.Domain{}, err
	}
	var row store.Domain
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.LockDomain(name); err != nil {
			return notFound(err, "domain")
		}
		before, version := bulkShown(row, tx.Now)
		if err := ifMatch(seen, version); err != nil {
			return err
		}
		reason, err := edit(&row, tx.Now)
		if err != nil {
			return err
		}
		row.BulkVersion++
		if err := tx.UpdateDomain(&row); err != nil {
			return err
		}
		tx.Publish(store.DomainKey(name))
		after, _ := bulkShown(row, tx.Now)
		return a.audit(ctx, tx, change{
			object: "domain/" + name, partner: row.Partner, reason: reason, before: before, after: after,
		})
	})
	return row, err
}

// bulkShown is the exception in force with its version; nil and 0 where there is none.
func bulkShown(row store.Domain, now time.Time) (any, int64) {
	if !bulkInForce(row, now) {
		return nil, 0
	}
	return map[string]any{"bulk_exception": bulkToAPI(row)}, row.BulkVersion
}

func bulkInForce(row store.Domain, now time.Time) bool {
	return row.BulkMode != "" && (row.BulkExpiresAt == nil || now.Before(*row.BulkExpiresAt))
}

func bulkResponse(row store.Domain) rest.BulkExceptionResponseJSONResponse {
	return rest.BulkExceptionResponseJSONResponse{
		Body: bulkToAPI(row), Headers: rest.BulkExceptionResponseResponseHeaders{ETag: etag(row.BulkVersion)},
	}
}

func bulkToAPI(row store.Domain) api.BulkException {
	return api.BulkException{
		Domain: row.Name, Mode: api.BulkMode(row.BulkMode), Reason: row.BulkReason, ExpiresAt: row.BulkExpiresAt,
	}
}
