package httpapi

import (
	"context"

	"activerelay/api"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// ListEdges lists the edges, oldest first.
func (a *API) ListEdges(ctx context.Context, r rest.ListEdgesRequestObject) (rest.ListEdgesResponseObject, error) {
	cursor, err := a.page(ctx, r.Params.PageSize, r.Params.PageToken)
	if err != nil {
		return nil, err
	}
	var rows []store.Edge
	var rejections map[string]store.LastRejection
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if rows, err = tx.Edges(cursor.after, cursor.limit()); err != nil {
			return err
		}
		rejections, err = tx.LastRejections(convert(rows, func(row store.Edge) string { return row.ID }))
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.Edge) string { return row.ID })
	items := convert(rows, func(row store.Edge) api.Edge { return a.edgeToAPI(row, rejections[row.ID]) })
	return rest.ListEdges200JSONResponse{Items: items, NextPageToken: next}, nil
}

// GetEdge shows one edge.
func (a *API) GetEdge(ctx context.Context, r rest.GetEdgeRequestObject) (rest.GetEdgeResponseObject, error) {
	var row store.Edge
	var rejections map[string]store.LastRejection
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.Edge(r.EdgeID); err != nil {
			return err
		}
		rejections, err = tx.LastRejections([]string{row.ID})
		return err
	})
	if err != nil {
		return nil, notFound(err, "edge")
	}
	return rest.GetEdge200JSONResponse{EdgeResponseJSONResponse: rest.EdgeResponseJSONResponse(a.edgeToAPI(row, rejections[row.ID]))}, nil
}

// RetireEdge revokes the credential of an edge and writes off what it holds. A retired edge stays as it is.
func (a *API) RetireEdge(ctx context.Context, r rest.RetireEdgeRequestObject) (rest.RetireEdgeResponseObject, error) {
	response, err := idempotent(ctx, a, attempt[rest.RetireEdgeResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.RetireEdgeResponseObject.VisitRetireEdgeResponse,
	}, func(tx *store.Tx) (rest.RetireEdgeResponseObject, error) {
		row, err := tx.LockEdge(r.EdgeID)
		if err != nil {
			return nil, notFound(err, "edge")
		}
		shown := a.edgeToAPI(row, store.LastRejection{})
		if row.Status == store.EdgeActive {
			if shown, err = a.retire(ctx, tx, row); err != nil {
				return nil, err
			}
		}
		return rest.RetireEdge200JSONResponse{EdgeResponseJSONResponse: rest.EdgeResponseJSONResponse(shown)}, nil
	})
	if err == nil {
		a.Publisher.Wake() // its waiting poll ends now
	}
	return response, err
}

// retire retires an active edge and says what it leaves.
func (a *API) retire(ctx context.Context, tx *store.Tx, row store.Edge) (api.Edge, error) {
	before := a.edgeToAPI(row, store.LastRejection{})
	left, err := tx.CountQueued(store.QueueFilter{Edge: row.ID})
	if err != nil {
		return before, err
	}
	if err := tx.RetireEdge(&row); err != nil {
		return before, err
	}
	shown := a.edgeToAPI(row, store.LastRejection{})
	shown.MessagesLeft = &left
	return shown, a.audit(ctx, tx, change{object: "edge/" + row.ID, before: before, after: shown})
}

// newest is an edge with what this process has seen of it since it was last written down.
func (a *API) newest(row store.Edge) store.Edge {
	seen := a.Publisher.Sighting(row.ID)
	if row.LastSeenAt == nil && !seen.At.IsZero() || row.LastSeenAt != nil && seen.At.After(*row.LastSeenAt) {
		row.LastSeenAt = &seen.At
		if seen.Epoch != "" {
			row.EnforcedEpoch, row.EnforcedRevision = seen.Epoch, seen.Revision
		}
		if seen.Version != "" {
			row.SoftwareVersion, row.CapabilityVersion = seen.Version, seen.Capability
		}
	}
	return row
}

func (a *API) edgeToAPI(row store.Edge, rejection store.LastRejection) api.Edge {
	row = a.newest(row)
	shown := api.Edge{
		ID: row.ID, Name: row.Name, Status: api.EdgeStatus(row.Status), Partners: convert(row.Partners, same[string]),
		Version: optional(row.SoftwareVersion), CapabilityVersion: &row.CapabilityVersion, JoinedAt: row.JoinedAt, LastSeenAt: row.LastSeenAt, RetiredAt: row.RetiredAt,
		RejectedDocuments: rejection.Standing,
	}
	if rejection.Standing > 0 {
		shown.LastRejection = &api.PolicyRejection{
			Document: rejection.Document, Revision: rejection.Revision, Time: rejection.OccurredAt, Detail: rejection.Detail,
		}
	}
	if row.EnforcedEpoch != "" {
		shown.EnforcedEpoch, shown.EnforcedRevision = &row.EnforcedEpoch, &row.EnforcedRevision
	}
	return shown
}
