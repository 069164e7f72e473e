package journal

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// openOrFail is openEngine, but for a disk that fails meanwhile: then the engine
// tries for ever to bring to the disk what it has read, and is left to the end
// of the process. It can change nothing any more.
func openOrFail(c Config, j *Journal) (*pebble.DB, error) {
	opened := make(chan *pebble.DB, 1) // which nobody may be there to take
	ended, err := j.orFail(func() error {
		db, err := openEngine(c, j)
		opened <- db
		return err
	})
	if !ended {
		return nil, err
	}
	db := <-opened
	if db != nil && j.Err() != nil {
		return nil, errors.Join(j.Err(), db.Close())
	}
	return db, err
}

// orFail waits until do ends, or until the journal fails and it does not end then.
func (j *Journal) orFail(do func() error) (ended bool, err error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return true, err
	case <-j.failed:
	}
	select {
	case err := <-done: // mostly it ends by itself
		return true, errors.Join(j.Err(), err)
	case <-time.After(j.retry):
		return false, j.Err()
	}
}

// engineFormat is pinned: an upgrade of the engine must not make the directory
// unreadable for the release before. This one tells a torn tail of the log from a
// hole in its middle.
const engineFormat = pebble.FormatWALSyncChunks

// openEngine opens pebble with every file operation behind the guard, and with
// tables and caches small enough for an edge of 128 MiB: with memory tables of 8
// MiB instead of 16 relayd has 66 MiB (PSS, 20 sessions) instead of 97, at the
// same CPU for each message; so have 4 MiB, and 8 tables in level 0 instead of 4,
// within the noise. Logs are written over older ones once there
// are any, so that a sync need not extend the file.
func openEngine(c Config, j *Journal) (db *pebble.DB, err error) {
	defer recoverAs(&err)
	scheduler, fs := &j.compactions, newGuard(j, c)
	if c.unmerged || hasDamaged(fs, c.Dir) { // none should meet the damage again before heal
		scheduler.hold()
		j.pressure.damage.Store(true)
	}
	options := &pebble.Options{
		FS:                          fs,
		Logger:                      engineLog{j},
		EventListener:               j.engineEvents(scheduler, fs),
		MemTableSize:                j.memtable,
		MemTableStopWritesThreshold: outOfReach,
		L0StopWritesThreshold:       outOfReach,
		CacheSize:                   8 << 20,
		MaxOpenFiles:                256,
		Merger:                      pebble.DefaultMerger, // concatenates: Batch.Append
		FormatMajorVersion:          engineFormat,
	}
	options.Experimental.SpanPolicyFunc = byFamily
	options.Experimental.CompactionScheduler = scheduler
	// Most of what is flushed is under way and does not come down to the next level.
	options.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	options.Levels[1].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression } // and below
	return pebble.Open(c.Dir, options)
}

var errPanic = errors.New("engine panic")

func recoverAs(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", errPanic, r)
	}
}

// byFamily makes every table hold keys of one family, those that begin with the
// same two bytes. A table that went from the newest body over the newest
// event to the newest envelope would cover all older events, and be merged with
// them for nothing: events are kept for a day, mail for a second.
func byFamily(key []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	if len(key) < 2 {
		return policy, append(bytes.Clone(key), 0), nil
	}
	if key[1] == 0xff {
		return policy, nil, nil // no family of this program
	}
	return policy, []byte{key[0], key[1] + 1}, nil
}

func (j *Journal) engineEvents(c *compactions, fs vfs.FS) *pebble.EventListener {
	l := &pebble.EventListener{
		BackgroundError: func(err error) {
			if !pebble.IsCorruptionError(err) { // else it is told below
				j.log.Warn("journal background work failed, will be repeated", "err", err)
			}
		},
		// The engine holds its mutex.
		CompactionEnd: func(info pebble.CompactionInfo) {
			if pebble.IsCorruptionError(info.Err) {
				j.log.Warn("tables of the journal not merged since one is damaged; the next try is in a minute", "err", info.Err)
				c.restNow()
				j.pressure.damage.Store(true)
			}
			j.pressure.fell()
		},
		// The default would be fatal. The reader of the damaged key gets
		// ErrCorrupt and decides; the other keys stay readable.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			j.bad.note(info.Path, info.Details)
			if _, told := j.damaged.LoadOrStore(info.Path, nil); told {
				return // every look at it says so again
			}
			j.metrics.damage.WithLabelValues("table").Inc()
			j.log.Error("a table of the journal is damaged: what is in the damaged place is lost, the rest can be read. "+
				"Look at the disk. The next start heals the journal", "path", info.Path, "err", info.Details)
			j.keepDamaged(fs, info.Path)
		},
	}
	j.pressure.watch(l)
	return l
}

// engineLog is the engine's logger. What it calls fatal fails the journal.
type engineLog struct{ j *Journal }

func (l engineLog) Infof(format string, args ...any) {
	l.j.log.Debug("journal engine", "text", fmt.Sprintf(format, args...))
}

func (l engineLog) Errorf(format string, args ...any) {
	l.j.log.Warn("journal engine", "text", fmt.Sprintf(format, args...))
}

func (l engineLog) Fatalf(format string, args ...any) {
	l.j.Fail(fmt.Errorf("engine: "+format, args...))
}

// gate counts the calls in progress so that Close can wait for them. Unlike a
// read lock it may be entered again by a goroutine that is inside.
type gate struct {
	mu     sync.Mutex
	empty  sync.Cond
	inside int
	closed bool
}

func (g *gate) init() { g.empty.L = &g.mu }

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	g.inside++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 {
		g.empty.Broadcast()
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for g.inside > 0 {
		g.empty.Wait()
	}
}
