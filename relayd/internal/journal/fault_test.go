package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	if dir := os.Getenv(mergeDir); dir != "" {
		os.Exit(mergeAll(dir))
	}
	// The engine leaves these behind when its Open fails, as some tests make it;
	// the process then ends.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.Open"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.(*DB).flush"),
		goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2/record.(*LogWriter).flushLoop"),
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*cleanupManager).mainLoop"),
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2/internal/genericcache.(*shard[...]).releaseLoop"),
	)
}

// faultAt fails the n-th operation that match says yes to, and only that one.
func faultAt(n int64, err error, match func(op, path string) bool) (hook func(op, path string) error, hit *atomic.Bool) {
	var count atomic.Int64
	hit = new(atomic.Bool)
	return func(op, path string) error {
		if match(op, path) && count.Add(1) == n {
			hit.Store(true)
			return err
		}
		return nil
	}, hit
}

// Row 4 of the fault matrix.
func TestRow4AfterAFailedSyncNothingIsAcknowledgedAndNoSyncIsRepeated(t *testing.T) {
	dir := t.TempDir()
	armed := new(atomic.Bool)
	syncs := new(atomic.Int64)
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	j := open(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: registry, Faults: func(op, path string) error {
		if !armed.Load() || op != "sync" {
			return nil
		}
		if syncs.Add(1) == 1 {
			return syscall.EIO
		}
		return nil // a second try would "succeed", as it does on Linux
	}})
	if err := set(j, "tbefore", "1"); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	const writers = 30
	var acked atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range 20 {
				err := set(j, fmt.Sprintf("tafter%d/%d", w, i), strings.Repeat("x", 5000))
				if err == nil {
					acked.Add(1)
				} else if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
					t.Errorf("the error does not say what happened: %v", err)
				}
			}
		})
	}
	all.Wait()
	if n := acked.Load(); n != 0 {
		t.Errorf("%d commits were acknowledged after the failed sync", n)
	}
	if n := syncs.Load(); n != 1 {
		t.Errorf("%d syncs were tried after the failed one", n-1)
	}
	select {
	case <-j.Failed():
	default:
		t.Error("Failed is not closed")
	}
	if failed := metric(t, registry, "relayd_journal_failed"); failed != 1 || !strings.Contains(log.String(), "journal failed") {
		t.Errorf("the alarm: relayd_journal_failed is %v, the log says %q", failed, &log)
	}
	if value, err := j.Get([]byte("tbefore")); string(value) != "1" || err != nil {
		t.Errorf("reading stopped: %q, %v", value, err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	j = open(t, Config{Dir: dir})
	if value, err := j.Get([]byte("tbefore")); string(value) != "1" || err != nil {
		t.Errorf("after restart: %q, %v", value, err)
	}
}

func TestWhicheverOperationFailsNothingAcknowledgedIsLost(t *testing.T) {
	operations := []struct {
		name      string
		err       error
		match     func(op, path string) bool
		onlyStart bool // this load does not meet it after Open
	}{
		{name: "sync of a log", err: syscall.EIO, match: func(op, path string) bool { return op == "sync" && isLog(path) }},
		{name: "write of a log", err: syscall.ENOSPC, match: func(op, path string) bool { return op == "write" && isLog(path) }},
		{name: "creation of a log", err: syscall.ENOSPC, match: func(op, path string) bool { return op == "create" && isLog(path) }},
		{name: "sync of a table", err: syscall.EIO, match: func(op, path string) bool { return op == "sync" && strings.HasSuffix(path, ".sst") }},
		{name: "sync of a manifest", err: syscall.EIO, match: func(op, path string) bool {
			return op == "sync" && strings.Contains(path, "MANIFEST")
		}},
		{name: "write of a manifest", err: syscall.ENOSPC, match: func(op, path string) bool {
			return op == "write" && strings.Contains(path, "MANIFEST")
		}},
		{name: "sync of the directory", err: syscall.EIO, match: func(op, _ string) bool { return op == "syncdir" }},
		{name: "removal", err: syscall.EIO, match: func(op, _ string) bool { return op == "remove" }, onlyStart: true},
		{name: "rename", err: syscall.EIO, match: func(op, _ string) bool { return op == "rename" }, onlyStart: true},
	}
	for _, o := range operations {
		t.Run(o.name, func(t *testing.T) {
			for _, atOpen := range []bool{true, false} {
				hits := 0
				for n := int64(1); n <= 8; n++ {
					if !(faultRun{n: n, fault: o.err, match: o.match, atOpen: atOpen}).check(t) {
						break // there are no more of them
					}
					hits++
				}
				if hits == 0 && (atOpen || !o.onlyStart) {
					t.Errorf("at open %v: the fault was never met, the test shows nothing", atOpen)
				}
			}
		})
	}
}

// crashable is a file system in memory that can lose what was not synced. The
// directory itself, which Open makes and syncs on the real one, is there.
func crashable(t *testing.T) (*vfs.MemFS, string) {
	t.Helper()
	mem, dir := vfs.NewCrashableMem(), t.TempDir()
	if err := mem.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for at := dir; at != "/"; at = filepath.Dir(at) {
		f, err := mem.OpenDir(filepath.Dir(at))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	return mem, dir
}

// shortRetry is for tests with many failures.
const shortRetry = 50 * time.Millisecond

// faultRun is one life of a journal whose n-th matching operation fails.
type faultRun struct {
	n      int64
	fault  error
	match  func(op, path string) bool
	atOpen bool // count from Open on, else from the first write
}

// check writes, cuts the power, looks whether what was acknowledged is there,
// and reports whether the fault was met.
func (r faultRun) check(t *testing.T) bool {
	t.Helper()
	mem, dir := crashable(t)
	armed := new(atomic.Bool)
	armed.Store(r.atOpen)
	hook, hit := faultAt(r.n, r.fault, func(op, path string) bool { return armed.Load() && r.match(op, path) })
	acked := map[string]string{}
	j, err := Open(Config{Dir: dir, MemtableBytes: 256 << 10, Faults: hook, fs: mem, retry: shortRetry})
	if err == nil {
		armed.Store(true)
		acked = writeUntilRefused(j, 200)
		rng := rand.New(rand.NewPCG(uint64(r.n), 1))
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
		_ = j.Close()
		mem = crashed
	} else if !hit.Load() {
		t.Fatal(err)
	}
	j = open(t, Config{Dir: dir, fs: mem})
	got := contents(t, j, "t")
	for key, value := range acked {
		if got[key] != value {
			t.Fatalf("fault %d: %s was acknowledged and is lost (%d acknowledged, %d there)", r.n, key, len(acked), len(got))
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return hit.Load()
}

// writeUntilRefused commits n keys of 16 KiB, enough to go through several
// logs and tables, and returns those that were acknowledged.
func writeUntilRefused(j *Journal, n int) map[string]string {
	acked := map[string]string{}
	for i := range n {
		key, value := fmt.Sprintf("t%04d", i), strings.Repeat(string(rune('a'+i%26)), 16<<10)
		if err := set(j, key, value); err != nil {
			break
		}
		acked[key] = value
	}
	return acked
}

func TestAPowerCutKeepsAPrefixThatHoldsAllAcknowledged(t *testing.T) {
	for seed := range int64(20) {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		mem, dir := crashable(t)
		j := open(t, Config{Dir: dir, fs: mem, MemtableBytes: 256 << 10})
		durable := 0
		total := 50 + rng.IntN(100)
		for i := 1; i <= total; i++ {
			b := j.NewBatch()
			for part := range 3 {
				b.Set(fmt.Appendf(nil, "t%04d/%d", i, part), make([]byte, rng.IntN(8<<10)))
			}
			if rng.IntN(4) == 0 {
				if err := j.Commit(b); err != nil {
					t.Fatal(err)
				}
				durable = i
			} else if err := j.CommitLazy(b); err != nil {
				t.Fatal(err)
			}
		}
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		_ = j.Close()
		j = open(t, Config{Dir: dir, fs: crashed})
		got := contents(t, j, "t")
		if len(got)%3 != 0 {
			t.Fatalf("seed %d: a batch is torn: %d keys", seed, len(got))
		}
		last := len(got) / 3
		if last < durable {
			t.Fatalf("seed %d: %d batches left, %d were acknowledged", seed, last, durable)
		}
		for i := 1; i <= last; i++ {
			if _, ok := got[fmt.Sprintf("t%04d/0", i)]; !ok {
				t.Fatalf("seed %d: batch %d is missing while later ones are there", seed, i)
			}
		}
	}
}

// Row 5 of the fault matrix: a log that cannot grow is a failed journal (below), a
// table can wait.
func TestRow5NoSpaceForATableIsRetriedAndNotFatal(t *testing.T) {
	hook, hit := faultAt(1, syscall.ENOSPC, func(op, path string) bool {
		return op == "create" && strings.HasSuffix(path, ".sst")
	})
	j := open(t, Config{MemtableBytes: 256 << 10, Faults: hook})
	if n := len(writeUntilRefused(j, 60)); n != 60 {
		t.Errorf("%d of 60 commits, then %v", n, j.Err())
	}
	if !hit.Load() {
		t.Error("the fault was never met")
	}
}

func TestRow5CommittersWaitWhileTablesCannotBeWrittenAndGoOnAfterwards(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	tries := make(chan struct{}, 100)
	j := open(t, Config{MemtableBytes: 256 << 10, Faults: func(op, path string) error {
		if op == "create" && strings.HasSuffix(path, ".sst") && full.Load() {
			tries <- struct{}{}
			return syscall.ENOSPC
		}
		return nil
	}})
	done := make(chan int)
	go func() { done <- len(writeUntilRefused(j, 300)) }()
	<-tries
	<-tries // a second later, writers have had all the time to run ahead
	if size := j.db.Metrics().MemTable.Size; size > (maxMemtables+1)*j.memtable {
		t.Errorf("%d bytes in memory, tables of %d", size, j.memtable)
	}
	select {
	case n := <-done:
		t.Errorf("all %d commits went through without a table on the disk", n)
	default:
	}
	full.Store(false)
	if n := <-done; n != 300 {
		t.Errorf("%d of 300 commits, then %v", n, j.Err())
	}
}

// Close comes while committers wait, as on a disk that is nearly full.
func TestCloseUnderPressureRunsWhatWaitsForLazyBatches(t *testing.T) {
	var full atomic.Bool
	j := open(t, Config{MemtableBytes: 256 << 10, Faults: func(op, path string) error {
		if full.Load() && op == "create" && strings.HasSuffix(path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}})
	full.Store(true)
	var hooks, asked atomic.Int64
	committed := make(chan int64)
	go func() {
		for n := int64(0); ; n++ {
			b := j.NewBatch()
			b.Set(fmt.Appendf(nil, "t%04d", n), make([]byte, 16<<10))
			b.OnDurable(func() {
				hooks.Add(1)
				if _, err := j.Get([]byte("t")); errors.Is(err, ErrClosed) {
					asked.Add(1)
				}
			})
			if err := j.CommitLazy(b); err != nil {
				committed <- n
				return
			}
		}
	}()
	for j.db.Metrics().MemTable.Size <= maxMemtables*j.memtable {
		runtime.Gosched()
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if n := <-committed; hooks.Load() != n || asked.Load() != n {
		t.Errorf("of %d lazy batches %d heard that they are durable, %d that the journal is closed", n, hooks.Load(), asked.Load())
	}
}

func TestSmallFirstTablesDoNotStallCommitters(t *testing.T) {
	j := open(t, Config{})
	body := make([]byte, 16<<10)
	for i := range 500 {
		b := j.NewBatch()
		b.Set(fmt.Appendf(nil, "t%d", i), body)
		if err := j.CommitLazy(b); err != nil {
			t.Fatal(err)
		}
	}
}

// flip turns one bit of the byte at offset.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

// Row 7 of the fault matrix.
func TestRow7OnASlowDiskNothingIsAcknowledgedBeforeItsSync(t *testing.T) {
	var slow atomic.Bool
	begun, goOn := make(chan struct{}, 100), make(chan struct{})
	j := open(t, Config{Faults: func(op, path string) error {
		if slow.Load() && op == "sync" && isLog(path) {
			begun <- struct{}{}
			<-goOn
		}
		return nil
	}})
	slow.Store(true)
	const writers = 200
	var acked, entered atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			b := j.NewBatch()
			b.Set(fmt.Appendf(nil, "t%d", w), make([]byte, 5000))
			b.Ordered(func(*Batch) { entered.Add(1) })
			if err := j.Commit(b); err != nil {
				t.Error(err)
			}
			acked.Add(1)
		})
	}
	syncs, before := 0, int64(0) // what had entered the log when the sync under way began
	for acked.Load() < writers {
		<-begun
		syncs++
		if n := acked.Load(); n > before {
			t.Errorf("%d acknowledged, %d were in the log before the last sync that ended", n, before)
		}
		before = entered.Load()
		goOn <- struct{}{}
		if before == writers {
			break
		}
	}
	slow.Store(false)
	all.Wait()
	if syncs > 20 {
		t.Errorf("%d commits took %d slow syncs", writers, syncs)
	}
}

func TestRow7OnADiskThatStandsStillLazyCommittersWaitToo(t *testing.T) {
	goOn, full := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var armed atomic.Bool
	j := open(t, Config{MemtableBytes: 256 << 10, Faults: func(op, path string) error {
		if armed.Load() && op == "create" && strings.HasSuffix(path, ".sst") {
			once.Do(func() { close(full) })
			<-goOn
		}
		return nil
	}})
	armed.Store(true)
	done := make(chan error)
	go func() {
		for i := range 1000 { // 16 MiB into tables of 256 KiB
			b := j.NewBatch()
			b.Set(fmt.Appendf(nil, "t%d", i), make([]byte, 16<<10))
			if err := j.CommitLazy(b); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	<-full
	for j.db.Metrics().MemTable.Size < maxMemtables*j.memtable {
		runtime.Gosched()
	}
	select {
	case err := <-done:
		t.Errorf("16 MiB went through with no table on the disk: %v", err)
	default:
	}
	if size := j.db.Metrics().MemTable.Size; size > (maxMemtables+2)*j.memtable {
		t.Errorf("%d bytes in memory, tables of %d", size, j.memtable)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
