// Package journal is the edge's one durable store: a set of keys, changed by
// atomic batches, on one disk directory that one process owns.
//
// Everything that the edge must not forget goes through here, because
// "quota spent, message stored, event noted" is one fact and so must be one
// batch. The packages above (spool, ledger, outbox, policysync) each add
// their part to a Batch; the caller commits it once.
//
// What a nil error from Commit means: the batch is on the disk, whole, and
// survives kill -9 and a power cut. Sessions that commit at the same time share
// one sync of the log (see group; nobody waits for a timer). Batches enter the
// log one after the other, and what a crash leaves is always a prefix of that
// order. Two things follow which others build on:
//
//   - Batch.Ordered runs a function at the moment the batch takes its place in
//     the order. Whatever it numbers or counts cannot have gaps, cannot run
//     backwards on the disk, and needs no undo: after that moment a batch
//     fails only together with the whole journal.
//   - A lazy batch (CommitLazy) is durable as soon as any later synced one is.
//
// What an error means: a disk that has failed one sync has told us that it may
// have dropped data it had promised to keep, and asking again can return
// success without the data (the kernel marks the pages clean). So the first
// failed sync is final. From then on Err is set, every commit is refused, and
// guard.go lets nothing at all change the files, until a new process reads
// back what is really there.
//
// Keys: the first byte of a key names its owner, but for "id".
//
//	0x00  journal itself (format version)
//	'i'   instruct; "id" is relayd's: the edge that the journal belongs to
//	'k'   uplink (sealed secrets)
//	'l'   ledger
//	'o'   outbox
//	'p'   policysync
//	's'   spool
//	't'   tlspolicy
//
// What has been damaged on the disk is found by checksums, told (log and
// relayd_journal_damage_total), and read around: mend.go for the logs, ScanAround
// for the tables. Whoever counts must begin anew where a log has lost a change:
// ChangesLost. Copies of what is damaged are in Dir/damaged. The next Open cuts a
// damaged table out (heal.go), and what cannot be told since then stays ErrCorrupt
// until its owner writes it anew (lost.go).
//
// # The engine
//
// The engine is pebble; no other package knows. It was chosen by measurement
// (2 cores, messages of 5 KiB): at 20 writers it stores 50,000 messages a second
// at 0.02 CPU s for 1,000, with 0.11 flushes for each; SQLite 12,000 at 0.13,
// bbolt 12,000 at 0.03, a file for each message 7,000 at 0.20. An own log of
// recycled segments would do 89,000 at 0.01, without recovery, index or
// compaction. Under the whole relay pebble's own part is 8 % of the CPU, 5 of them
// system calls that any log needs, so an own engine could win 3 % at most, and
// would lose recovery code that many have tested. What the engine lacks
// is here: the group commit (group.go), the behaviour on failed disks (guard.go,
// pressure.go), the finding of damage in the log (mend.go), reading around it in
// tables (around.go), the getting rid of it (heal.go), a rest after a merge that met
// it (compactions.go), and logs laid out before they are written (ahead.go).
package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Sentinels. Test with errors.Is; the text around them names the directory or
// the key.
var (
	// ErrNotFound is Get's answer for a key that was never set, or deleted.
	ErrNotFound = errors.New("key not found")
	// ErrLocked means that another process (or another Journal of this one)
	// has the directory open.
	ErrLocked = errors.New("journal is in use")
	// ErrFailed is in the chain of every error after the first failed sync.
	// A retry in this process cannot succeed.
	ErrFailed = errors.New("journal has failed")
	// ErrClosed is the answer of every method after Close.
	ErrClosed = errors.New("journal is closed")
	// ErrCorrupt means that what was read is not what was written.
	ErrCorrupt = errors.New("journal data is corrupt")
	// ErrFormat means that the directory was written by a newer release.
	ErrFormat = errors.New("journal format is unknown")
	// ErrStop ends a Scan early; Scan then returns nil.
	ErrStop = errors.New("stop scanning")
)

// Config says where the journal lives. Only Dir is required.
type Config struct {
	// Dir is the directory of the store; made with mode 0700 when missing. It
	// belongs to the journal alone.
	Dir string
	// Log receives what an operator must know. Nil discards.
	Log *slog.Logger
	// Metrics registers the journal's own figures. Nil registers nothing.
	Metrics prometheus.Registerer
	// MemtableBytes bounds one in-memory table; two exist under load, up to four
	// while the disk cannot keep up. 0 means 8 MiB.
	MemtableBytes int
	// Faults, when set, is asked before every operation that changes a file
	// and can make it fail: op is one of "create", "write", "sync", "syncdir",
	// "rename", "remove". It exists for fault tests; nil in production.
	Faults func(op, path string) error

	fs       vfs.FS        // tests of power loss; nil is the real file system
	upgrades []upgrade     // tests of upgrades; nil is upgrades()
	unmerged bool          // tests of damage: no table is merged
	retry    time.Duration // tests of many failures; 0 is retryPause
}

// Journal is an open store. Its methods may be called from any goroutine.
type Journal struct {
	log     *slog.Logger
	db      *pebble.DB
	opened  atomic.Bool // db can be used
	lock    *os.File
	gate    gate
	metrics *metrics

	memtable    uint64 // bytes
	retry       time.Duration
	pressure    pressure
	compactions compactions

	damaged sync.Map // paths of tables that were reported
	bad     badBlocks
	lost    bool // there are marks over lost keys: see lost.go

	dir         string
	fs          vfs.FS      // behind a guard
	changesLost atomic.Bool // see mend.go

	failure atomic.Pointer[error]
	failed  chan struct{}
	closing chan struct{}

	order   sync.Mutex // held while a batch takes its place in the log
	ordinal uint64     // place of the last batch; guarded by order
	group   group
	synced  uint64 // what has a lower number in the log is synced; the leader's

	lazyMu sync.Mutex
	lazy   []durableHook // hooks of lazy batches that no sync has covered yet

	closeOnce sync.Once
	closeErr  error
}

// Open takes the directory, recovers what the last process committed, and
// checks the format. A second opener gets ErrLocked.
func Open(c Config) (*Journal, error) {
	if c.Dir == "" {
		return nil, errors.New("open journal: no directory given")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.upgrades == nil {
		c.upgrades = upgrades()
	}
	if c.MemtableBytes == 0 {
		c.MemtableBytes = 8 << 20
	}
	if c.retry == 0 {
		c.retry = retryPause
	}
	if err := makeDir(c.Dir, syncDir); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", c.Dir, err)
	}
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{
		log: c.Log, lock: lock, memtable: uint64(c.MemtableBytes), retry: c.retry, failed: make(chan struct{}), closing: make(chan struct{}),
	}
	j.gate.init()
	j.pressure.init()
	if err := j.start(c); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", c.Dir, err), lock.Close())
	}
	return j, nil
}

func (j *Journal) start(c Config) error {
	var err error
	if j.metrics, err = newMetrics(c.Metrics, j); err != nil {
		return err
	}
	if err := j.open(c); err != nil {
		j.metrics.unregister()
		return err
	}
	return nil
}

func (j *Journal) open(c Config) error {
	j.dir, j.fs = c.Dir, newGuard(j, c)
	if err := errors.Join(mendLogs(c, j), j.findLoss()); err != nil {
		return err
	}
	err := checkBooks(j.fs, c.Dir)
	var db *pebble.DB
	if err == nil {
		db, err = openOrFail(c, j)
	}
	if err != nil {
		return fmt.Errorf("%w: if the disk is well and this stays so, keep a copy of the directory, "+
			"retire this edge and join it anew with a fresh one", engineError(err))
	}
	j.db = db
	if err := errors.Join(j.checkFormat(c.upgrades), j.Err()); err != nil {
		return errors.Join(err, db.Close())
	}
	ended, err := j.orFail(func() error { return j.heal(newGuard(j, c), c.Dir, c.unmerged) })
	if errors.Is(err, errPanic) { // then it may hold its locks
		return fmt.Errorf("%w, while the journal was healed: without %s it starts around the damage",
			err, filepath.Join(c.Dir, damagedDir))
	}
	if !ended {
		return err
	}
	if err := firstOf(err, j.Err()); err != nil {
		return errors.Join(err, db.Close())
	}
	j.opened.Store(true)
	return nil
}

// Err is nil while the journal is sound. After the first failed sync it is
// that failure, for good.
func (j *Journal) Err() error {
	if p := j.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Failed is closed at the moment Err becomes non-nil.
func (j *Journal) Failed() <-chan struct{} { return j.failed }

// Fail marks the journal failed. Packages that keep files beside it (spool)
// call it when a sync of theirs fails, since the promise is one.
func (j *Journal) Fail(cause error) {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	if !j.failure.CompareAndSwap(nil, &err) {
		return
	}
	close(j.failed)
	j.log.Error("journal failed: nothing is accepted until restart", "err", cause)
}

// Close refuses new calls, waits for those in progress, makes durable what was
// lazy, however full the disk, and gives the directory back. It may be called more
// than once.
func (j *Journal) Close() error {
	j.closeOnce.Do(func() {
		close(j.closing)
		j.gate.shut()
		syncErr := j.syncLast()
		if errors.Is(syncErr, ErrFailed) {
			syncErr = nil // reported to every committer already
		}
		j.metrics.unregister()
		j.closeErr = errors.Join(syncErr, j.db.Close(), j.lock.Close())
	})
	return j.closeErr
}

// makeDir makes dir and those above it that are missing, and syncs where their names
// are, so that the names survive too; that of dir always, for a process may have ended
// before it had come to that.
func makeDir(dir string, sync func(dir string) error) error {
	parents := []string{filepath.Dir(dir)}
	for at := parents[0]; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
			break
		}
		parents = append(parents, filepath.Dir(at))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, parent := range parents {
		if err := sync(parent); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
