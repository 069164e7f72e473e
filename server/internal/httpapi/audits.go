package httpapi

import (
	"context"
	"encoding/json"
	"fmt"

	"activerelay/api"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// ListAuditEntries lists who changed what, newest first.
func (a *API) ListAuditEntries(ctx context.Context, r rest.ListAuditEntriesRequestObject) (rest.ListAuditEntriesResponseObject, error) {
	filter := store.AuditFilter{
		Partner: text(r.Params.Partner), Object: text(r.Params.Object), Actor: text(r.Params.Actor),
	}
	cursor, err := a.page(ctx, r.Params.PageSize, r.Params.PageToken, filter)
	if err != nil {
		return nil, err
	}
	var rows []store.AuditRow
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.AuditEntries(filter, cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.AuditRow) string { return row.ID })
	items := make([]api.AuditEntry, 0, len(rows))
	for _, row := range rows {
		item, err := auditToAPI(row)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return rest.ListAuditEntries200JSONResponse{Items: items, NextPageToken: next}, nil
}

// GetAuditEntry shows one entry.
func (a *API) GetAuditEntry(ctx context.Context, r rest.GetAuditEntryRequestObject) (rest.GetAuditEntryResponseObject, error) {
	var row store.AuditRow
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.AuditEntry(r.AuditID)
		return err
	})
	if err != nil {
		return nil, notFound(err, "audit entry")
	}
	shown, err := auditToAPI(row)
	return rest.GetAuditEntry200JSONResponse(shown), err
}

func auditToAPI(row store.AuditRow) (api.AuditEntry, error) {
	shown := api.AuditEntry{
		ID: row.ID, Time: row.OccurredAt,
		Actor: api.AuditActor{
			TokenID: row.TokenID, Name: optional(row.ActorName), Role: api.AuditActorRole(row.ActorRole),
			Partner: optional(row.ActorPartner),
		},
		Action: row.Action, Object: row.Object, Partner: optional(row.Partner), Reason: optional(row.Reason),
		RequestID: row.RequestID,
	}
	if err := json.Unmarshal([]byte(row.Changes), &shown.Changes); err != nil {
		return shown, fmt.Errorf("changes of %s: %w", row.ID, err)
	}
	return shown, nil
}
