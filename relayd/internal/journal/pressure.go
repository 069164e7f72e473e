package journal

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// The engine makes writers wait when it cannot bring its tables to the disk as
// fast as they come, and it does so with its locks held and with no end if the
// disk has failed. So its own brake is set out of reach, and this one stands
// before the log: committers wait here, where a failure and Close wake them.
const (
	maxMemtables = 4 // full ones; the engine begins with small ones
	maxSublevels = 20

	outOfReach = 1000
)

// pressure knows whether committers have to wait.
type pressure struct {
	check   atomic.Bool // something happened that may have raised it
	damage  atomic.Bool // a compaction has met a damaged table
	mu      sync.Mutex
	changed chan struct{} // closed and replaced when it may have fallen
}

func (p *pressure) init() { p.changed = make(chan struct{}) }

// rose makes the next committer look.
func (p *pressure) rose() { p.check.Store(true) }

// fell lets those who wait look again.
func (p *pressure) fell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pressure) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// admit waits until the engine can take another batch.
func (j *Journal) admit() error {
	for j.pressure.check.Load() {
		changed := j.pressure.next()
		j.pressure.check.Store(false)
		m := j.db.Metrics()
		// Where damage ends every compaction, waiting for one would be for ever.
		if m.MemTable.Size <= maxMemtables*j.memtable && (m.Levels[0].Sublevels <= maxSublevels || j.pressure.damage.Load()) {
			return nil
		}
		j.pressure.rose()
		select {
		case <-changed:
		case <-j.failed:
			return j.Err()
		case <-j.closing:
			return ErrClosed
		}
	}
	return nil
}

// watch adds to l what moves the pressure. The engine calls these functions
// with its locks held.
func (p *pressure) watch(l *pebble.EventListener) {
	l.WALCreated = func(pebble.WALCreateInfo) { p.rose() }
	l.FlushEnd = func(pebble.FlushInfo) {
		p.rose()
		p.fell()
	}
}
