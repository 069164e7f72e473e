package publish

import (
	"context"
	"errors"
	"maps"
	"sync"

	"activerelay/server/internal/store"
)

// sightings are what is known of edges from their calls. Each is kept in memory and all are written down together, so
// that a poll costs no write.
type sightings struct {
	mu sync.Mutex
	// latest is all that this process has seen, dirty what is not written down yet.
	latest, dirty map[string]store.EdgeSeen
	// passes are the revisions from which on edges miss no deletion: a pass from nothing misses none before it began.
	passes map[string]int64
}

// begin notes that an edge misses no deletion from a revision on.
func (p *Publisher) begin(edge string, revision int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passes[edge] = revision
}

// missed reports whether an edge may have missed a deletion whose tombstone is no more. Where a pass stands between two
// documents its cursor does not tell: a pass from nothing begins before all tombstones. Who is in the middle of one that
// this process did not see begin has missed none if it called within the life of a tombstone; one that gave way to another
// partner's document may have lived for a moment only.
func (p *Publisher) missed(ctx context.Context, edge string, after store.PolicyCursor, found *page) (bool, error) {
	horizon := max(found.horizon, found.moved)
	if after.Key == lastKey {
		p.begin(edge, after.Revision)
	}
	if after == (store.PolicyCursor{}) || after.Revision >= horizon {
		return false, nil
	}
	p.mu.Lock()
	from, known := p.passes[edge]
	p.mu.Unlock()
	if known || after.Revision < found.moved {
		return from < horizon, nil
	}
	var row store.Edge
	err := p.store.Read(ctx, store.System(), func(tx *store.Tx) (err error) {
		row, err = tx.Edge(edge)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	called := row.JoinedAt
	if row.LastSeenAt != nil {
		called = *row.LastSeenAt
	}
	return p.config.Now().Sub(called) >= TombstoneAge, err
}

// enforced notes what an edge enforces. A revision without a document in its scope is enforced by doing nothing.
func (p *Publisher) enforced(edge, epoch string, after store.PolicyCursor, found *page) {
	revision := after.Revision
	if found.count == 0 && !found.more {
		revision = max(revision, found.revision)
	} else if after.Key != lastKey {
		revision-- // its last page ended inside this revision, or it has just begun
	}
	p.see(edge, store.EdgeSeen{At: p.config.Now(), Epoch: epoch, Revision: max(revision, 0)})
}

// Seen notes that an edge called.
func (p *Publisher) Seen(edge string) { p.see(edge, store.EdgeSeen{At: p.config.Now()}) }

func (p *Publisher) see(edge string, seen store.EdgeSeen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seen.Epoch == "" {
		seen.Epoch, seen.Revision = p.latest[edge].Epoch, p.latest[edge].Revision
	}
	seen.Version, seen.Capability = p.latest[edge].Version, p.latest[edge].Capability
	p.latest[edge], p.dirty[edge] = seen, seen
}

// Runs notes what an edge runs; it is written down when the edge is next seen.
func (p *Publisher) Runs(edge, version string, capability int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.latest[edge]
	seen.Version, seen.Capability = version, capability
	p.latest[edge] = seen
}

// Sighting returns what this process has last seen of an edge; At is zero when it did not see it at all.
func (p *Publisher) Sighting(edge string) store.EdgeSeen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest[edge]
}

// flush writes down what is not written yet.
func (p *Publisher) flush(ctx context.Context) error {
	p.mu.Lock()
	dirty := p.dirty
	p.dirty = map[string]store.EdgeSeen{}
	p.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	err := p.store.Write(ctx, store.System(), func(tx *store.Tx) error { return tx.SaveSeen(dirty) })
	if err != nil {
		p.mu.Lock()
		maps.Copy(dirty, p.dirty) // what was seen meanwhile is newer
		p.dirty = dirty
		p.mu.Unlock()
	}
	return err
}
