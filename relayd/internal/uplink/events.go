package uplink

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/api/problem"
	"activerelay/api/reason"
	"activerelay/relayd/internal/outbox"
)

// eventsPerCall is the most that one call carries; the contract's maximum.
const eventsPerCall = 1000

// gatherFor is how long an event waits for others to go with it. Each call is a transaction of the control plane and a sync
// here, so a busy edge makes four a second, not one as soon as the last has ended.
const gatherFor = 250 * time.Millisecond

// EventSender carries the outbox to the control plane.
type EventSender struct {
	Client *client.ClientWithResponses
	Outbox *outbox.Outbox
	Log    *slog.Logger
	// OnReply is told the outcome of each call, for readiness. May be nil.
	OnReply func(error)

	// atMost is how many events the next call carries; 0 means eventsPerCall.
	atMost int
}

// Run sends events until ctx ends.
func (s *EventSender) Run(ctx context.Context) error {
	prune := time.NewTicker(time.Hour)
	defer prune.Stop()
	var wait pause
	for {
		select { // also while there is always more to send
		case <-prune.C:
			s.prune(ctx)
		default:
		}
		sent, err := s.sendOne(ctx)
		if s.OnReply != nil && (sent > 0 || err != nil) {
			s.OnReply(err)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.Log.WarnContext(ctx, "events not sent", "error", err, "backlog", s.Outbox.Backlog())
			wait.sleep(ctx)
			continue
		}
		wait.reset()
		if s.Outbox.Backlog() == 0 {
			select {
			case <-s.Outbox.Wake():
			case <-prune.C:
				s.prune(ctx)
			case <-ctx.Done():
				return nil
			}
		}
		s.gather(ctx)
	}
}

func (s *EventSender) prune(ctx context.Context) {
	if err := s.Outbox.Prune(); err != nil {
		s.Log.WarnContext(ctx, "old events not pruned", "error", err)
	}
}

// gather waits for more events, unless there are enough for a call.
func (s *EventSender) gather(ctx context.Context) {
	if s.Outbox.Backlog() >= eventsPerCall {
		return
	}
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Flush sends everything that is there now, and gives up at the first failure.
func (s *EventSender) Flush(ctx context.Context) error {
	for {
		sent, err := s.sendOne(ctx)
		if err != nil || sent == 0 {
			return err
		}
	}
}

// sendOne makes one call and answers how many events it carried; 0 means that none wait.
func (s *EventSender) sendOne(ctx context.Context) (int, error) {
	limit := eventsPerCall
	if s.atMost > 0 {
		limit = s.atMost
	}
	batch, err := s.Outbox.Next(limit)
	if err != nil || batch.Events == 0 {
		return 0, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := s.Client.ReportEventsWithBodyWithResponse(call, "application/json", bytes.NewReader(batch.Body))
	var refused *problem.Problem
	if errors.As(err, &refused) {
		return batch.Events, s.refused(ctx, batch, refused)
	}
	if err != nil {
		return 0, err
	}
	if reply.JSON200 == nil {
		return 0, errUnexpected(reply.Status())
	}
	s.atMost = min(2*s.atMost, eventsPerCall)
	return batch.Events, s.acknowledge(reply.JSON200, batch)
}

// refused decides what a refusal means for the batch.
//
// One that is about the content would come again for ever, and everything behind it would wait. The batch is halved until the
// event that is meant stands alone, and that one is given up. Only the control plane itself, which gives each request an id,
// can condemn an event; what a proxy between says is about the size or the way. Each event that is given up is an error that Run
// waits after, so that a control plane that has lost its mind costs an event every few seconds and not the whole backlog.
func (s *EventSender) refused(ctx context.Context, batch outbox.Batch, why *problem.Problem) error {
	switch {
	case why.Reason == reason.EdgeFenced:
		// The control plane knows a later generation than this disk does, which therefore went back in time.
		s.Log.ErrorContext(ctx, "events are of a generation that is over; starting a new one", "generation", batch.Generation)
		return errors.Join(why, s.Outbox.StartGeneration(batch.Generation+1))
	case why.Reason != reason.InvalidRequest && why.Reason != reason.BodyTooLarge:
		return why
	case batch.Events > 1:
		s.atMost = batch.Events / 2
		return nil
	case why.RequestID == "":
		return why
	}
	s.Log.ErrorContext(ctx, "event lost: the control plane refuses it", "error", why, "request_id", why.RequestID, "number", batch.First,
		"body", string(batch.Body))
	s.atMost = 1 // there may be more of its kind
	return errors.Join(why, s.Outbox.Drop(batch.First))
}

// acknowledge records how far the control plane has come. One that knows more than this edge ever sent saw a disk that
// has since gone back in time: everything is then sent again under the next generation.
func (s *EventSender) acknowledge(ack *api.EventAck, batch outbox.Batch) error {
	err := s.Outbox.Ack(ack.Acknowledged)
	if errors.Is(err, outbox.ErrAhead) {
		s.Log.Error("control plane has events that this disk does not; starting a new generation", "acknowledged", ack.Acknowledged)
		return s.Outbox.StartGeneration(batch.Generation + 1)
	}
	return err
}
