package httpapi

import (
	"context"
	"errors"

	"activerelay/api"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// ListDestinationLimits lists the destinations that have limits of their own.
func (a *API) ListDestinationLimits(ctx context.Context, r rest.ListDestinationLimitsRequestObject) (rest.ListDestinationLimitsResponseObject, error) {
	cursor, err := a.page(ctx, r.Params.PageSize, r.Params.PageToken)
	if err != nil {
		return nil, err
	}
	var rows []store.DestinationLimit
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.DestinationLimits(cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.DestinationLimit) string { return row.Destination })
	return rest.ListDestinationLimits200JSONResponse{Items: convert(rows, destinationLimitToAPI), NextPageToken: next}, nil
}

// GetDestinationLimit shows the limits of one destination.
func (a *API) GetDestinationLimit(ctx context.Context, r rest.GetDestinationLimitRequestObject) (rest.GetDestinationLimitResponseObject, error) {
	name, err := hostName("path/destination", r.Destination)
	if err != nil {
		return nil, err
	}
	var row store.DestinationLimit
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.DestinationLimit(name)
		return err
	})
	if err != nil {
		return nil, notFound(err, "destination limit")
	}
	return rest.GetDestinationLimit200JSONResponse{DestinationLimitResponseJSONResponse: destinationLimitResponse(row)}, nil
}

// PutDestinationLimit sets the limits of a destination.
func (a *API) PutDestinationLimit(ctx context.Context, r rest.PutDestinationLimitRequestObject) (rest.PutDestinationLimitResponseObject, error) {
	name, err := hostName("path/destination", r.Destination)
	if err != nil {
		return nil, err
	}
	if r.Body.MaxConnections == nil && r.Body.MessagesPerMinute == nil {
		return nil, invalid("", "minProperties", "must name max_connections or messages_per_minute")
	}
	var row store.DestinationLimit
	var created bool
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		var before any
		row, err = tx.LockDestinationLimit(name)
		created = errors.Is(err, store.ErrNotFound)
		switch {
		case created:
			row = store.DestinationLimit{Destination: name}
		case err != nil:
			return err
		default:
			before = destinationLimitToAPI(row)
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		row.MaxConnections, row.MessagesPerMinute, row.Reason = number(r.Body.MaxConnections), number(r.Body.MessagesPerMinute), text(r.Body.Reason)
		if same, err := unchanged(before, destinationLimitToAPI(row)); same || err != nil {
			return err
		}
		return a.saveDestinationLimit(ctx, tx, &row, before)
	})
	if err != nil {
		return nil, err
	}
	response := destinationLimitResponse(row)
	if created {
		return rest.PutDestinationLimit201JSONResponse{
			Body: response.Body, Headers: rest.PutDestinationLimit201ResponseHeaders(response.Headers),
		}, nil
	}
	return rest.PutDestinationLimit200JSONResponse{DestinationLimitResponseJSONResponse: response}, nil
}

// saveDestinationLimit inserts or updates limits, publishes and audits them. before is nil for new ones.
func (a *API) saveDestinationLimit(ctx context.Context, tx *store.Tx, row *store.DestinationLimit, before any) error {
	save := tx.UpdateDestinationLimit
	if before == nil {
		save = tx.InsertDestinationLimit
	}
	if err := save(row); err != nil {
		return err
	}
	tx.Publish(store.PlatformKey)
	return a.audit(ctx, tx, change{
		object: "destination-limit/" + row.Destination, reason: row.Reason, before: before, after: destinationLimitToAPI(*row),
	})
}

// DeleteDestinationLimit lets the edges treat a destination like any other.
func (a *API) DeleteDestinationLimit(ctx context.Context, r rest.DeleteDestinationLimitRequestObject) (rest.DeleteDestinationLimitResponseObject, error) {
	name, err := hostName("path/destination", r.Destination)
	if err != nil {
		return nil, err
	}
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockDestinationLimit(name)
		if err != nil {
			return notFound(err, "destination limit")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if err := tx.DeleteDestinationLimit(name); err != nil {
			return err
		}
		tx.Publish(store.PlatformKey)
		return a.audit(ctx, tx, change{object: "destination-limit/" + name, before: destinationLimitToAPI(row)})
	})
	if err != nil {
		return nil, err
	}
	return rest.DeleteDestinationLimit204Response{}, nil
}

// number is the value of an optional property, 0 when it is absent.
func number(value *int) int {
	if value == nil {
		return 0
	}
	return *value
}

func destinationLimitResponse(row store.DestinationLimit) rest.DestinationLimitResponseJSONResponse {
	return rest.DestinationLimitResponseJSONResponse{
		Body: destinationLimitToAPI(row), Headers: rest.DestinationLimitResponseResponseHeaders{ETag: etag(row.Version)},
	}
}

func destinationLimitToAPI(row store.DestinationLimit) api.DestinationLimit {
	shown := api.DestinationLimit{
		Destination: row.Destination, MessagesPerMinute: row.MessagesPerMinute, Reason: optional(row.Reason),
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
	if row.MaxConnections > 0 {
		shown.MaxConnections = &row.MaxConnections
	}
	return shown
}
