package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/relayd/internal/journal"
)

// FeedbackSecret is the id of the key that seals the feedback ids of this edge's messages.
const FeedbackSecret = "feedback"

// Vault answers secrets by id. They are fetched once for each version and kept sealed in the journal under 'k' id.
type Vault struct {
	client  *client.ClientWithResponses
	journal *journal.Journal
	store   *Store

	mu     sync.Mutex
	opened map[string]openedSecret
}

type openedSecret struct {
	version int64
	plain   []byte
}

// NewVault answers a vault over the journal.
func NewVault(c *client.ClientWithResponses, j *journal.Journal, s *Store) *Vault {
	return &Vault{client: c, journal: j, store: s, opened: map[string]openedSecret{}}
}

// Secret answers a secret of at least the given version (0 = any): from memory, else from the disk, else from the control
// plane.
func (v *Vault) Secret(ctx context.Context, id string, version int64) ([]byte, error) {
	v.mu.Lock()
	have, ok := v.opened[id]
	v.mu.Unlock()
	if ok && have.version >= version {
		return have.plain, nil
	}
	sealed, err := v.kept(id)
	if err != nil {
		return nil, err
	}
	if sealed == nil || sealed.Version < version {
		if sealed, err = v.fetch(ctx, id, version); err != nil {
			return nil, err
		}
	}
	plain, err := v.store.open(sealed.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w", id, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.opened[id] = openedSecret{version: sealed.Version, plain: plain}
	return plain, nil
}

// SecretPatiently is Secret that waits for a control plane which cannot be reached, until ctx ends.
func (v *Vault) SecretPatiently(ctx context.Context, id string, log *slog.Logger) ([]byte, error) {
	var wait pause
	for {
		plain, err := v.Secret(ctx, id, 0)
		if err == nil || ctx.Err() != nil {
			return plain, err
		}
		log.WarnContext(ctx, "secret not fetched yet; trying again", "secret", id, "error", err)
		wait.sleep(ctx)
	}
}

func (v *Vault) kept(id string) (*api.SealedSecret, error) {
	data, err := v.journal.Get([]byte("k" + id))
	if errors.Is(err, journal.ErrNotFound) || errors.Is(err, journal.ErrCorrupt) {
		return nil, nil // it is fetched, and kept anew
	}
	if err != nil {
		return nil, fmt.Errorf("read secret %s: %w", id, err)
	}
	var sealed api.SealedSecret
	if err := json.Unmarshal(data, &sealed); err != nil {
		return nil, fmt.Errorf("read secret %s: %w", id, err)
	}
	return &sealed, nil
}

func (v *Vault) fetch(ctx context.Context, id string, version int64) (*api.SealedSecret, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := v.client.GetEdgeSecretsWithResponse(call, &api.GetEdgeSecretsParams{ID: []string{id}})
	if err != nil {
		return nil, fmt.Errorf("fetch secret %s: %w", id, err)
	}
	if reply.JSON200 == nil || len(reply.JSON200.Secrets) != 1 || reply.JSON200.Secrets[0].ID != id {
		return nil, fmt.Errorf("fetch secret %s: %w", id, errUnexpected(reply.Status()))
	}
	sealed := reply.JSON200.Secrets[0]
	if sealed.Version < version {
		return nil, fmt.Errorf("fetch secret %s: control plane has version %d, policy names %d", id, sealed.Version, version)
	}
	data, err := json.Marshal(sealed)
	if err != nil {
		return nil, fmt.Errorf("keep secret %s: %w", id, err)
	}
	batch := v.journal.NewBatch()
	batch.Set([]byte("k"+id), data)
	if err := v.journal.Commit(batch); err != nil {
		return nil, fmt.Errorf("keep secret %s: %w", id, err)
	}
	return &sealed, nil
}
