package httpapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/credential"
	"activerelay/server/internal/store"
)

// ListTokens lists the tokens that the token may see, oldest first.
func (a *API) ListTokens(ctx context.Context, r rest.ListTokensRequestObject) (rest.ListTokensResponseObject, error) {
	cursor, err := a.page(ctx, r.Params.PageSize, r.Params.PageToken, r.Params.Partner)
	if err != nil {
		return nil, err
	}
	var rows []store.Token
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.Tokens(text(r.Params.Partner), cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.Token) string { return row.ID })
	return rest.ListTokens200JSONResponse{Items: convert(rows, a.tokenToAPI), NextPageToken: next}, nil
}

// GetToken shows one token without its secret.
func (a *API) GetToken(ctx context.Context, r rest.GetTokenRequestObject) (rest.GetTokenResponseObject, error) {
	var row store.Token
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.Token(r.TokenID)
		return err
	})
	if err != nil {
		return nil, notFound(err, "token")
	}
	return rest.GetToken200JSONResponse{TokenResponseJSONResponse: rest.TokenResponseJSONResponse{
		Body: a.tokenToAPI(row), Headers: rest.TokenResponseResponseHeaders{ETag: etag(row.Version)},
	}}, nil
}

// CreateToken creates a token, never one that may do more than the calling one.
func (a *API) CreateToken(ctx context.Context, r rest.CreateTokenRequestObject) (rest.CreateTokenResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.CreateTokenResponseObject]{
		key: r.Params.IdempotencyKey, request: r, secret: true,
		visit: rest.CreateTokenResponseObject.VisitCreateTokenResponse,
	}, func(tx *store.Tx) (rest.CreateTokenResponseObject, error) {
		row, err := a.newToken(ctx, tx, *r.Body)
		if err != nil {
			return nil, err
		}
		made := credential.New(kindOf(row.Role), newULID(tx.Now))
		row.ID, row.SecretHash = tokenID(made), made.Secret.Hash()
		if err := tx.InsertToken(&row); err != nil {
			return nil, err
		}
		err = a.audit(ctx, tx, change{object: "token/" + row.ID, partner: row.Partner, after: a.tokenToAPI(row)})
		return rest.CreateToken201JSONResponse{TokenWithSecretResponseJSONResponse: a.tokenWithSecret(row, made)}, err
	})
}

func tokenID(c credential.Credential) string { return "tok_" + c.ID.String() }

// newToken checks what is asked for against what the caller may give.
func (a *API) newToken(ctx context.Context, tx *store.Tx, body api.TokenCreate) (store.Token, error) {
	row := store.Token{Name: body.Name, Role: string(body.Role), ExpiresAt: storedTime(body.ExpiresAt)}
	if body.ReadOnly != nil {
		row.ReadOnly = *body.ReadOnly
	}
	if row.ExpiresAt != nil && !row.ExpiresAt.After(tx.Now) {
		return row, invalid("/expires_at", "future", "must lie in the future")
	}
	allowed, err := prefixes("/allowed_addresses", body.AllowedAddresses)
	if err != nil {
		return row, err
	}
	row.AllowedAddresses = allowed
	if err := ownToken(ctx, tx, &row, body); err != nil {
		return row, err
	}
	row.Scopes, err = a.grantedScopes(ctx, api.Role(row.Role), body.Scopes)
	return row, err
}

// ownToken finds whose the token is. A partner makes tokens only for itself and its domains.
func ownToken(ctx context.Context, tx *store.Tx, row *store.Token, body api.TokenCreate) error {
	caller := PrincipalFrom(ctx)
	switch {
	case body.Role == api.TokenCreateRoleOperator && caller.Role != api.RoleOperator:
		return problem.Forbidden("Only the operator creates operator tokens")
	case body.Role == api.TokenCreateRoleOperator && (body.Partner != nil || body.Domain != nil):
		return invalid("/role", "role", "an operator token has no partner and no domain")
	case body.Role == api.TokenCreateRoleOperator:
		return nil
	case caller.Partner != "" && body.Partner != nil && *body.Partner != caller.Partner:
		return invalid("/partner", "partner", "must be the partner of the token")
	case body.Role == api.TokenCreateRoleCustomer:
		return customerToken(tx, row, body)
	case body.Domain != nil:
		return invalid("/domain", "role", "only a customer token has a domain")
	}
	row.Partner = caller.Partner
	if row.Partner == "" {
		if body.Partner == nil {
			return invalid("/partner", "required", "is required for a partner token")
		}
		row.Partner = *body.Partner
	}
	_, err := tx.Partner(row.Partner)
	return notFound(err, "partner")
}

func customerToken(tx *store.Tx, row *store.Token, body api.TokenCreate) error {
	if body.Domain == nil {
		return invalid("/domain", "required", "is required for a customer token")
	}
	name, err := domainName("/domain", *body.Domain)
	if err != nil {
		return err
	}
	domain, err := tx.Domain(name)
	if err != nil {
		return notFound(err, "domain")
	}
	if body.Partner != nil && *body.Partner != domain.Partner {
		return invalid("/partner", "partner", "is not the partner of the domain")
	}
	row.Partner, row.Domain = domain.Partner, domain.Name
	return nil
}

// grantedScopes returns the scopes of a new token: the named ones, or all that its role may have. It stores none where
// that is everything, so that the token may do what later releases add to the role.
func (a *API) grantedScopes(ctx context.Context, role api.Role, named []api.Scope) (store.Strings, error) {
	possible := a.contract.scopes[role]
	own := PrincipalFrom(ctx).Scopes
	if named == nil {
		var scopes store.Strings
		for _, scope := range possible {
			if slices.Contains(own, scope) {
				scopes = append(scopes, string(scope))
			}
		}
		if len(scopes) == len(possible) {
			return nil, nil
		}
		return nonEmptyScopes(scopes)
	}
	var scopes store.Strings
	for i, scope := range named {
		if !slices.Contains(possible, scope) {
			return nil, invalid(indexed("/scopes", i), "role", "is no scope of this role", scopeNames(possible)...)
		}
		if !slices.Contains(own, scope) {
			return nil, problem.Forbidden("A token cannot be given more scopes than the one that creates it has")
		}
		if !slices.Contains(scopes, string(scope)) {
			scopes = append(scopes, string(scope))
		}
	}
	return nonEmptyScopes(scopes)
}

func nonEmptyScopes(scopes store.Strings) (store.Strings, error) {
	if len(scopes) == 0 {
		return nil, invalid("/scopes", "minItems", "must name at least one scope that the creating token has")
	}
	return scopes, nil
}

func scopeNames(scopes []api.Scope) []string { return convert(scopes, word[api.Scope]) }

// RevokeToken revokes a token at once.
func (a *API) RevokeToken(ctx context.Context, r rest.RevokeTokenRequestObject) (rest.RevokeTokenResponseObject, error) {
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockToken(r.TokenID)
		if err != nil {
			return notFound(err, "token")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if row.RevokedAt != nil {
			return nil
		}
		before := a.tokenToAPI(row)
		row.RevokedAt = &tx.Now
		if err := tx.UpdateToken(&row); err != nil {
			return err
		}
		return a.audit(ctx, tx, change{
			object: "token/" + row.ID, partner: row.Partner, before: before, after: a.tokenToAPI(row),
		})
	})
	if err != nil {
		return nil, err
	}
	return rest.RevokeToken204Response{}, nil
}

// RotateToken makes a new secret for a token; the old one works a while longer where that is asked for. Only a token
// that may do as much itself can have it.
func (a *API) RotateToken(ctx context.Context, r rest.RotateTokenRequestObject) (rest.RotateTokenResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.RotateTokenResponseObject]{
		key: r.Params.IdempotencyKey, request: r, secret: true,
		visit: rest.RotateTokenResponseObject.VisitRotateTokenResponse,
	}, func(tx *store.Tx) (rest.RotateTokenResponseObject, error) {
		row, err := tx.LockToken(r.TokenID)
		if err != nil {
			return nil, notFound(err, "token")
		}
		if err := a.mayRotate(ctx, row, tx.Now); err != nil {
			return nil, err
		}
		id, err := ulid.ParseStrict(strings.TrimPrefix(row.ID, "tok_"))
		if err != nil {
			return nil, fmt.Errorf("id of token %s: %w", row.ID, err)
		}
		made := credential.New(kindOf(row.Role), id)
		row.PreviousHash, row.PreviousExpiresAt = nil, nil
		if overlap := r.Body.OverlapSeconds; overlap != nil && *overlap > 0 {
			until := tx.Now.Add(time.Duration(*overlap) * time.Second)
			row.PreviousHash, row.PreviousExpiresAt = row.SecretHash, &until
		}
		row.SecretHash = made.Secret.Hash()
		if err := tx.UpdateToken(&row); err != nil {
			return nil, err
		}
		err = a.audit(ctx, tx, change{object: "token/" + row.ID, partner: row.Partner, secrets: []string{"token"}})
		return rest.RotateToken200JSONResponse{TokenWithSecretResponseJSONResponse: a.tokenWithSecret(row, made)}, err
	})
}

func (a *API) mayRotate(ctx context.Context, row store.Token, now time.Time) error {
	if !alive(row, now) {
		return problem.Conflict("The token is revoked or expired")
	}
	own := PrincipalFrom(ctx).Scopes
	for _, scope := range a.scopesOf(api.Role(row.Role), row.Scopes) {
		if !slices.Contains(own, scope) {
			return problem.Forbidden("The token has scopes that the calling one has not")
		}
	}
	return nil
}

// WhoAmI shows the token that the call was made with.
func (a *API) WhoAmI(ctx context.Context, _ rest.WhoAmIRequestObject) (rest.WhoAmIResponseObject, error) {
	p := PrincipalFrom(ctx)
	return rest.WhoAmI200JSONResponse{
		TokenID: p.TokenID, Name: p.Name, Role: p.Role, Partner: optional(p.Partner), Domain: optional(p.Domain),
		Edge: optional(p.Edge), ReadOnly: p.ReadOnly, Scopes: convert(p.Scopes, same[api.Scope]), ExpiresAt: p.ExpiresAt,
	}, nil
}

func (a *API) tokenToAPI(row store.Token) api.Token {
	allowed := []string(row.AllowedAddresses)
	if allowed == nil {
		allowed = []string{}
	}
	return api.Token{
		ID: row.ID, Name: row.Name, Role: api.Role(row.Role), Partner: optional(row.Partner), Domain: optional(row.Domain),
		ReadOnly: row.ReadOnly, Scopes: convert(a.scopesOf(api.Role(row.Role), row.Scopes), same[api.Scope]),
		AllowedAddresses: allowed, CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt, LastUsedAt: row.LastUsedAt,
		RevokedAt: row.RevokedAt,
	}
}

func (a *API) tokenWithSecret(row store.Token, made credential.Credential) rest.TokenWithSecretResponseJSONResponse {
	shown := a.tokenToAPI(row)
	return rest.TokenWithSecretResponseJSONResponse{
		Body: api.TokenWithSecret{
			ID: shown.ID, Name: shown.Name, Role: shown.Role, Partner: shown.Partner, Domain: shown.Domain,
			ReadOnly: shown.ReadOnly, Scopes: shown.Scopes, AllowedAddresses: shown.AllowedAddresses,
			CreatedAt: shown.CreatedAt, ExpiresAt: shown.ExpiresAt, LastUsedAt: shown.LastUsedAt, Token: made.Token(),
		},
		Headers: rest.TokenWithSecretResponseResponseHeaders{ETag: etag(row.Version)},
	}
}
