package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/spool"

	"github.com/prometheus/client_golang/prometheus"
)

// Config wires the queue. Spool, Journal, Courier, Note, Hostname, Now and
// Entropy are required.
type Config struct {
	Spool   *spool.Spool
	Journal *journal.Journal
	Courier Courier
	// Note writes an event into a batch.
	Note func(*journal.Batch, api.EdgeEvent) error
	// Route says where mail goes. nil means always by MX.
	Route Router
	// Log is the mail log. nil discards.
	Log *maillog.Log
	// Hostname names this relay in notifications.
	Hostname string
	Now      func() time.Time
	// Random returns values in [0, 1) for the jitter of Backoff. nil means a
	// source of the queue's own.
	Random func() float64
	// Backoff is the wait after an attempt; see the function Backoff, which is
	// the default.
	Backoff func(attempt int, random float64) time.Duration
	// Entropy makes the ids of notifications.
	Entropy io.Reader
	Limits  Limits
	// Lifetime is how long a message is tried. 0 means 5 days (RFC 5321
	// 4.5.4.1). A last attempt is made when it ends.
	Lifetime time.Duration
	// WarnAfter is when a sender is told, once, that his message is late.
	// 0 means 4 hours; negative means never.
	WarnAfter time.Duration
	// Drain is how long attempts under way may go on after Run's context has
	// ended. 0 means 25 s.
	Drain time.Duration
	// Metrics registers the queue's figures. nil registers nothing.
	Metrics prometheus.Registerer
}

// Limits bound how many attempts are under way at once.
type Limits struct {
	// Attempts is for all together. 0 means 400.
	Attempts int
	// PerDestination is for one smarthost or recipient domain. 0 means 20.
	PerDestination int
	// PerCustomer is for one sender domain. 0 means a quarter of Attempts.
	PerCustomer int
}

func (c Config) withDefaults() Config {
	if c.Route == nil {
		c.Route = RouteByMX
	}
	if c.Log == nil {
		c.Log = maillog.New(nil)
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	if c.Backoff == nil {
		c.Backoff = Backoff
	}
	fill(&c.Lifetime, 5*24*time.Hour)
	fill(&c.WarnAfter, 4*time.Hour)
	fill(&c.Drain, 25*time.Second)
	fill(&c.Limits.Attempts, 400)
	fill(&c.Limits.PerDestination, 20)
	fill(&c.Limits.PerCustomer, max(1, c.Limits.Attempts/4))
	return c
}

func fill[T comparable](value *T, byDefault T) {
	var zero T
	if *value == zero {
		*value = byDefault
	}
}

// Queue is the queue of one edge. Its methods may be called from any goroutine.
type Queue struct {
	Config
	metrics *metrics
	wake    chan struct{}
	workers sync.WaitGroup
	ids     sync.Mutex // guards Entropy
	// operations lets operators act one after the other. It is taken before the
	// mu of an entry.
	operations sync.Mutex

	mu      sync.Mutex
	entries map[string]*entry // every message that the queue knows
	due     dueHeap
	lanes   *lanes
	held    int  // entries that rest
	closed  bool // nothing new is started
}

// entry is one message in the queue's memory. What it lacks is in the spool.
type entry struct {
	id string

	// Guarded by Queue.mu.
	due    time.Time
	index  int              // in the heap; -1 when not there
	rests  bool             // all recipients that wait are held
	busy   map[int]struct{} // recipients that wait in lanes or are under way
	flying int              // units under way
	panics int

	// mu serialises changes of the envelope. It is taken before Queue.mu.
	mu      sync.Mutex
	message *spool.Message // nil unless needed soon
}

// New checks the configuration. Messages are read when Run begins.
func New(c Config) (*Queue, error) {
	if c.Spool == nil || c.Journal == nil || c.Courier == nil || c.Note == nil {
		return nil, errors.New("new queue: a spool, a journal, a courier and a note are required")
	}
	if c.Hostname == "" || c.Now == nil || c.Entropy == nil {
		return nil, errors.New("new queue: a host name, a clock and a source of ids are required")
	}
	c = c.withDefaults()
	q := &Queue{
		Config: c, wake: make(chan struct{}, 1), entries: make(map[string]*entry), lanes: newLanes(c.Limits),
	}
	var err error
	if q.metrics, err = newMetrics(c.Metrics, q); err != nil {
		return nil, fmt.Errorf("new queue: %w", err)
	}
	return q, nil
}

// Add takes in a message that is in the spool, as it is there, and due now. It
// does not block. Nobody changes m afterwards. Adding a message again does
// nothing.
func (q *Queue) Add(m *spool.Message) { q.add(m.ID, m, q.Now(), false) }

// add takes in the message id; m may be nil.
func (q *Queue) add(id string, m *spool.Message, due time.Time, held bool) {
	q.mu.Lock()
	if _, known := q.entries[id]; !known {
		e := &entry{id: id, due: due, index: -1}
		if q.lanes.waiting < keepEnvelopes && q.due.Len() < keepEnvelopes {
			e.message = m
		}
		q.entries[id] = e
		q.rest(e, held)
		if !held {
			q.due.push(e)
		}
	}
	q.mu.Unlock()
	q.Wake()
}

// rest keeps account of messages that wait for an operator alone. Queue.mu is
// held.
func (q *Queue) rest(e *entry, rests bool) {
	switch {
	case rests && !e.rests:
		q.held++
	case !rests && e.rests:
		q.held--
	}
	e.rests = rests
}

// drop forgets e. Queue.mu is held.
func (q *Queue) drop(e *entry) {
	q.rest(e, false)
	q.due.remove(e)
	if q.entries[e.id] == e {
		delete(q.entries, e.id)
	}
}

// Wake makes the queue look again at what is due now: for clocks that were set
// and for routes that were changed. It is never needed for correctness.
func (q *Queue) Wake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Stats are the queue's figures at one moment.
type Stats struct {
	// Messages are all that the queue knows; Waiting are parts of messages
	// that are due and wait for a slot; Attempts are under way; Held are
	// messages that wait for an operator alone.
	Messages, Waiting, Attempts, Held int
}

// Stats returns the queue's figures.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{Messages: len(q.entries), Waiting: q.lanes.waiting, Attempts: q.lanes.flying, Held: q.held}
}

// maxSleep bounds how long a clock that was set goes unnoticed.
const maxSleep = time.Minute

// Run works on the queue until ctx ends, then lets the attempts under way
// finish for at most Drain and returns nil. When the journal fails it stops at
// once and returns why: an outcome that cannot be recorded must not be caused.
// Run is called once.
func (q *Queue) Run(ctx context.Context) error {
	attempts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := q.load(ctx); err != nil {
		return fmt.Errorf("read the queue: %w", err)
	}
	err := q.loop(ctx, attempts)
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	stop := time.AfterFunc(q.Drain, cancel)
	defer stop.Stop()
	if err != nil {
		cancel()
	}
	q.workers.Wait()
	return err
}

func (q *Queue) loop(ctx, attempts context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		q.promote(ctx)
		q.dispatch(attempts)
		timer.Reset(q.untilDue())
		select {
		case <-ctx.Done():
			return nil
		case <-q.Journal.Failed():
			return fmt.Errorf("queue stopped: %w", q.Journal.Err())
		case <-q.wake:
		case <-timer.C:
		}
	}
}

// load builds the index from the spool.
func (q *Queue) load(ctx context.Context) error {
	return q.Spool.Each(func(m *spool.Message) error {
		if err := ctx.Err(); err != nil {
			return nil // Run notices
		}
		due, found := q.firstDue(m, nil)
		q.add(m.ID, nil, due, !found)
		return nil
	})
}

// untilDue is how long the loop may sleep.
func (q *Queue) untilDue() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.due.Len() == 0 {
		return maxSleep
	}
	return min(maxSleep, max(0, q.due.first().due.Sub(q.Now())))
}
