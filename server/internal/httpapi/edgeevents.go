package httpapi

import (
	"context"
	"errors"
	"log/slog"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// ReportEvents takes what is new of a batch of the calling edge.
func (a *API) ReportEvents(ctx context.Context, r rest.ReportEventsRequestObject) (rest.ReportEventsResponseObject, error) {
	edge := PrincipalFrom(ctx)
	var outcome store.EventOutcome
	err := a.Store.Write(ctx, edge.Tenant(), func(tx *store.Tx) (err error) {
		outcome, err = tx.RecordEvents(eventBatch(*r.Body))
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem.Unauthenticated()
	}
	if err != nil {
		return nil, err
	}
	a.Publisher.Seen(edge.Edge)
	if outcome.Fenced {
		return nil, problem.EdgeFenced("the batch is of a generation that is over")
	}
	if outcome.GapTo > 0 {
		a.Log.WarnContext(ctx, "events of an edge are lost", slog.String("edge", edge.Edge),
			slog.Int64("from", outcome.GapFrom), slog.Int64("to", outcome.GapTo))
	}
	for i := range outcome.Taken {
		if e := &outcome.Taken[i]; e.Kind == store.EventInstructionUnknown {
			a.Log.WarnContext(ctx, "instruction not understood by an edge of an older release",
				slog.String("edge", edge.Edge), slog.String("name", edge.Name), slog.String("operation", e.Ref),
				slog.String("detail", e.Detail))
		}
	}
	for _, r := range outcome.Rejections {
		a.metrics.policyRejections.Inc()
		a.Log.ErrorContext(ctx, "policy document not understood by an edge, which defers what needs it",
			slog.String("edge", edge.Edge), slog.String("name", edge.Name), slog.String("document", r.Document),
			slog.Int64("revision", r.Revision), slog.String("detail", r.Detail))
	}
	return rest.ReportEvents200JSONResponse{Acknowledged: outcome.Acknowledged}, nil
}

func eventBatch(body api.EventBatch) store.EventBatch {
	return store.EventBatch{
		Generation: body.Generation, FirstKept: body.FirstKept, Events: convert(body.Events, eventFromAPI),
	}
}

func eventFromAPI(e api.EdgeEvent) store.Event {
	event := store.Event{
		Sequence: e.Sequence, Time: e.Time, Kind: string(e.Kind), Domain: text(e.Domain), Ref: text(e.Ref), Reason: text(e.Reason),
		Stage: text(e.Stage), Reply: text(e.Reply), ClientAddress: text(e.ClientAddress), User: text(e.User),
		Sender: text(e.Sender), Recipient: text(e.Recipient), Detail: text(e.Detail),
		MessageID: text(e.MessageID), RecipientDomains: e.RecipientDomains, RemoteHost: text(e.RemoteHost),
		TLS: text(e.TLS), DelayReason: text(e.DelayReason),
	}
	if e.Recipients != nil {
		event.Recipients = *e.Recipients
	}
	if e.PolicyRevision != nil {
		event.PolicyRevision = *e.PolicyRevision
	}
	if e.DayStart != nil {
		event.DayStart = *storedTime(e.DayStart)
	}
	if e.Attempts != nil {
		event.Attempts = *e.Attempts
	}
	if e.Messages != nil {
		event.Messages = *e.Messages
	}
	if e.NextAttemptAt != nil {
		event.NextAttemptAt = *storedTime(e.NextAttemptAt)
	}
	return event
}
