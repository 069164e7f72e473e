// Package ledger knows how many messages this edge may still accept for each
// domain today: units that the control plane lent (granted), less those spent
// on messages and those given back (returned). The arithmetic is api/quota's;
// this package makes it durable, concurrent and honest about what it does not
// know. It does no network: the lease loop takes Report's call to the control
// plane and gives the reply to Apply.
//
// Three rules keep the fleet from accepting one message too many, whatever
// crashes:
//
//  1. A unit is spent in the batch that stores its message. The cumulative
//     count is written at the moment when the batch takes its place in the
//     journal (journal.Batch.Ordered), so on the disk it always equals the
//     units of the messages that are there, after kill -9 too. A lower count
//     can never overwrite a higher one.
//  2. Granted units are on the disk before the first is spent; returned units
//     are gone, on the disk, before the control plane hears of them.
//  3. What is reported as spent is durable. It never has to be taken back.
//
// What is not known is never a "limit reached": without units and without a
// fresh word of the control plane the answer is quota.Unavailable, a deferral.
//
// After a reboot of the machine the disk may be an older copy of itself, so
// old leases are not spent until the control plane has been reached once. When
// it then names another generation, all leases are void and a new life begins.
//
// Records:
//
//	'l' 'l' domain 0 day   lease: day, granted, returned, last figures (JSON)
//	'l' 's' domain 0 day   spent, cumulative (8 bytes)
//	'l' 'm'                generation, sequence, boot, offset of the clock (JSON)
package ledger

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"activerelay/relayd/internal/journal"

	"github.com/prometheus/client_golang/prometheus"
)

// Config wires the ledger. Journal, Now and BootID are required.
type Config struct {
	Journal *journal.Journal
	// Now is the local clock. Its monotonic reading, if it has one, carries
	// the control plane's time from one call to the next.
	Now func() time.Time
	// BootID names this boot of the kernel
	// (/proc/sys/kernel/random/boot_id).
	BootID string
	// Nonce names this start of relayd to the control plane. Empty: random.
	Nonce string
	// TrustAcrossBoots lets leases of an earlier boot be spent at once. Only
	// for edges whose disk cannot be set back.
	TrustAcrossBoots bool
	// Log receives what an operator must know. Nil discards.
	Log *slog.Logger
	// Metrics registers the ledger's figures. Nil registers nothing.
	Metrics prometheus.Registerer
}

// Ledger is an open ledger. Its methods may be called from any goroutine.
type Ledger struct {
	journal *journal.Journal
	bootID  string
	nonce   string
	log     *slog.Logger
	wanted  chan struct{}
	metrics *metrics

	// calls is held by Report, Apply and StartGeneration, which change what is
	// on the disk besides spending.
	calls    sync.Mutex
	inFlight *call

	// mu guards all below. It is taken inside the journal's order (rule 1),
	// so the journal is never called with it held.
	mu       sync.Mutex
	clock    clock
	meta     meta
	fenced   bool
	learning bool // the control plane was restored and wants to hear all counters
	// owed: no control plane has confirmed yet that it was told of every lease,
	// since this start or since it said that it was restored.
	owed     bool
	answered time.Time // the last reply, by the local clock
	accounts map[string]*account
	dirty    map[string]priority
	changed  chan struct{} // closed and replaced when units may have come
	waiting  int
}

// meta is the record 'l' 'm'.
type meta struct {
	Generation int64 `json:"generation"`
	// Sequence is that of the last call. It goes on over restarts: an edge that
	// repeats one was set back.
	Sequence int64         `json:"sequence"`
	BootID   string        `json:"boot_id"`
	Offset   time.Duration `json:"clock_offset_ns"`
}

// Open reads the leases back.
func Open(c Config) (*Ledger, error) {
	if c.Journal == nil || c.Now == nil || c.BootID == "" {
		return nil, errors.New("open ledger: a journal, a clock and a boot id are required")
	}
	if c.Nonce == "" {
		c.Nonce = rand.Text()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{
		journal: c.Journal, bootID: c.BootID, nonce: c.Nonce, log: c.Log,
		wanted: make(chan struct{}, 1), changed: make(chan struct{}),
		accounts: map[string]*account{}, dirty: map[string]priority{}, owed: true,
	}
	l.clock.local = c.Now
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.enterBoot(c.TrustAcrossBoots)
	var err error
	if l.metrics, err = newMetrics(c.Metrics, l); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return l, nil
}

// enterBoot decides whether what was read may be spent. The new boot's id is
// written only by Apply: being off the network for two boots fences both.
func (l *Ledger) enterBoot(trust bool) {
	sameBoot := l.meta.BootID == l.bootID
	if sameBoot {
		l.clock.offset = l.meta.Offset
	}
	l.fenced = !sameBoot && !trust && len(l.accounts) > 0
	if l.fenced {
		l.log.Warn("machine was restarted: leases wait for the control plane", "domains", len(l.accounts))
	}
	now := l.clock.now()
	for name, a := range l.accounts {
		a.restarted(now)
		l.mark(name, routine)
	}
}

// Generation is the edge's generation as the control plane last said.
func (l *Ledger) Generation() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meta.Generation
}

// Now is the time of the control plane as far as this edge knows it.
func (l *Ledger) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clock.now()
}

// clock is the control plane's clock, carried by the local one.
type clock struct {
	local  func() time.Time
	offset time.Duration // used until the first call
	// Once a call was answered: base is the control plane's time at mark.
	base, mark time.Time
}

func (c *clock) now() time.Time {
	if c.mark.IsZero() {
		return c.local().Add(c.offset)
	}
	return c.base.Add(c.local().Sub(c.mark))
}

// exactEnough is how long a call may take and still correct a clock that may be right.
const exactEnough = time.Second

// set takes now, said by the control plane between two local instants. They bound what
// is known of it: a slow call corrects only a clock that cannot be right.
func (c *clock) set(now, asked, answered time.Time) {
	took := answered.Sub(asked)
	if have := c.base.Add(answered.Sub(c.mark)); took > exactEnough && !c.mark.IsZero() && !have.Before(now) && !have.After(now.Add(took)) {
		return
	}
	c.base, c.mark = now, asked.Add(took/2)
	c.offset = c.base.Round(0).Sub(c.mark.Round(0)) // of the wall clocks
}
