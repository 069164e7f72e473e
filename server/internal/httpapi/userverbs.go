package httpapi

import (
	"context"

	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// SuspendUser suspends a user.
func (a *API) SuspendUser(ctx context.Context, r rest.SuspendUserRequestObject) (rest.SuspendUserResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.SuspendUserResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.SuspendUserResponseObject.VisitSuspendUserResponse,
	}, func(tx *store.Tx) (rest.SuspendUserResponseObject, error) {
		response, err := a.actOnUser(ctx, tx, r.Address, r.Body.Reason, func(row *store.User) bool {
			return row.Suspend(r.Body.Reason, tx.Now)
		})
		return rest.SuspendUser200JSONResponse{UserResponseJSONResponse: response}, err
	})
}

// ResumeUser lifts a suspension.
func (a *API) ResumeUser(ctx context.Context, r rest.ResumeUserRequestObject) (rest.ResumeUserResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.ResumeUserResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.ResumeUserResponseObject.VisitResumeUserResponse,
	}, func(tx *store.Tx) (rest.ResumeUserResponseObject, error) {
		response, err := a.actOnUser(ctx, tx, r.Address, "", func(row *store.User) bool { return row.Resume(tx.Now) })
		return rest.ResumeUser200JSONResponse{UserResponseJSONResponse: response}, err
	})
}

// DisableUserRelaying disables relaying for a user because of abuse.
func (a *API) DisableUserRelaying(ctx context.Context, r rest.DisableUserRelayingRequestObject) (rest.DisableUserRelayingResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.DisableUserRelayingResponseObject]{
		key: r.Params.IdempotencyKey, request: r,
		visit: rest.DisableUserRelayingResponseObject.VisitDisableUserRelayingResponse,
	}, func(tx *store.Tx) (rest.DisableUserRelayingResponseObject, error) {
		response, err := a.actOnUser(ctx, tx, r.Address, r.Body.Reason, func(row *store.User) bool {
			return row.Relaying.Disable(store.CauseOperator, r.Body.Reason, tx.Now)
		})
		return rest.DisableUserRelaying200JSONResponse{UserResponseJSONResponse: response}, err
	})
}

// EnableUserRelaying enables relaying again; complaints up to now no longer count.
func (a *API) EnableUserRelaying(ctx context.Context, r rest.EnableUserRelayingRequestObject) (rest.EnableUserRelayingResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.EnableUserRelayingResponseObject]{
		key: r.Params.IdempotencyKey, request: r,
		visit: rest.EnableUserRelayingResponseObject.VisitEnableUserRelayingResponse,
	}, func(tx *store.Tx) (rest.EnableUserRelayingResponseObject, error) {
		response, err := a.actOnUser(ctx, tx, r.Address, r.Body.Reason, func(row *store.User) bool {
			return row.Relaying.Enable(tx.Now)
		})
		return rest.EnableUserRelaying200JSONResponse{UserResponseJSONResponse: response}, err
	})
}

// actOnUser applies a verb to a user. One that changes nothing is answered the same and not written.
func (a *API) actOnUser(ctx context.Context, tx *store.Tx, text, reason string, act func(*store.User) bool) (rest.UserResponseJSONResponse, error) {
	address, err := userAddress("path/address", text)
	if err != nil {
		return rest.UserResponseJSONResponse{}, err
	}
	row, err := tx.LockUser(address.Key())
	if err != nil {
		return rest.UserResponseJSONResponse{}, notFound(err, "user")
	}
	before := userToAPI(row)
	if act(&row) {
		if err := a.saveUser(ctx, tx, &row, before, change{reason: reason}); err != nil {
			return rest.UserResponseJSONResponse{}, err
		}
	}
	return userResponse(row), nil
}
