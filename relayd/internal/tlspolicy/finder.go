package tlspolicy

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// refreshAfter is when a policy is fetched again though its record says
	// that it is the same: so that it does not expire while it is in use
	// (RFC 8461 10.2).
	refreshAfter = 24 * time.Hour
	// retryAfter is how long a policy host or a lookup that failed is left
	// alone (RFC 8461 3.3): mail does not wait for it again and again.
	retryAfter = 5 * time.Minute
	// maxFailures bounds how many of those are remembered.
	maxFailures = 10_000
)

// FinderConfig is what a Finder needs. Memory, TXT and Fetcher are required.
type FinderConfig struct {
	Memory *Memory
	// TXT returns the TXT records of a name, each joined to one text.
	TXT func(ctx context.Context, name string) ([]string, error)
	// Fetcher fetches what the record announces.
	Fetcher Fetcher
	// Log gets what went wrong. nil means nowhere.
	Log *slog.Logger
}

// Finder says which MTA-STS policy of a domain is in force. It is safe for
// many goroutines.
type Finder struct {
	FinderConfig
	fetches singleflight.Group

	mu     sync.Mutex
	failed map[string]time.Time
}

// NewFinder returns a Finder.
func NewFinder(c FinderConfig) *Finder {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Finder{FinderConfig: c, failed: make(map[string]time.Time)}
}

// Policy returns the policy of domain, or the zero Policy when it has none. A
// policy that was found once holds until it expires, whatever became of its
// record or its host meanwhile: whoever can suppress those could otherwise
// suppress the policy (RFC 8461 3.3). The error is one of the memory.
func (f *Finder) Policy(ctx context.Context, domain string) (Policy, error) {
	domain = canonical(domain)
	kept, _, err := f.Memory.policy(domain)
	if err != nil {
		return Policy{}, err
	}
	now := f.Memory.now()
	if f.failedLately(domain, now) {
		return kept, nil
	}
	txt, err := f.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		if ctx.Err() == nil {
			f.noteFailure(domain)
		}
		return kept, nil
	}
	id, err := recordID(txt)
	if err != nil || id == kept.ID && now.Sub(kept.Fetched) < refreshAfter {
		return kept, nil
	}
	found, err, _ := f.fetches.Do(domain+" "+id, func() (any, error) { return f.fetch(ctx, domain, id) })
	if err != nil {
		f.Log.Warn("MTA-STS policy not to be had", "domain", domain, "id", id, "in_force", string(kept.Mode), "error", err)
		return kept, nil
	}
	fresh := found.(Policy)
	return fresh, f.Memory.keepPolicy(domain, fresh)
}

func (f *Finder) fetch(ctx context.Context, domain, id string) (Policy, error) {
	text, err := f.Fetcher.fetch(ctx, domain)
	var p Policy
	if err == nil {
		p, err = parsePolicy(text, id, f.Memory.now().UTC())
	}
	if err != nil && ctx.Err() == nil {
		f.noteFailure(domain)
	}
	return p, err
}

func (f *Finder) failedLately(domain string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.failed[domain]
	if ok && now.Sub(at) >= retryAfter {
		delete(f.failed, domain)
		return false
	}
	return ok
}

func (f *Finder) noteFailure(domain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.failed) >= maxFailures {
		clear(f.failed)
	}
	f.failed[domain] = f.Memory.now()
}
