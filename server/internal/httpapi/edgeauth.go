package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/server/internal/credential"
	"activerelay/server/internal/store"
)

func edgeID(c credential.Credential) string { return "edg_" + c.ID.String() }

// edgePrincipal finds the edge whose credential was presented. An unknown and a retired edge are refused in the same
// words and at the same cost as a wrong secret.
func (a *API) edgePrincipal(ctx context.Context, presented credential.Credential) (Principal, error) {
	var row store.Edge
	err := a.Store.Read(ctx, store.System(), func(tx *store.Tx) (err error) {
		row, err = tx.Edge(edgeID(presented))
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Principal{}, fmt.Errorf("look up edge: %w", err)
	}
	if !presented.Matches(row.CredentialHash, row.NextCredentialHash) || row.Status != store.EdgeActive {
		return Principal{}, problem.Unauthenticated()
	}
	if presented.Matches(row.NextCredentialHash) {
		a.promote(ctx, row.ID, presented)
	}
	return Principal{
		TokenID: row.ID, Name: row.Name, Role: api.RoleEdge, Edge: row.ID, Partners: row.Partners,
		Scopes: a.contract.scopes[api.RoleEdge],
	}, nil
}

// promote ends the old credential of an edge that has the new one in its hands. When that fails both go on, until the
// next call.
func (a *API) promote(ctx context.Context, edge string, presented credential.Credential) {
	err := a.Store.Write(ctx, store.System(), func(tx *store.Tx) error {
		return tx.PromoteCredential(edge, presented.Secret.Hash())
	})
	if err != nil {
		a.Log.WarnContext(ctx, "old credential of an edge not ended yet", slog.String("edge", edge), slog.Any("error", err))
	}
}
