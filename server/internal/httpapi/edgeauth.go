package httpapi

import (
	"context"

	"activerelay/api/problem"
	"activerelay/server/internal/credential"
)

// edgePrincipal finds the edge whose credential was presented.
func (a *API) edgePrincipal(_ context.Context, _ credential.Credential) (Principal, error) {
	return Principal{}, problem.Unauthenticated()
}
