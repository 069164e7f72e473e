package httpapi

import (
	"context"

	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// SuspendDomain suspends relaying for a domain.
func (a *API) SuspendDomain(ctx context.Context, r rest.SuspendDomainRequestObject) (rest.SuspendDomainResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.SuspendDomainResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.SuspendDomainResponseObject.VisitSuspendDomainResponse,
	}, func(tx *store.Tx) (rest.SuspendDomainResponseObject, error) {
		response, err := a.actOnDomain(ctx, tx, r.Domain, r.Body.Reason, func(row *store.Domain) bool {
			return row.Suspend(r.Body.Reason, tx.Now)
		})
		return rest.SuspendDomain200JSONResponse{DomainResponseJSONResponse: response}, err
	})
}

// ResumeDomain lifts a suspension.
func (a *API) ResumeDomain(ctx context.Context, r rest.ResumeDomainRequestObject) (rest.ResumeDomainResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.ResumeDomainResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.ResumeDomainResponseObject.VisitResumeDomainResponse,
	}, func(tx *store.Tx) (rest.ResumeDomainResponseObject, error) {
		response, err := a.actOnDomain(ctx, tx, r.Domain, "", func(row *store.Domain) bool { return row.Resume(tx.Now) })
		return rest.ResumeDomain200JSONResponse{DomainResponseJSONResponse: response}, err
	})
}

// DisableDomainRelaying disables relaying for a domain because of abuse.
func (a *API) DisableDomainRelaying(ctx context.Context, r rest.DisableDomainRelayingRequestObject) (rest.DisableDomainRelayingResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.DisableDomainRelayingResponseObject]{
		key: r.Params.IdempotencyKey, request: r,
		visit: rest.DisableDomainRelayingResponseObject.VisitDisableDomainRelayingResponse,
	}, func(tx *store.Tx) (rest.DisableDomainRelayingResponseObject, error) {
		response, err := a.actOnDomain(ctx, tx, r.Domain, r.Body.Reason, func(row *store.Domain) bool {
			return row.Relaying.Disable(store.CauseOperator, r.Body.Reason, tx.Now)
		})
		return rest.DisableDomainRelaying200JSONResponse{DomainResponseJSONResponse: response}, err
	})
}

// EnableDomainRelaying enables relaying again; complaints up to now no longer count.
func (a *API) EnableDomainRelaying(ctx context.Context, r rest.EnableDomainRelayingRequestObject) (rest.EnableDomainRelayingResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.EnableDomainRelayingResponseObject]{
		key: r.Params.IdempotencyKey, request: r,
		visit: rest.EnableDomainRelayingResponseObject.VisitEnableDomainRelayingResponse,
	}, func(tx *store.Tx) (rest.EnableDomainRelayingResponseObject, error) {
		response, err := a.actOnDomain(ctx, tx, r.Domain, r.Body.Reason, func(row *store.Domain) bool {
			return row.Relaying.Enable(tx.Now)
		})
		return rest.EnableDomainRelaying200JSONResponse{DomainResponseJSONResponse: response}, err
	})
}

// actOnDomain applies a verb to a domain. One that changes nothing is answered the same and not written.
func (a *API) actOnDomain(ctx context.Context, tx *store.Tx, name, reason string, act func(*store.Domain) bool) (rest.DomainResponseJSONResponse, error) {
	name, err := domainName("path/domain", name)
	if err != nil {
		return rest.DomainResponseJSONResponse{}, err
	}
	row, err := tx.LockDomain(name)
	if err != nil {
		return rest.DomainResponseJSONResponse{}, notFound(err, "domain")
	}
	before, err := showDomain(tx, row)
	if err != nil {
		return rest.DomainResponseJSONResponse{}, err
	}
	if act(&row) {
		if err := tx.UpdateDomain(&row); err != nil {
			return rest.DomainResponseJSONResponse{}, err
		}
		if err := a.noteDomain(ctx, tx, row, before, reason); err != nil {
			return rest.DomainResponseJSONResponse{}, err
		}
	}
	return domainResponse(tx, row)
}
