package uplink

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"activerelay/api"
	"activerelay/api/client"

	"github.com/oklog/ulid/v2"
)

// RotateEvery is how old a credential gets before the edge replaces it.
const RotateEvery = 30 * 24 * time.Hour

// Rotator replaces the credential of the edge when it is old.
type Rotator struct {
	Client *client.ClientWithResponses
	Store  *Store
	Log    *slog.Logger
	Now    func() time.Time
}

// Run looks once an hour until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := r.rotateIfOld(ctx); err != nil {
			r.Log.WarnContext(ctx, "credential not rotated; the old one goes on", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Rotator) rotateIfOld(ctx context.Context) error {
	rotatedAt, err := time.Parse(time.RFC3339, r.Store.Identity().RotatedAt)
	if err == nil && r.Now().Sub(rotatedAt) < RotateEvery {
		return nil
	}
	id, err := ulid.New(ulid.Timestamp(r.Now()), rand.Reader)
	if err != nil {
		return fmt.Errorf("make idempotency key: %w", err)
	}
	key := id.String()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.Client.RotateEdgeCredentialWithResponse(call, &api.RotateEdgeCredentialParams{IdempotencyKey: &key})
	if err != nil {
		return err
	}
	if reply.JSON200 == nil || reply.JSON200.Credential == "" || reply.JSON200.EdgeID != r.Store.Identity().EdgeID {
		return errUnexpected(reply.Status())
	}
	return r.Store.replaceCredential(reply.JSON200.Credential, r.Now().UTC().Format(time.RFC3339))
}
