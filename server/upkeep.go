package server

import (
	"context"
	"log/slog"
	"time"

	"activerelay/server/internal/httpapi"
	"activerelay/server/internal/store"
)

// Paces of upkeep. Documents that a wide change left for later are on their way to edges, so they follow soon.
const (
	republishEvery = time.Second
	forgetEvery    = time.Hour
)

// upkeep is what must be done beside the requests and the publisher. Every replica does it: each step is one short
// transaction that finds nothing when another one was first.
type upkeep struct {
	store *store.Store
	log   *slog.Logger
	now   func() time.Time

	forgotAt time.Time
}

// run does one round a second until ctx ends. Trouble is logged and tried again in the next.
func (u *upkeep) run(ctx context.Context) error {
	tick := time.NewTicker(republishEvery)
	defer tick.Stop()
	for {
		u.step(ctx, "publish documents left for later", u.republish)
		u.step(ctx, "forget results of old requests", u.forget)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (u *upkeep) step(ctx context.Context, name string, do func(context.Context) error) {
	if err := do(ctx); err != nil && ctx.Err() == nil {
		u.log.WarnContext(ctx, "upkeep", slog.String("step", name), slog.Any("error", err))
	}
}

// republish goes on until nothing is left, one transaction after the other, so that requests come in between.
func (u *upkeep) republish(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		err := u.store.Write(ctx, store.System(), func(tx *store.Tx) (err error) {
			more, err = tx.PublishPending()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forget removes kept results that no repetition of a request may be answered with any more.
func (u *upkeep) forget(ctx context.Context) error {
	now := u.now()
	if now.Sub(u.forgotAt) < forgetEvery {
		return nil
	}
	err := u.store.Write(ctx, store.System(), func(tx *store.Tx) error {
		_, err := tx.DeleteIdempotencyKeys(tx.Now.Add(-httpapi.IdempotencyWindow))
		return err
	})
	if err == nil {
		u.forgotAt = now
	}
	return err
}
