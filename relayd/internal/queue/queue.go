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

	"github.com/oklog/ulid/v2"
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
	// DestinationLimit bounds what one destination gets: host is a recipient
	// domain, or the host of the smarthost that its mail goes to. It is asked
	// before every attempt and must not block. nil means the defaults.
	DestinationLimit func(host string) DestinationLimit
	// Backlog is how many messages of one customer may wait for their first or
	// next attempt before Admit slows his sessions. 0 means 10,000. Mail for dead
	// destinations is not counted.
	Backlog int
	// NoticesPerHour is how many notifications the senders of one domain get in
	// an hour. 0 means 1,000. More are counted and logged, and not sent.
	NoticesPerHour int
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
	// PerCustomer is for one sender domain. 0 means a quarter of Attempts. The
	// more customers have mail, the fewer each may have; see lanes.
	PerCustomer int
}

func (c Config) withDefaults() Config {
	if c.Route == nil {
		c.Route = RouteByMX
	}
	if c.Log == nil {
		c.Log = maillog.New(maillog.Config{})
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
	fill(&c.Backlog, 10_000)
	fill(&c.NoticesPerHour, 1000)
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
	notices *notices
	wakeup  chan struct{}
	workers sync.WaitGroup
	ids     sync.Mutex // guards Entropy
	// operations lets operators act one after the other. It is taken before the
	// mu of an entry.
	operations sync.Mutex
	attempts   context.Context // of all attempts; set when Run begins

	mu      sync.Mutex
	entries map[ulid.ULID]*entry // every message that the queue knows
	due     dueHeap
	lanes   *lanes
	idle    []*worker
	held    int  // entries that rest
	running bool // attempts may be begun
	// settled are the messages that ended while the spool is still being read, or
	// a moment ago: what is read may be older, and what is handed over was perhaps
	// read before. nil from settledMemory after the reading on.
	settled map[ulid.ULID]struct{}
	read    bool // see Read
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
		Config: c, wakeup: make(chan struct{}, 1), entries: make(map[ulid.ULID]*entry), notices: newNotices(c.NoticesPerHour),
		settled: make(map[ulid.ULID]struct{}),
	}
	q.lanes = newLanes(c, q.wake)
	var err error
	if q.metrics, err = newMetrics(c.Metrics, q); err != nil {
		return nil, fmt.Errorf("new queue: %w", err)
	}
	return q, nil
}

// Add takes in a message that is in the spool, as it is there, and due now. It
// does not block. Nobody changes m afterwards. Adding a message again does
// nothing.
func (q *Queue) Add(m *spool.Message) {
	id, err := ulid.ParseStrict(m.ID)
	if err != nil {
		return // the spool takes no such message
	}
	e := &entry{id: id, message: m, index: -1}
	var p plan
	q.plan(&p, e, m, m.AcceptedAt)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.knows(id) {
		return
	}
	q.entries[id] = e
	q.place(&p, e, m)
	q.dispatch()
}

// knows reports whether a message is in the queue, or was since it began to
// work. Queue.mu is held.
func (q *Queue) knows(id ulid.ULID) bool {
	_, known := q.entries[id]
	_, settled := q.settled[id]
	return known || settled
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

// drop forgets e. Both mutexes are held.
func (q *Queue) drop(e *entry) {
	q.rest(e, false)
	q.due.remove(e)
	e.gone, e.message = true, nil
	if q.entries[e.id] == e {
		delete(q.entries, e.id)
	}
	if q.settled != nil {
		q.settled[e.id] = struct{}{}
	}
}

// Wake makes the queue look again at what is due now: for clocks that were set
// and for routes and limits that were changed. It is never needed for
// correctness.
func (q *Queue) Wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reconsider()
	q.dispatch()
	q.wake()
}

// wake makes the loop look again.
func (q *Queue) wake() {
	select {
	case q.wakeup <- struct{}{}:
	default:
	}
}

// Stats are the queue's figures at one moment.
type Stats struct {
	// Messages are all that the queue knows; Waiting are parts of messages
	// that are due and wait for a slot; Attempts are under way; Held are
	// messages that wait for an operator alone; Dead are destinations.
	Messages, Waiting, Attempts, Held, Dead int
}

// Stats returns the queue's figures.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{Messages: len(q.entries), Waiting: q.lanes.waiting, Attempts: q.lanes.flying, Held: q.held, Dead: q.lanes.dead}
}

// Read reports whether Run has read all that was in the spool when it began.
func (q *Queue) Read() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.read
}

// Run works on the queue until ctx ends, then lets the attempts under way
// finish for at most Drain and returns nil. When the journal fails it stops at
// once and returns why: an outcome that cannot be recorded must not be caused.
// Attempts begin while the spool is still being read. Run is called once.
func (q *Queue) Run(ctx context.Context) error {
	attempts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	q.mu.Lock()
	q.attempts, q.running = attempts, true
	q.dispatch()
	q.mu.Unlock()
	read := make(chan error, 1)
	reading, stopReading := context.WithCancel(ctx)
	q.workers.Go(func() { read <- q.load(reading) })
	err := q.loop(ctx, read)
	stopReading()
	q.end()
	stop := time.AfterFunc(q.Drain, cancel)
	defer stop.Stop()
	if err != nil {
		cancel()
	}
	q.workers.Wait()
	return err
}

// end lets nothing begin any more.
func (q *Queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running = false
	for _, w := range q.idle {
		close(w.units)
	}
	q.idle = nil
}
