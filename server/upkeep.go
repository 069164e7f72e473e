package server

import (
	"context"
	"log/slog"
	"time"

	"activerelay/server/internal/httpapi"
	"activerelay/server/internal/store"
)

// Paces of upkeep. Documents that a wide change left for later are on their way to edges, so they follow soon. An expired
// override counts at its instant whatever the document says: the document is what the edge shows.
const (
	republishEvery = time.Second
	expireEvery    = time.Minute
	forgetEvery    = time.Hour
)

const (
	// decisionAge is how long the reference of a refusal can be looked up, as the contract says.
	decisionAge = 30 * 24 * time.Hour
	// queueOperationAge is how long it can be asked what became of an operation on the queue, as the contract says.
	queueOperationAge = 30 * 24 * time.Hour
	// staleQueueAge is how long something can wait untold before it is taken for lost: several times the longest wait between
	// two attempts, with room for an edge that cannot reach the control plane.
	staleQueueAge = 7 * 24 * time.Hour
	// forgetAtOnce bounds one transaction: strangers decide how many refusals there are.
	forgetAtOnce = 1000
)

// upkeep is what must be done beside the requests and the publisher. Every replica does it: each step is one short
// transaction that finds nothing when another one was first.
type upkeep struct {
	store *store.Store
	log   *slog.Logger
	now   func() time.Time

	expiredAt, forgotAt time.Time
}

// run does one round a second until ctx ends. Trouble is logged and tried again in the next.
func (u *upkeep) run(ctx context.Context) error {
	tick := time.NewTicker(republishEvery)
	defer tick.Stop()
	for {
		u.step(ctx, "publish documents left for later", u.republish)
		u.stepEvery(ctx, expireEvery, &u.expiredAt, "publish domains whose override expired", u.expire)
		u.stepEvery(ctx, forgetEvery, &u.forgotAt, "forget old results and decisions", u.forget)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// stepEvery does a step that was last done at the instant last, when it is time; one that failed is done again at once.
func (u *upkeep) stepEvery(ctx context.Context, every time.Duration, last *time.Time, name string, do func(context.Context) error) {
	now := u.now()
	if now.Sub(*last) >= every && u.step(ctx, name, do) {
		*last = now
	}
}

// step reports whether it went well.
func (u *upkeep) step(ctx context.Context, name string, do func(context.Context) error) bool {
	err := do(ctx)
	if err != nil && ctx.Err() == nil {
		u.log.WarnContext(ctx, "upkeep", slog.String("step", name), slog.Any("error", err))
	}
	return err == nil
}

// republish publishes what changes of settings and partners left for later.
func (u *upkeep) republish(ctx context.Context) error {
	return u.drain(ctx, (*store.Tx).PublishPending)
}

// expire tells edges the limits that hold again.
func (u *upkeep) expire(ctx context.Context) error { return u.drain(ctx, (*store.Tx).PublishExpired) }

// drain goes on until nothing is left, one transaction after the other, so that requests come in between.
func (u *upkeep) drain(ctx context.Context, some func(*store.Tx) (bool, error)) error {
	for more := true; more && ctx.Err() == nil; {
		err := u.store.Write(ctx, store.System(), func(tx *store.Tx) (err error) {
			more, err = some(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forget removes kept results that no repetition of a request may be answered with any more, and old decisions and operations on
// the queue.
func (u *upkeep) forget(ctx context.Context) error {
	err := u.store.Write(ctx, store.System(), func(tx *store.Tx) error {
		if _, err := tx.DeleteIdempotencyKeys(tx.Now.Add(-httpapi.IdempotencyWindow)); err != nil {
			return err
		}
		if _, err := tx.DeleteQueueOperations(tx.Now.Add(-queueOperationAge)); err != nil {
			return err
		}
		_, err := tx.DeleteStaleQueued(tx.Now.Add(-staleQueueAge))
		return err
	})
	if err != nil {
		return err
	}
	return u.drain(ctx, func(tx *store.Tx) (bool, error) {
		return tx.DeleteDecisions(tx.Now.Add(-decisionAge), forgetAtOnce)
	})
}
