package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/server/internal/credential"
	"activerelay/server/internal/store"
)

// touchAfter is how exact the last use of a token is kept.
const touchAfter = time.Minute

// Authenticate finds out who a request is from. Public operations have no principal, whatever the request carries.
func (a *API) Authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		found := callFrom(ctx)
		switch {
		case found.operation == nil:
			return next(c) // the router answers 404 or 405, to everybody alike
		case found.operation.scope == scopePublic:
			return next(c)
		}
		principal, err := a.principal(ctx, c.Request().Header.Get(echo.HeaderAuthorization), c.RealIP())
		if err != nil {
			return err
		}
		found.principal = principal
		return next(c)
	}
}

// Authorise holds a principal to its role and scopes.
func (a *API) Authorise(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		found := callFrom(c.Request().Context())
		if found.operation == nil || found.operation.scope == scopePublic {
			return next(c)
		}
		if !found.principal.may(found.operation, c.Request().Method) {
			return problem.Forbidden("")
		}
		return next(c)
	}
}

func (a *API) principal(ctx context.Context, header, address string) (Principal, error) {
	scheme, token, found := strings.Cut(header, " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return Principal{}, problem.Unauthenticated()
	}
	presented, err := credential.Parse(strings.TrimSpace(token))
	if err != nil {
		return Principal{}, problem.Unauthenticated()
	}
	switch presented.Kind {
	case credential.Operator, credential.Partner, credential.Customer:
		return a.tokenPrincipal(ctx, presented, address)
	case credential.Edge:
		return a.edgePrincipal(ctx, presented)
	default: // a join token is no credential of the API
		return Principal{}, problem.Unauthenticated()
	}
}

// tokenPrincipal looks a token up. An unknown id is compared with nothing at the same cost as a wrong secret.
func (a *API) tokenPrincipal(ctx context.Context, presented credential.Credential, address string) (Principal, error) {
	var row store.Token
	err := a.Store.Read(ctx, store.System(), func(tx *store.Tx) (err error) {
		row, err = tx.Token("tok_" + presented.ID.String())
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Principal{}, fmt.Errorf("look up token: %w", err)
	}
	now := a.Now()
	matches := presented.Matches(row.SecretHash, currentPrevious(row, now))
	if !matches || !alive(row, now) || kindOf(row.Role) != presented.Kind || !allowedFrom(row.AllowedAddresses, address) {
		return Principal{}, problem.Unauthenticated()
	}
	a.touch(ctx, row, now)
	return a.principalOf(row), nil
}

// currentPrevious is the secret before the last rotation while it still works.
func currentPrevious(row store.Token, now time.Time) []byte {
	if row.PreviousExpiresAt == nil || !now.Before(*row.PreviousExpiresAt) {
		return nil
	}
	return row.PreviousHash
}

func alive(row store.Token, now time.Time) bool {
	return row.RevokedAt == nil && (row.ExpiresAt == nil || now.Before(*row.ExpiresAt))
}

func kindOf(role string) credential.Kind {
	switch api.Role(role) {
	case api.RoleOperator:
		return credential.Operator
	case api.RolePartner:
		return credential.Partner
	case api.RoleCustomer:
		return credential.Customer
	default:
		return ""
	}
}

// allowedFrom reports whether an address is in the list; an empty list allows all.
func allowedFrom(allowed []string, address string) bool {
	if len(allowed) == 0 {
		return true
	}
	client, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	for _, text := range allowed {
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Contains(client.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// touch notes the use of a token. It is no reason to refuse the request when that fails.
func (a *API) touch(ctx context.Context, row store.Token, now time.Time) {
	if row.LastUsedAt != nil && now.Sub(*row.LastUsedAt) < touchAfter {
		return
	}
	err := a.Store.Write(ctx, store.System(), func(tx *store.Tx) error { return tx.TouchToken(row.ID) })
	if err != nil {
		a.Log.WarnContext(ctx, "last use of token not noted", slog.String("token", row.ID), slog.Any("error", err))
	}
}

func (a *API) principalOf(row store.Token) Principal {
	p := Principal{
		TokenID: row.ID, Name: row.Name, Role: api.Role(row.Role), Partner: row.Partner, Domain: row.Domain,
		ReadOnly: row.ReadOnly, ExpiresAt: row.ExpiresAt,
	}
	p.Scopes = a.scopesOf(p.Role, row.Scopes)
	return p
}

// scopesOf returns what a token may do: what it names, or all that its role may have. A scope that the role may not
// have, whatever the row says, is none.
func (a *API) scopesOf(role api.Role, named []string) []api.Scope {
	possible := a.contract.scopes[role]
	if len(named) == 0 {
		return possible
	}
	var scopes []api.Scope
	for _, scope := range possible {
		for _, name := range named {
			if string(scope) == name {
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}
