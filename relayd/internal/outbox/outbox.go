// Package outbox carries what happened at the edge to the control plane, at
// least once and in order. An event is written in the batch that makes it
// true, so there is no accepted message without its event and no event of a
// message that was not accepted.
//
// An event is encoded once, when it is appended, as it goes over the wire; a
// request's body is put together from those bytes, which nobody decodes here.
//
// Events are numbered from 1 without gaps. The number is given at the moment
// when the batch takes its place in the journal (journal.Batch.Ordered): a
// batch that is dropped before that used no number, one that fails after that
// fails with all that follow, and a crash keeps a prefix. An event is sent
// only once it is durable, or the number of an event that the control plane
// has seen could, after a crash, be given to another one.
//
// What the control plane has acknowledged is kept for another KeepFor, because
// it may be restored from a backup and ask again from an earlier number. What
// is older goes, and FirstKept in every batch says from where on the edge can
// still answer, so that a gap is recorded there and waited for by nobody.
//
// Records:
//
//	'o' 'e' number   one event: the JSON of the wire from behind its sequence on
//	'o' 'm'          state: generation, acknowledged, pruned, times
package outbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"

	"github.com/prometheus/client_golang/prometheus"
)

// KeepFor is how long an acknowledged event is kept, at least.
const KeepFor = 24 * time.Hour

// BatchBytes bounds the events of one batch as stored: with the sequences and
// the frame added it stays below the 1 MiB that the API takes.
const BatchBytes = 768 << 10

// ErrAhead means that the control plane acknowledged an event that this edge
// has not made yet: the edge's disk went back in time. It needs a new
// generation.
var ErrAhead = errors.New("control plane acknowledges events that were never sent")

// Config wires the outbox. Journal and Now are required.
type Config struct {
	Journal *journal.Journal
	Now     func() time.Time
	// Metrics registers the outbox's figures. Nil registers nothing.
	Metrics prometheus.Registerer
}

// Outbox is an open outbox. Its methods may be called from any goroutine.
type Outbox struct {
	journal *journal.Journal
	now     func() time.Time
	wake    chan struct{}
	dropped prometheus.Counter
	texts   sync.Pool // of *[]byte, for events on their way into a batch

	mu       sync.Mutex
	state    state
	assigned int64 // the last number given
	durable  int64 // the last number known to be on the disk
	sent     int64 // the last number that this process, or one before it, may have sent

	stateMu sync.Mutex // one writer of the state record at a time
}

// state is the record 'o' 'm'.
type state struct {
	Generation int64 `json:"generation"`
	// Acknowledged is the last event that the control plane has, Pruned the
	// last that the edge has no more. Pruned <= Acknowledged.
	Acknowledged int64  `json:"acknowledged"`
	Pruned       int64  `json:"pruned"`
	Marks        []mark `json:"marks,omitempty"`
}

// mark says that all events up to Sequence were acknowledged before Until.
type mark struct {
	Sequence int64     `json:"sequence"`
	Until    time.Time `json:"until"`
}

// markEvery is the grain of marks: at most 24 h / markEvery + 1 of them exist.
const markEvery = 30 * time.Minute

var (
	stateKey    = []byte("om")
	eventPrefix = []byte("oe")
)

// eventBytes is what an event takes, most often.
const eventBytes = 480

func eventKey(n int64) []byte {
	return binary.BigEndian.AppendUint64([]byte("oe"), uint64(n))
}

// Open reads where numbering stands.
func Open(c Config) (*Outbox, error) {
	if c.Journal == nil || c.Now == nil {
		return nil, errors.New("open outbox: a journal and a clock are required")
	}
	o := &Outbox{journal: c.Journal, now: c.Now, wake: make(chan struct{}, 1)}
	o.texts.New = func() any { return new(make([]byte, 0, eventBytes)) }
	if err := o.load(); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	if o.assigned > o.state.Acknowledged {
		o.signal()
	}
	o.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "relayd_outbox_dropped_total",
		Help: "Events that the control plane refused for good, and that are lost.",
	})
	if c.Metrics != nil {
		gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "relayd_outbox_backlog",
			Help: "Events that the control plane has not acknowledged yet.",
		}, func() float64 { return float64(o.Backlog()) })
		if err := errors.Join(c.Metrics.Register(gauge), c.Metrics.Register(o.dropped)); err != nil {
			return nil, fmt.Errorf("open outbox: %w", err)
		}
	}
	return o, nil
}

// load reads the state. Without it, or without the last number, which a damaged log
// may have lost too, what is new could be taken for what was told before: a new
// generation begins. Of an unreadable
// state the generation is not known either, but the control plane knows it.
func (o *Outbox) load() error {
	damaged := o.journal.ChangesLost()
	record, err := o.journal.Get(stateKey)
	if errors.Is(err, journal.ErrCorrupt) {
		damaged = true
	} else if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	if err == nil {
		if err := json.Unmarshal(record, &o.state); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	// The last event may be gone: see Drop.
	o.assigned = max(o.state.Pruned, o.state.Acknowledged)
	last, err := o.journal.Last(eventPrefix)
	if err == nil {
		o.assigned = max(o.assigned, int64(binary.BigEndian.Uint64(last[len(eventPrefix):])))
	} else if errors.Is(err, journal.ErrCorrupt) {
		damaged = true
		o.assigned = max(o.assigned, o.lastReadable())
	} else if !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	// Recovery has put all that it found on the disk again, and how much of it
	// the last process sent is not known.
	o.durable, o.sent = o.assigned, o.assigned
	if damaged {
		return o.StartGeneration(o.state.Generation + 1)
	}
	return nil
}

// lastReadable is the last event before or behind damage, 0 if there is none.
func (o *Outbox) lastReadable() (last int64) {
	_ = o.journal.ScanAround(eventKey(0), eventKey(math.MaxInt64), func(key, _ []byte) error {
		last = int64(binary.BigEndian.Uint64(key[len(eventPrefix):]))
		return nil
	}, func([]byte, []byte, error) error { return nil })
	return last
}

// Append adds e to b. Its number is given when b is committed; e.Sequence is
// ignored.
func (o *Outbox) Append(b *journal.Batch, e api.EdgeEvent) error {
	text, _ := o.texts.Get().(*[]byte)
	var err error
	if *text, err = appendEvent((*text)[:0], &e); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	b.Ordered(func(b *journal.Batch) {
		o.mu.Lock()
		o.assigned++
		n := o.assigned
		o.mu.Unlock()
		b.Set(eventKey(n), *text)
		o.texts.Put(text)
		// Not once durable: an event of a lazy batch would wait for somebody
		// else's sync. Next makes its own.
		o.signal()
	})
	return nil
}

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Wake receives a value when there may be something new to send. One value can
// stand for many events.
func (o *Outbox) Wake() <-chan struct{} { return o.wake }

// Backlog is how many events wait to be acknowledged.
func (o *Outbox) Backlog() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.assigned - o.state.Acknowledged
}

// Generation is the generation in which events are sent.
func (o *Outbox) Generation() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Generation
}
