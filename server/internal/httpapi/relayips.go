package httpapi

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/relayip"
	"activerelay/server/internal/store"
)

// ListRelayIPs lists the relay IPs that the token may see, oldest first.
func (a *API) ListRelayIPs(ctx context.Context, r rest.ListRelayIPsRequestObject) (rest.ListRelayIPsResponseObject, error) {
	p := r.Params
	cursor, err := a.page(ctx, p.PageSize, p.PageToken, p.Partner, p.Domain, p.State, p.Address)
	if err != nil {
		return nil, err
	}
	filter := store.RelayIPFilter{Partner: text(p.Partner), State: text(p.State)}
	if filter.Domain, err = domainFilter(p.Domain); err != nil {
		return nil, err
	}
	if p.Address != nil {
		prefix, err := clientPrefix("query/address", *p.Address)
		if err != nil {
			return nil, err
		}
		if strings.Contains(*p.Address, "/") {
			filter.Prefix = prefix
		} else {
			filter.Covering = prefix.Addr()
		}
	}
	var rows []store.RelayIP
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.RelayIPs(filter, cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.RelayIP) string { return row.ID })
	return rest.ListRelayIPs200JSONResponse{Items: convert(rows, relayIPToAPI), NextPageToken: next}, nil
}

// domainFilter returns the canonical form of a domain that a list is narrowed to, empty for none.
func domainFilter(name *api.DomainName) (string, error) {
	if name == nil {
		return "", nil
	}
	return domainName("query/domain", *name)
}

func clientPrefix(pointer, address string) (netip.Prefix, error) {
	prefix, err := relayip.Parse(address)
	var refusal *relayip.Refusal
	if errors.As(err, &refusal) {
		return netip.Prefix{}, invalid(pointer, refusal.Rule, refusal.Message)
	}
	return prefix, err
}

// GetRelayIP shows one relay IP.
func (a *API) GetRelayIP(ctx context.Context, r rest.GetRelayIPRequestObject) (rest.GetRelayIPResponseObject, error) {
	var row store.RelayIP
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.RelayIP(r.RelayIPID)
		return err
	})
	if err != nil {
		return nil, notFound(err, "relay IP")
	}
	return rest.GetRelayIP200JSONResponse{RelayIPResponseJSONResponse: relayIPResponse(row)}, nil
}

// RequestRelayIP asks that a client address may relay for a domain. The same request again answers what exists.
func (a *API) RequestRelayIP(ctx context.Context, r rest.RequestRelayIPRequestObject) (rest.RequestRelayIPResponseObject, error) {
	name, err := domainName("/domain", r.Body.Domain)
	if err != nil {
		return nil, err
	}
	prefix, err := clientPrefix("/address", r.Body.Address)
	if err != nil {
		return nil, err
	}
	return idempotent(ctx, a, attempt[rest.RequestRelayIPResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.RequestRelayIPResponseObject.VisitRequestRelayIPResponse,
	}, func(tx *store.Tx) (rest.RequestRelayIPResponseObject, error) {
		// Locked, so that the same request at the same time finds what this one makes.
		domain, err := tx.LockDomain(name)
		if err != nil {
			return nil, notFound(err, "domain")
		}
		have, err := tx.RelayIPOf(name, prefix)
		if err == nil {
			return rest.RequestRelayIP200JSONResponse{RelayIPResponseJSONResponse: relayIPResponse(have)}, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		row, err := a.newRelayIP(ctx, tx, domain, prefix, text(r.Body.Comment))
		if err != nil {
			return nil, err
		}
		response := relayIPResponse(row)
		return rest.RequestRelayIP201JSONResponse{
			Body: response.Body, Headers: rest.RequestRelayIP201ResponseHeaders(response.Headers),
		}, nil
	})
}

func (a *API) newRelayIP(ctx context.Context, tx *store.Tx, domain store.Domain, prefix netip.Prefix, comment string) (store.RelayIP, error) {
	row := store.RelayIP{
		ID: newID("rip_", tx.Now), Domain: domain.Name, Partner: domain.Partner, Address: prefix.String(),
		State: store.RelayIPRequested, Comment: comment,
	}
	atOnce, err := activeAtOnce(ctx, tx, domain.Partner, prefix)
	if err != nil {
		return row, err
	}
	if atOnce {
		row.State, row.ActivatedAt = store.RelayIPActive, &tx.Now
	}
	return row, a.saveRelayIP(ctx, tx, &row, nil, "")
}

// activeAtOnce reports whether a relay IP needs nobody's look: the platform says so, nobody else has the address, and
// it is one that says whose host it is. For an operator the platform's word is enough, since that is who would look.
func activeAtOnce(ctx context.Context, tx *store.Tx, partner string, prefix netip.Prefix) (bool, error) {
	system := tx.As(store.System())
	settings, err := system.Settings()
	if err != nil || settings.RelayIPActivation != string(api.SettingsRelayIPActivationAutomatic) {
		return false, err
	}
	if PrincipalFrom(ctx).Role == api.RoleOperator {
		return true, nil
	}
	if relayip.NeedsOperator(prefix) {
		return false, nil
	}
	// Two partners who ask for one address at once come one after the other.
	if _, err := system.LockSettings(); err != nil {
		return false, err
	}
	taken, err := system.AddressTakenByOther(partner, prefix)
	return !taken, err
}

// saveRelayIP inserts or updates a relay IP, audits it and publishes its domain. before is nil for a new one.
func (a *API) saveRelayIP(ctx context.Context, tx *store.Tx, row *store.RelayIP, before any, reason string) error {
	save := tx.UpdateRelayIP
	if before == nil {
		save = tx.InsertRelayIP
	}
	if err := save(row); err != nil {
		return err
	}
	tx.Publish(store.DomainKey(row.Domain))
	return a.audit(ctx, tx, change{
		object: "relay-ip/" + row.ID, partner: row.Partner, reason: reason, before: before, after: relayIPToAPI(*row),
	})
}

// ActivateRelayIP activates a requested or rejected relay IP.
func (a *API) ActivateRelayIP(ctx context.Context, r rest.ActivateRelayIPRequestObject) (rest.ActivateRelayIPResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.ActivateRelayIPResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.ActivateRelayIPResponseObject.VisitActivateRelayIPResponse,
	}, func(tx *store.Tx) (rest.ActivateRelayIPResponseObject, error) {
		response, err := a.actOnRelayIP(ctx, tx, r.RelayIPID, "", func(row *store.RelayIP) (bool, error) {
			return activate(row, tx)
		})
		return rest.ActivateRelayIP200JSONResponse{RelayIPResponseJSONResponse: response}, err
	})
}

func activate(row *store.RelayIP, tx *store.Tx) (bool, error) {
	switch row.State {
	case store.RelayIPActive:
		return false, nil
	case store.RelayIPDisabled:
		return false, problem.Conflict("The relay IP is disabled; enable it, and say why that is safe")
	}
	row.State, row.Reason, row.ActivatedAt = store.RelayIPActive, "", &tx.Now
	return true, nil
}

// RejectRelayIP rejects a requested relay IP, with the reason that the partner is shown.
func (a *API) RejectRelayIP(ctx context.Context, r rest.RejectRelayIPRequestObject) (rest.RejectRelayIPResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.RejectRelayIPResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.RejectRelayIPResponseObject.VisitRejectRelayIPResponse,
	}, func(tx *store.Tx) (rest.RejectRelayIPResponseObject, error) {
		response, err := a.actOnRelayIP(ctx, tx, r.RelayIPID, r.Body.Reason, func(row *store.RelayIP) (bool, error) {
			if row.State != store.RelayIPRequested && row.State != store.RelayIPRejected {
				return false, problem.Conflict("The relay IP is " + row.State + "; only a requested one can be rejected")
			}
			changed := row.State != store.RelayIPRejected || row.Reason != r.Body.Reason
			row.State, row.Reason = store.RelayIPRejected, r.Body.Reason
			return changed, nil
		})
		return rest.RejectRelayIP200JSONResponse{RelayIPResponseJSONResponse: response}, err
	})
}

// DisableRelayIP disables an active relay IP. What a partner disabled the operator may disable over it.
func (a *API) DisableRelayIP(ctx context.Context, r rest.DisableRelayIPRequestObject) (rest.DisableRelayIPResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.DisableRelayIPResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.DisableRelayIPResponseObject.VisitDisableRelayIPResponse,
	}, func(tx *store.Tx) (rest.DisableRelayIPResponseObject, error) {
		response, err := a.actOnRelayIP(ctx, tx, r.RelayIPID, r.Body.Reason, func(row *store.RelayIP) (bool, error) {
			return disable(row, causeOf(ctx), r.Body.Reason)
		})
		return rest.DisableRelayIP200JSONResponse{RelayIPResponseJSONResponse: response}, err
	})
}

// causeOf is what disables when the caller does.
func causeOf(ctx context.Context) string {
	if PrincipalFrom(ctx).Role == api.RoleOperator {
		return store.CauseOperator
	}
	return store.CausePartner
}

func disable(row *store.RelayIP, cause, reason string) (bool, error) {
	switch {
	case row.State == store.RelayIPDisabled && cause == store.CausePartner && row.Cause != store.CausePartner:
		return false, problem.Conflict("The relay IP is already disabled, and not by you")
	case row.State != store.RelayIPActive && row.State != store.RelayIPDisabled:
		return false, problem.Conflict("The relay IP is " + row.State + "; only an active one can be disabled")
	}
	changed := row.State != store.RelayIPDisabled || row.Cause != cause || row.Reason != reason
	row.State, row.Cause, row.Reason = store.RelayIPDisabled, cause, reason
	return changed, nil
}

// EnableRelayIP enables a disabled relay IP again; complaints up to now no longer count.
func (a *API) EnableRelayIP(ctx context.Context, r rest.EnableRelayIPRequestObject) (rest.EnableRelayIPResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.EnableRelayIPResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.EnableRelayIPResponseObject.VisitEnableRelayIPResponse,
	}, func(tx *store.Tx) (rest.EnableRelayIPResponseObject, error) {
		response, err := a.actOnRelayIP(ctx, tx, r.RelayIPID, r.Body.Reason, func(row *store.RelayIP) (bool, error) {
			return enable(row, tx, causeOf(ctx))
		})
		return rest.EnableRelayIP200JSONResponse{RelayIPResponseJSONResponse: response}, err
	})
}

func enable(row *store.RelayIP, tx *store.Tx, by string) (bool, error) {
	switch {
	case row.State == store.RelayIPActive:
		return false, nil
	case row.State != store.RelayIPDisabled:
		return false, problem.Conflict("The relay IP is " + row.State + ", not disabled")
	case by == store.CausePartner && row.Cause != store.CausePartner:
		return false, problem.Forbidden("Only the operator may enable what was disabled by the operator or for complaints")
	}
	row.State, row.Cause, row.Reason, row.RelayingClearedAt = store.RelayIPActive, "", "", &tx.Now
	return true, nil
}

// actOnRelayIP applies a verb to a relay IP. One that changes nothing is answered the same and not written.
func (a *API) actOnRelayIP(ctx context.Context, tx *store.Tx, id, reason string, act func(*store.RelayIP) (bool, error)) (rest.RelayIPResponseJSONResponse, error) {
	row, err := tx.LockRelayIP(id)
	if err != nil {
		return rest.RelayIPResponseJSONResponse{}, notFound(err, "relay IP")
	}
	before := relayIPToAPI(row)
	changed, err := act(&row)
	if err != nil {
		return rest.RelayIPResponseJSONResponse{}, err
	}
	if changed {
		if err := a.saveRelayIP(ctx, tx, &row, before, reason); err != nil {
			return rest.RelayIPResponseJSONResponse{}, err
		}
	}
	return relayIPResponse(row), nil
}

// DeleteRelayIP deletes a relay IP. One that was disabled for abuse stays until the operator deletes it: else it would
// be asked for anew as if nothing had happened.
func (a *API) DeleteRelayIP(ctx context.Context, r rest.DeleteRelayIPRequestObject) (rest.DeleteRelayIPResponseObject, error) {
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockRelayIP(r.RelayIPID)
		if err != nil {
			return notFound(err, "relay IP")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if row.State == store.RelayIPDisabled && row.Cause != store.CausePartner && causeOf(ctx) == store.CausePartner {
			return problem.Conflict("The relay IP was disabled by the operator or for complaints, so only the operator may delete it")
		}
		if err := tx.DeleteRelayIP(row.ID); err != nil {
			return err
		}
		tx.Publish(store.DomainKey(row.Domain))
		return a.audit(ctx, tx, change{object: "relay-ip/" + row.ID, partner: row.Partner, before: relayIPToAPI(row)})
	})
	if err != nil {
		return nil, err
	}
	return rest.DeleteRelayIP204Response{}, nil
}

func relayIPResponse(row store.RelayIP) rest.RelayIPResponseJSONResponse {
	return rest.RelayIPResponseJSONResponse{
		Body: relayIPToAPI(row), Headers: rest.RelayIPResponseResponseHeaders{ETag: etag(row.Version)},
	}
}

func relayIPToAPI(row store.RelayIP) api.RelayIP {
	shown := api.RelayIP{
		ID: row.ID, Domain: row.Domain, Partner: row.Partner, Address: showPrefix(row.Address),
		State: api.RelayIPState(row.State), Reason: optional(row.Reason), Comment: optional(row.Comment),
		ActivatedAt: row.ActivatedAt, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
	if row.Cause != "" {
		cause := api.RelayIPCause(row.Cause)
		shown.Cause = &cause
	}
	return shown
}

// showPrefix is the form of a kept prefix that people are shown.
func showPrefix(address string) string {
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return address
	}
	return relayip.Show(prefix)
}
