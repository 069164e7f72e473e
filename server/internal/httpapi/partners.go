package httpapi

import (
	"context"
	"errors"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// ListPartners lists the partners that the token may see, by slug.
func (a *API) ListPartners(ctx context.Context, r rest.ListPartnersRequestObject) (rest.ListPartnersResponseObject, error) {
	cursor, err := a.page(ctx, r.Params.PageSize, r.Params.PageToken, r.Params.Status)
	if err != nil {
		return nil, err
	}
	var rows []store.Partner
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.Partners(text(r.Params.Status), cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.Partner) string { return row.Slug })
	return rest.ListPartners200JSONResponse{Items: convert(rows, partnerToAPI), NextPageToken: next}, nil
}

// GetPartner shows one partner.
func (a *API) GetPartner(ctx context.Context, r rest.GetPartnerRequestObject) (rest.GetPartnerResponseObject, error) {
	var row store.Partner
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.Partner(r.Partner)
		return err
	})
	if err != nil {
		return nil, notFound(err, "partner")
	}
	return rest.GetPartner200JSONResponse{PartnerResponseJSONResponse: partnerResponse(row)}, nil
}

// PutPartner creates a partner or replaces what can be written of it.
func (a *API) PutPartner(ctx context.Context, r rest.PutPartnerRequestObject) (rest.PutPartnerResponseObject, error) {
	zone, err := timeZone("/time_zone", text(r.Body.TimeZone))
	if err != nil {
		return nil, err
	}
	var row store.Partner
	var created bool
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		var before any
		row, err = tx.LockPartner(r.Partner)
		created = errors.Is(err, store.ErrNotFound)
		switch {
		case created:
			row = store.Partner{Slug: r.Partner, Administrative: store.Active(tx.Now), Relaying: store.Enabled()}
		case err != nil:
			return err
		default:
			before = partnerToAPI(row)
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		row.Name, row.SupportContact, row.TimeZone = r.Body.Name, text(r.Body.SupportContact), zone
		if same, err := unchanged(before, partnerToAPI(row)); same || err != nil {
			return err
		}
		return a.savePartner(ctx, tx, &row, before, "")
	})
	if err != nil {
		return nil, err
	}
	if created {
		response := partnerResponse(row)
		return rest.PutPartner201JSONResponse{
			Body: response.Body, Headers: rest.PutPartner201ResponseHeaders(response.Headers),
		}, nil
	}
	return rest.PutPartner200JSONResponse{PartnerResponseJSONResponse: partnerResponse(row)}, nil
}

// savePartner inserts or updates a partner, audits it and publishes it. before is nil for a new one.
func (a *API) savePartner(ctx context.Context, tx *store.Tx, row *store.Partner, before any, reason string) error {
	save := tx.UpdatePartner
	if before == nil {
		save = tx.InsertPartner
	}
	if err := save(row); err != nil {
		return err
	}
	tx.Publish(store.PartnerKey(row.Slug))
	if old, replaced := before.(api.Partner); replaced && text(old.TimeZone) != row.TimeZone {
		if err := tx.PublishDomains(row.Slug, true); err != nil { // their documents hold the zone in force
			return err
		}
	}
	return a.audit(ctx, tx, change{
		object: "partner/" + row.Slug, partner: row.Slug, reason: reason, before: before, after: partnerToAPI(*row),
	})
}

// UpdatePartner changes the properties that the merge patch names.
func (a *API) UpdatePartner(ctx context.Context, r rest.UpdatePartnerRequestObject) (rest.UpdatePartnerResponseObject, error) {
	if zone, named := nullableText(r.Body.TimeZone); named {
		if _, err := timeZone("/time_zone", zone); err != nil {
			return nil, err
		}
	}
	row, err := a.changePartner(ctx, r.Partner, r.Params.IfMatch, func(row *store.Partner) {
		if r.Body.Name != nil {
			row.Name = *r.Body.Name
		}
		if contact, named := nullableText(r.Body.SupportContact); named {
			row.SupportContact = contact
		}
		if zone, named := nullableText(r.Body.TimeZone); named {
			row.TimeZone = zone
		}
	})
	if err != nil {
		return nil, err
	}
	return rest.UpdatePartner200JSONResponse{PartnerResponseJSONResponse: partnerResponse(row)}, nil
}

// changePartner applies an edit to a partner that still is what the caller saw.
func (a *API) changePartner(ctx context.Context, slug string, seen *string, edit func(*store.Partner)) (store.Partner, error) {
	var row store.Partner
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.LockPartner(slug); err != nil {
			return notFound(err, "partner")
		}
		if err := ifMatch(seen, row.Version); err != nil {
			return err
		}
		before := partnerToAPI(row)
		edit(&row)
		if same, err := unchanged(before, partnerToAPI(row)); same || err != nil {
			return err
		}
		return a.savePartner(ctx, tx, &row, before, "")
	})
	return row, err
}

// DeletePartner deletes a partner that has no domains any more, and revokes its tokens.
func (a *API) DeletePartner(ctx context.Context, r rest.DeletePartnerRequestObject) (rest.DeletePartnerResponseObject, error) {
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockPartner(r.Partner)
		if err != nil {
			return notFound(err, "partner")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if err := tx.RevokeTokens(row.Slug, ""); err != nil {
			return err
		}
		if err := tx.DeletePartner(row.Slug); err != nil {
			return stillHasDomains(err)
		}
		tx.Publish(store.PartnerKey(row.Slug))
		return a.audit(ctx, tx, change{object: "partner/" + row.Slug, partner: row.Slug, before: partnerToAPI(row)})
	})
	if err != nil {
		return nil, err
	}
	return rest.DeletePartner204Response{}, nil
}

func stillHasDomains(err error) error {
	var conflict *store.ErrConflict
	if errors.As(err, &conflict) && conflict.ForeignKey() {
		return problem.Conflict("The partner still has domains; delete them first")
	}
	return err
}

// SuspendPartner suspends relaying for all domains of a partner.
func (a *API) SuspendPartner(ctx context.Context, r rest.SuspendPartnerRequestObject) (rest.SuspendPartnerResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.SuspendPartnerResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.SuspendPartnerResponseObject.VisitSuspendPartnerResponse,
	}, func(tx *store.Tx) (rest.SuspendPartnerResponseObject, error) {
		response, err := a.actOnPartner(ctx, tx, r.Partner, r.Body.Reason, func(row *store.Partner) bool {
			return row.Suspend(r.Body.Reason, tx.Now)
		})
		return rest.SuspendPartner200JSONResponse{PartnerResponseJSONResponse: response}, err
	})
}

// ResumePartner lifts a suspension.
func (a *API) ResumePartner(ctx context.Context, r rest.ResumePartnerRequestObject) (rest.ResumePartnerResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.ResumePartnerResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.ResumePartnerResponseObject.VisitResumePartnerResponse,
	}, func(tx *store.Tx) (rest.ResumePartnerResponseObject, error) {
		response, err := a.actOnPartner(ctx, tx, r.Partner, "", func(row *store.Partner) bool { return row.Resume(tx.Now) })
		return rest.ResumePartner200JSONResponse{PartnerResponseJSONResponse: response}, err
	})
}

// DisablePartnerRelaying disables relaying for all domains of a partner because of abuse.
func (a *API) DisablePartnerRelaying(ctx context.Context, r rest.DisablePartnerRelayingRequestObject) (rest.DisablePartnerRelayingResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.DisablePartnerRelayingResponseObject]{
		key: r.Params.IdempotencyKey, request: r,
		visit: rest.DisablePartnerRelayingResponseObject.VisitDisablePartnerRelayingResponse,
	}, func(tx *store.Tx) (rest.DisablePartnerRelayingResponseObject, error) {
		response, err := a.actOnPartner(ctx, tx, r.Partner, r.Body.Reason, func(row *store.Partner) bool {
			return row.Relaying.Disable(store.CauseOperator, r.Body.Reason, tx.Now)
		})
		return rest.DisablePartnerRelaying200JSONResponse{PartnerResponseJSONResponse: response}, err
	})
}

// EnablePartnerRelaying enables relaying again; complaints up to now no longer count.
func (a *API) EnablePartnerRelaying(ctx context.Context, r rest.EnablePartnerRelayingRequestObject) (rest.EnablePartnerRelayingResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.EnablePartnerRelayingResponseObject]{
		key: r.Params.IdempotencyKey, request: r,
		visit: rest.EnablePartnerRelayingResponseObject.VisitEnablePartnerRelayingResponse,
	}, func(tx *store.Tx) (rest.EnablePartnerRelayingResponseObject, error) {
		response, err := a.actOnPartner(ctx, tx, r.Partner, r.Body.Reason, func(row *store.Partner) bool {
			return row.Relaying.Enable(tx.Now)
		})
		return rest.EnablePartnerRelaying200JSONResponse{PartnerResponseJSONResponse: response}, err
	})
}

// actOnPartner applies a verb to a partner. One that changes nothing is answered the same and not written.
func (a *API) actOnPartner(ctx context.Context, tx *store.Tx, slug, reason string, act func(*store.Partner) bool) (rest.PartnerResponseJSONResponse, error) {
	row, err := tx.LockPartner(slug)
	if err != nil {
		return rest.PartnerResponseJSONResponse{}, notFound(err, "partner")
	}
	before := partnerToAPI(row)
	if act(&row) {
		if err := a.savePartner(ctx, tx, &row, before, reason); err != nil {
			return rest.PartnerResponseJSONResponse{}, err
		}
	}
	return partnerResponse(row), nil
}

func partnerResponse(row store.Partner) rest.PartnerResponseJSONResponse {
	return rest.PartnerResponseJSONResponse{
		Body: partnerToAPI(row), Headers: rest.PartnerResponseResponseHeaders{ETag: etag(row.Version)},
	}
}

func partnerToAPI(row store.Partner) api.Partner {
	return api.Partner{
		Slug: row.Slug, Name: row.Name, Status: api.AdministrativeStatus(row.Status),
		StatusReason: optional(row.StatusReason), Relaying: relayingToAPI(row.Relaying),
		SupportContact: optional(row.SupportContact), TimeZone: optional(row.TimeZone),
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
}
