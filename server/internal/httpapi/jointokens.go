package httpapi

import (
	"context"
	"errors"
	"slices"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/credential"
	"activerelay/server/internal/store"
)

// joinTokenValid is how long a join token can be used where that is not said.
const joinTokenValid = 24 * time.Hour

func joinTokenID(c credential.Credential) string { return "jtk_" + c.ID.String() }

// ListJoinTokens lists the join tokens, oldest first.
func (a *API) ListJoinTokens(ctx context.Context, r rest.ListJoinTokensRequestObject) (rest.ListJoinTokensResponseObject, error) {
	cursor, err := a.page(ctx, r.Params.PageSize, r.Params.PageToken)
	if err != nil {
		return nil, err
	}
	var rows []store.JoinToken
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.JoinTokens(cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.JoinToken) string { return row.ID })
	return rest.ListJoinTokens200JSONResponse{Items: convert(rows, joinTokenToAPI), NextPageToken: next}, nil
}

// GetJoinToken shows one join token without its secret.
func (a *API) GetJoinToken(ctx context.Context, r rest.GetJoinTokenRequestObject) (rest.GetJoinTokenResponseObject, error) {
	var row store.JoinToken
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.JoinToken(r.JoinTokenID)
		return err
	})
	if err != nil {
		return nil, notFound(err, "join token")
	}
	return rest.GetJoinToken200JSONResponse(joinTokenToAPI(row)), nil
}

// CreateJoinToken creates a token by which one edge joins once.
func (a *API) CreateJoinToken(ctx context.Context, r rest.CreateJoinTokenRequestObject) (rest.CreateJoinTokenResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.CreateJoinTokenResponseObject]{
		key: r.Params.IdempotencyKey, request: r, secret: true,
		visit: rest.CreateJoinTokenResponseObject.VisitCreateJoinTokenResponse,
	}, func(tx *store.Tx) (rest.CreateJoinTokenResponseObject, error) {
		partners, err := edgeScope(tx, r.Body.Partners)
		if err != nil {
			return nil, err
		}
		valid := joinTokenValid
		if r.Body.ValidSeconds != nil {
			valid = time.Duration(*r.Body.ValidSeconds) * time.Second
		}
		made := credential.New(credential.Join, newULID(tx.Now))
		row := store.JoinToken{
			ID: joinTokenID(made), SecretHash: made.Secret.Hash(), Partners: partners, ExpiresAt: tx.Now.Add(valid),
		}
		if err := tx.InsertJoinToken(&row); err != nil {
			return nil, err
		}
		err = a.audit(ctx, tx, change{object: "join-token/" + row.ID, after: joinTokenToAPI(row)})
		return rest.CreateJoinToken201JSONResponse{
			ID: row.ID, Partners: convert(row.Partners, same[string]), CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt, Token: made.Token(),
		}, err
	})
}

// edgeScope checks the partners that an edge is to serve. The result is sorted; empty means all.
func edgeScope(tx *store.Tx, partners []api.Slug) (store.Strings, error) {
	for i, slug := range partners {
		_, err := tx.Partner(slug)
		if errors.Is(err, store.ErrNotFound) {
			return nil, invalid(indexed("/partners", i), "partner", "is not a known partner")
		}
		if err != nil {
			return nil, err
		}
	}
	scope := slices.Clone(partners)
	slices.Sort(scope)
	return slices.Compact(scope), nil
}

// RevokeJoinToken revokes a join token that is not used yet.
func (a *API) RevokeJoinToken(ctx context.Context, r rest.RevokeJoinTokenRequestObject) (rest.RevokeJoinTokenResponseObject, error) {
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockJoinToken(r.JoinTokenID)
		if err != nil {
			return notFound(err, "join token")
		}
		if row.UsedAt != nil {
			return problem.Conflict("An edge has joined with the token already; retire the edge")
		}
		if err := tx.DeleteJoinToken(row.ID); err != nil {
			return err
		}
		return a.audit(ctx, tx, change{object: "join-token/" + row.ID, before: joinTokenToAPI(row)})
	})
	if err != nil {
		return nil, err
	}
	return rest.RevokeJoinToken204Response{}, nil
}

func joinTokenToAPI(row store.JoinToken) api.JoinToken {
	return api.JoinToken{
		ID: row.ID, Partners: convert(row.Partners, same[string]), CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt, UsedAt: row.UsedAt,
		UsedBy: optional(row.UsedBy),
	}
}
