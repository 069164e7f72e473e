package tlspolicy

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"activerelay/relayd/internal/journal"
)

// Records of the journal:
//
//	't' 's' domain   the MTA-STS policy that was fetched last (JSON)
//	't' 'r' domain   that the domain's servers took TLS (JSON)
//
// Both are written without waiting for the disk. What a crash takes away is
// learnt again with the next message; what had time to settle is kept.

const (
	kindPolicy  = "ts"
	kindSeenTLS = "tr"
)

const (
	// noteAgainAfter spares the journal a write for every message.
	noteAgainAfter = 24 * time.Hour
	sweepEvery     = 24 * time.Hour
)

// MemoryConfig is what a Memory needs. Journal is required.
type MemoryConfig struct {
	Journal *journal.Journal
	// RememberTLS is for how long a domain that took TLS is not sent mail in
	// plain text. 0 remembers nothing.
	RememberTLS time.Duration
	// Log gets what an operator must know. nil means nowhere.
	Log *slog.Logger
	// Now is the clock. nil means time.Now.
	Now func() time.Time
}

// Memory is what is known about destinations from before. It is safe for many
// goroutines.
type Memory struct {
	journal  *journal.Journal
	remember time.Duration
	log      *slog.Logger
	now      func() time.Time
	swept    atomic.Int64 // when, in Unix seconds
}

// OpenMemory reads nothing in advance: destinations are looked up as they come.
func OpenMemory(c MemoryConfig) (*Memory, error) {
	if c.Journal == nil {
		return nil, errors.New("open TLS memory: no journal given")
	}
	m := &Memory{journal: c.Journal, remember: c.RememberTLS, log: c.Log, now: c.Now}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.now == nil {
		m.now = time.Now
	}
	return m, m.sweep(m.now())
}

// seen is a domain that took TLS.
type seen struct {
	Last    time.Time `json:"last"`
	Expires time.Time `json:"expires"`
}

// NoteTLS remembers that mail for domain went over TLS.
func (m *Memory) NoteTLS(domain string) error {
	if m.remember <= 0 {
		return nil
	}
	now := m.now()
	var before seen
	known, err := m.get(kindSeenTLS, domain, &before)
	if err != nil {
		return err
	}
	if known && now.Sub(before.Last) < noteAgainAfter {
		return nil
	}
	return m.put(kindSeenTLS, domain, seen{Last: now.UTC(), Expires: now.Add(m.remember).UTC()})
}

// TookTLS returns when mail for domain last went over TLS, as far as it is not
// too long ago to count.
func (m *Memory) TookTLS(domain string) (last time.Time, ok bool, err error) {
	if m.remember <= 0 {
		return time.Time{}, false, nil
	}
	var before seen
	known, err := m.get(kindSeenTLS, domain, &before)
	// The setting may have been made shorter since.
	now := m.now()
	ok = known && now.Before(before.Expires) && now.Before(before.Last.Add(m.remember+noteAgainAfter))
	return before.Last, ok, err
}

// policy returns the domain's policy that was fetched last, if it has not
// expired.
func (m *Memory) policy(domain string) (Policy, bool, error) {
	var p Policy
	known, err := m.get(kindPolicy, domain, &p)
	if !known || err != nil || !m.now().Before(p.Expires) {
		return Policy{}, false, err
	}
	return p, true, nil
}

func (m *Memory) keepPolicy(domain string, p Policy) error { return m.put(kindPolicy, domain, p) }

func key(kind, domain string) []byte { return []byte(kind + canonical(domain)) }

// get reads a record. One that cannot be read any more is reported and taken
// for none: it is learnt again.
func (m *Memory) get(kind, domain string, into any) (bool, error) {
	value, err := m.journal.Get(key(kind, domain))
	if errors.Is(err, journal.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(value, into)
	} else if !errors.Is(err, journal.ErrCorrupt) {
		return false, fmt.Errorf("read TLS memory of %s: %w", domain, err)
	}
	if err != nil {
		m.log.Error("what is remembered about a destination cannot be read, and is learnt again", "domain", domain, "error", err)
		return false, nil
	}
	return true, nil
}

func (m *Memory) put(kind, domain string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode TLS memory of %s: %w", domain, err)
	}
	batch := m.journal.NewBatch()
	defer batch.Discard()
	batch.Set(key(kind, domain), value)
	if err := m.journal.CommitLazy(batch); err != nil {
		return fmt.Errorf("write TLS memory of %s: %w", domain, err)
	}
	now := m.now()
	if last := m.swept.Load(); now.Unix()-last > int64(sweepEvery/time.Second) && m.swept.CompareAndSwap(last, now.Unix()) {
		return m.sweep(now)
	}
	return nil
}

// sweep drops what has expired, so that the memory holds no more than the
// destinations of its time.
func (m *Memory) sweep(now time.Time) error {
	m.swept.Store(now.Unix())
	batch := m.journal.NewBatch()
	defer batch.Discard()
	err := m.journal.Scan([]byte(kindPolicy[:1]), func(key, value []byte) error {
		var record struct{ Expires time.Time }
		if json.Unmarshal(value, &record) != nil || !now.Before(record.Expires) {
			batch.Delete(key)
		}
		return nil
	})
	if err == nil && batch.Len() > 0 {
		err = m.journal.CommitLazy(batch)
	}
	if err != nil {
		return fmt.Errorf("sweep TLS memory: %w", err)
	}
	return nil
}
