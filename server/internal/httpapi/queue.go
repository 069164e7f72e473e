package httpapi

import (
	"context"
	"errors"
	"strings"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/problem"
	"activerelay/api/reason"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// nullSender stands for the empty envelope sender, as in SMTP.
const nullSender = "<>"

// ListQueue lists what waits in the queues of the edges, as far as the token may see it.
func (a *API) ListQueue(ctx context.Context, r rest.ListQueueRequestObject) (rest.ListQueueResponseObject, error) {
	p := r.Params
	cursor, err := a.page(ctx, p.PageSize, p.PageToken, p.Partner, p.Domain, p.Destination, p.Sender, p.State, p.Edge)
	if err != nil {
		return nil, err
	}
	filter, err := queueFilter(queueQuery{p.Partner, p.Domain, p.Destination, p.Sender, p.State, p.Edge})
	if err != nil {
		return nil, err
	}
	var rows []store.QueuedMessage
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.QueuedMessages(filter, queueCursor(cursor.after), cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.QueuedMessage) string {
		return strings.Join([]string{row.MessageID, row.Destination, row.Edge}, " ")
	})
	return rest.ListQueue200JSONResponse{Items: convert(rows, queueItemToAPI), NextPageToken: next}, nil
}

// queueQuery is what narrows a view of the queue.
type queueQuery struct {
	partner, domain, destination, sender *string
	state                                *api.QueueState
	edge                                 *string
}

func queueFilter(q queueQuery) (store.QueueFilter, error) {
	filter := store.QueueFilter{Partner: text(q.partner), State: text(q.state), Edge: text(q.edge)}
	var err error
	if filter.Domain, err = domainFilter(q.domain); err != nil {
		return filter, err
	}
	if filter.Destination, err = selectedDomain("query/destination", q.destination); err != nil {
		return filter, err
	}
	if filter.Sender, err = envelopeSender("query/sender", q.sender); err != nil {
		return filter, err
	}
	if filter.Sender == nullSender {
		filter.Sender, filter.NullSender = "", true
	}
	return filter, nil
}

func queueCursor(after string) store.QueueCursor {
	id, rest, _ := strings.Cut(after, " ")
	destination, edge, _ := strings.Cut(rest, " ")
	return store.QueueCursor{MessageID: id, Destination: destination, Edge: edge}
}

// envelopeSender returns the canonical form of an envelope sender, empty for none given.
func envelopeSender(pointer string, sender *string) (string, error) {
	if sender == nil || *sender == nullSender {
		return text(sender), nil
	}
	address, err := mailaddr.Parse(*sender, mailaddr.Options{SMTPUTF8: true})
	if err != nil {
		return "", invalid(pointer, "address", "is not an e-mail address, nor <> for the null sender: "+err.Error())
	}
	return address.String(), nil
}

// GetQueuedMessage shows what one message still has in the queue.
func (a *API) GetQueuedMessage(ctx context.Context, r rest.GetQueuedMessageRequestObject) (rest.GetQueuedMessageResponseObject, error) {
	var rows []store.QueuedMessage
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		// Ids are upper case, but come by way of people and their mail programs.
		rows, err = tx.QueuedMessage(strings.ToUpper(r.MessageID))
		return err
	})
	if err != nil {
		return nil, notWaiting(err)
	}
	first := rows[0]
	return rest.GetQueuedMessage200JSONResponse{
		MessageID: first.MessageID, Edge: first.Edge, Partner: first.Partner, Domain: first.Domain, Sender: optional(first.Sender),
		AcceptedAt: first.AcceptedAt, Destinations: convert(rows, queueItemToAPI),
	}, nil
}

// notWaiting says of a message that does not wait where to look for it: here it is forgotten once it is settled.
func notWaiting(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return problem.New(reason.NotFound, "No such message waits. One that was delivered, returned or cancelled is in the mail log of its edge only")
	}
	return err
}

func queueItemToAPI(row store.QueuedMessage) api.QueueItem {
	if row.State != store.Queued { // what is known was planned before that
		row.NextAttemptAt = nil
	}
	return api.QueueItem{
		MessageID: row.MessageID, Edge: row.Edge, Partner: row.Partner, Domain: row.Domain, Sender: optional(row.Sender),
		Destination: row.Destination, Recipients: row.Remaining, State: api.QueueState(row.State), Attempts: row.Attempts,
		NextAttemptAt: row.NextAttemptAt, DelayReason: delayReason(row.State, row.DelayReason), LastReply: optional(row.LastReply),
		RemoteHost: optional(row.RemoteHost), TLS: optional(row.TLS), AcceptedAt: row.AcceptedAt, UpdatedAt: row.ChangedAt,
	}
}

// delayReason is why something waits; nil where nothing keeps it, or where the edge is too old to tell.
func delayReason(state, told string) *api.DelayReason {
	why := api.DelayReason(told)
	switch {
	case state == store.Held:
		why = api.DelayReasonHeld
	case state == store.Quarantined:
		why = api.DelayReasonQuarantined
	case why == "":
		return nil
	case !why.Valid():
		why = api.DelayReasonOther
	}
	return &why
}

// RetryQueue makes due now what waits.
func (a *API) RetryQueue(ctx context.Context, r rest.RetryQueueRequestObject) (rest.RetryQueueResponseObject, error) {
	return operateQueue(ctx, a, attempt[rest.RetryQueueResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.RetryQueueResponseObject.VisitRetryQueueResponse,
	}, api.QueueOperationActionRetry, *r.Body, func(op api.QueueOperation) rest.RetryQueueResponseObject {
		return rest.RetryQueue202JSONResponse{QueueOperationResponseJSONResponse: rest.QueueOperationResponseJSONResponse(op)}
	})
}

// HoldQueue keeps what waits from being tried.
func (a *API) HoldQueue(ctx context.Context, r rest.HoldQueueRequestObject) (rest.HoldQueueResponseObject, error) {
	return operateQueue(ctx, a, attempt[rest.HoldQueueResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.HoldQueueResponseObject.VisitHoldQueueResponse,
	}, api.QueueOperationActionHold, *r.Body, func(op api.QueueOperation) rest.HoldQueueResponseObject {
		return rest.HoldQueue202JSONResponse{QueueOperationResponseJSONResponse: rest.QueueOperationResponseJSONResponse(op)}
	})
}

// ReleaseQueue lets what is held be tried again.
func (a *API) ReleaseQueue(ctx context.Context, r rest.ReleaseQueueRequestObject) (rest.ReleaseQueueResponseObject, error) {
	return operateQueue(ctx, a, attempt[rest.ReleaseQueueResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.ReleaseQueueResponseObject.VisitReleaseQueueResponse,
	}, api.QueueOperationActionRelease, *r.Body, func(op api.QueueOperation) rest.ReleaseQueueResponseObject {
		return rest.ReleaseQueue202JSONResponse{QueueOperationResponseJSONResponse: rest.QueueOperationResponseJSONResponse(op)}
	})
}

// CancelQueue takes what waits out of the queue for good.
func (a *API) CancelQueue(ctx context.Context, r rest.CancelQueueRequestObject) (rest.CancelQueueResponseObject, error) {
	return operateQueue(ctx, a, attempt[rest.CancelQueueResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.CancelQueueResponseObject.VisitCancelQueueResponse,
	}, api.QueueOperationActionCancel, *r.Body, func(op api.QueueOperation) rest.CancelQueueResponseObject {
		return rest.CancelQueue202JSONResponse{QueueOperationResponseJSONResponse: rest.QueueOperationResponseJSONResponse(op)}
	})
}

// operateQueue keeps an operation on the queue, instructs the edges and wakes those that wait here.
func operateQueue[R any](ctx context.Context, a *API, t attempt[R], action api.QueueOperationAction, about api.QueueSelection, accepted func(api.QueueOperation) R) (R, error) {
	var none R
	op, err := queueOperation(ctx, action, about)
	if err != nil {
		return none, err
	}
	response, err := idempotent(ctx, a, t, func(tx *store.Tx) (R, error) {
		op.ID = newID("qop_", tx.Now)
		if err := tx.OperateQueue(&op); err != nil {
			return none, notWaiting(err)
		}
		_, progress, err := tx.QueueOperation(op.ID)
		if err != nil {
			return none, err
		}
		shown := queueOperationToAPI(op, progress)
		return accepted(shown), a.audit(ctx, tx, change{
			object: "queue-operation/" + op.ID, partner: op.Partner, reason: op.Reason, after: shown,
		})
	})
	if err == nil {
		a.Publisher.Wake()
	}
	return response, err
}

// queueOperation is what a selection asks for. A partner acts on its own mail only, whatever it names.
func queueOperation(ctx context.Context, action api.QueueOperationAction, about api.QueueSelection) (store.QueueOperation, error) {
	op := store.QueueOperation{Action: string(action), Partner: text(about.Partner), Reason: text(about.Reason)}
	if len(about.MessageIDs) == 0 && about.Partner == nil && about.Domain == nil && about.Destination == nil && about.Sender == nil {
		return op, invalid("", "minProperties", "must name message_ids, partner, domain, destination or sender")
	}
	if own := PrincipalFrom(ctx).Partner; own != "" {
		if op.Partner != "" && op.Partner != own {
			return op, notFound(store.ErrNotFound, "partner")
		}
		op.Partner = own
	}
	var err error
	if op.Domain, err = selectedDomain("/domain", about.Domain); err != nil {
		return op, err
	}
	if op.Destination, err = selectedDomain("/destination", about.Destination); err != nil {
		return op, err
	}
	if op.Sender, err = envelopeSender("/sender", about.Sender); err != nil {
		return op, err
	}
	op.MessageIDs = convert(about.MessageIDs, strings.ToUpper)
	return op, nil
}

func selectedDomain(pointer string, name *string) (string, error) {
	if name == nil {
		return "", nil
	}
	return domainName(pointer, *name)
}

// GetQueueOperation shows what became of an operation on the queue.
func (a *API) GetQueueOperation(ctx context.Context, r rest.GetQueueOperationRequestObject) (rest.GetQueueOperationResponseObject, error) {
	var op store.QueueOperation
	var progress store.QueueProgress
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		op, progress, err = tx.QueueOperation(r.OperationID)
		return err
	})
	if err != nil {
		return nil, notFound(err, "operation")
	}
	return rest.GetQueueOperation200JSONResponse(queueOperationToAPI(op, progress)), nil
}

func queueOperationToAPI(op store.QueueOperation, p store.QueueProgress) api.QueueOperation {
	return api.QueueOperation{
		ID: op.ID, Action: api.QueueOperationAction(op.Action), MessageIDs: op.MessageIDs, Partner: optional(op.Partner),
		Domain: optional(op.Domain), Destination: optional(op.Destination), Sender: optional(op.Sender), Reason: optional(op.Reason),
		Matched: op.Matched, Edges: p.Edges, EdgesAcknowledged: p.Acknowledged, EdgesDone: p.Done, EdgesUnable: p.Unable,
		Messages: p.Messages, Recipients: p.Recipients, CreatedAt: op.CreatedAt, FinishedAt: p.FinishedAt,
	}
}
