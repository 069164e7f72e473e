package instruct

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
)

// progressKey holds how far a queue operation is that takes more than one batch; it is there only while one is under way.
var progressKey = []byte("ip")

// progress is what the batches so far have changed, of the instruction with a number.
type progress struct {
	Number int64       `json:"number"`
	Tally  queue.Tally `json:"tally"`
}

// actions are the kinds that act on the queue.
func actions() map[api.InstructionKind]queue.Action {
	return map[api.InstructionKind]queue.Action{
		api.InstructionKindQueueRetry: queue.Retry, api.InstructionKindQueueHold: queue.Hold,
		api.InstructionKindQueueRelease: queue.Release, api.InstructionKindQueueCancel: queue.Cancel,
	}
}

// operate acts on the queue. Each of its batches says how far it is; the last one bears the instruction's number, and the event
// that tells the control plane what came of it.
func (r *Runner) operate(ctx context.Context, number int64, action queue.Action, about api.QueueInstruction) error {
	sofar, err := r.progress(number)
	if err != nil {
		return err
	}
	op := queue.Operation{ID: about.OperationID, Action: action, Reason: text(about.Reason), Selection: queue.Selection{
		Messages: about.MessageIDs, Partner: text(about.Partner), Domain: text(about.Domain),
		Destination: text(about.Destination), Sender: text(about.Sender),
	}}
	return r.config.Operate(ctx, op, sofar, func(b *journal.Batch, t queue.Tally, done bool) error {
		if !done {
			record, err := json.Marshal(progress{Number: number, Tally: t})
			if err != nil {
				return err
			}
			b.Set(progressKey, record)
			return nil
		}
		b.Set(doneKey, numberValue(number))
		b.Delete(progressKey)
		return r.config.Outbox.Append(b, api.EdgeEvent{
			Time: r.config.Now().UTC(), Kind: api.EdgeEventKindQueueOperationDone, Ref: &about.OperationID,
			Messages: &t.Messages, Recipients: &t.Recipients,
		})
	})
}

// progress is what the last process had changed of an instruction.
func (r *Runner) progress(number int64) (queue.Tally, error) {
	record, err := r.config.Journal.Get(progressKey)
	if errors.Is(err, journal.ErrNotFound) || errors.Is(err, journal.ErrCorrupt) {
		return queue.Tally{}, nil // what was done already changes nothing when it is done again
	}
	var p progress
	if err == nil {
		err = json.Unmarshal(record, &p)
	}
	if err != nil {
		return queue.Tally{}, fmt.Errorf("read progress: %w", err)
	}
	if p.Number != number {
		return queue.Tally{}, nil
	}
	return p.Tally, nil
}

func text(value *string) string {
	if value == nil {
		return ""
	}
	return *value
}
