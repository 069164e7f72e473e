package journal

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// killed is a directory as kill -9 leaves it, with what was acknowledged.
type killed struct {
	fs    *vfs.MemFS
	dir   string
	acked map[string]string
	order []string // of the keys
}

// kill leaves a journal with n batches in its logs. Every fourth is lazy.
func kill(t *testing.T, n int, sizes int, memtable int) killed {
	t.Helper()
	k := killed{acked: map[string]string{}}
	k.fs, k.dir = crashable(t)
	j := open(t, Config{Dir: k.dir, fs: k.fs, MemtableBytes: memtable})
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		b, key, value := j.NewBatch(), fmt.Sprintf("t%05d", i), make([]byte, 1+rng.IntN(sizes))
		for at := range value {
			value[at] = byte(rng.Uint32())
		}
		b.Set([]byte(key), value)
		commit := j.Commit
		if i%4 == 1 && i < n-1 {
			commit = j.CommitLazy
		}
		if err := commit(b); err != nil {
			t.Fatal(err)
		}
		k.acked[key] = string(value)
		k.order = append(k.order, key)
	}
	j.Fail(io.ErrUnexpectedEOF) // no file changes any more
	_ = j.Close()
	return k
}

// copy is the same directory anew.
func (k killed) copy() *vfs.MemFS {
	return k.fs.CrashClone(vfs.CrashCloneCfg{})
}

// logs are the log files, in order.
func logFiles(t *testing.T, fs *vfs.MemFS, dir string) []string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var logs []string
	for _, name := range names {
		if isLog(name) {
			logs = append(logs, filepath.Join(dir, name))
		}
	}
	return logs
}

// change rewrites a file.
func change(t *testing.T, fs *vfs.MemFS, path string, edit func([]byte) []byte) {
	t.Helper()
	in, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(edit(content)); err != nil {
		t.Fatal(err)
	}
	if err := out.Sync(); err != nil {
		t.Fatal(err)
	}
	_, _ = in.Close(), out.Close()
	if err := syncDirs(fs, filepath.Dir(path)); err != nil { // or a crash brings back what was there
		t.Fatal(err)
	}
}

// used is how many bytes of a log hold records.
func used(t *testing.T, fs *vfs.MemFS, path string) int {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var number uint32
	if _, err := fmt.Sscanf(filepath.Base(path), "%d.log", &number); err != nil {
		t.Fatal(err)
	}
	s, end := newLogScanner(f, number), int64(0)
	for s.next() == nil {
		end = s.offset()
	}
	return int(end)
}

// reopened is what a journal says after something was done to its files.
type reopened struct {
	got    map[string]string
	log    string
	places float64
	lossy  bool
}

func reopen(t *testing.T, fs *vfs.MemFS, dir string) reopened {
	t.Helper()
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	j, err := Open(Config{Dir: dir, fs: fs, Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	r := reopened{
		got: contents(t, j, "t"), log: log.String(), places: metric(t, registry, "relayd_journal_damage_total"), lossy: j.ChangesLost(),
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// metric is the sum of a metric over its labels.
func metric(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// check demands that what is there is right, and returns what is lost.
func (k killed) check(t *testing.T, r reopened, what string) (lost []string) {
	t.Helper()
	for key, value := range r.got {
		if k.acked[key] != value {
			t.Fatalf("%s: key %s holds %d bytes that nobody wrote", what, key, len(value))
		}
	}
	for _, key := range k.order {
		if _, ok := r.got[key]; !ok {
			lost = append(lost, key)
		}
	}
	return lost
}

// Row 6 of the fault matrix, in the log: what was acknowledged and is not in a
// table yet.
func TestRow6EveryFlippedBitInALogIsFoundAndTheRestGoesOn(t *testing.T) { flipLogs(t, 60) }

func TestSoakRow6OfAThousandFlippedBitsInALogEachIsFound(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED TestSoakRow6: only with SOAK=1; the short form is TestRow6EveryFlippedBitInALogIsFoundAndTheRestGoesOn")
	}
	flipLogs(t, 1000)
}

func flipLogs(t *testing.T, flips int) {
	k := kill(t, 120, 6000, 0)
	logs := logFiles(t, k.fs, k.dir)
	if len(logs) != 2 {
		t.Fatalf("logs are %v, want two", logs)
	}
	slices.Sort(logs)
	rng := rand.New(rand.NewPCG(2, 2))
	ends := 0
	for i := range flips {
		path := logs[i%2]
		size := used(t, k.fs, path)
		bit := rng.IntN(8 * size)
		what := fmt.Sprintf("flip %d, bit %d of %d in %s", i, bit, 8*size, filepath.Base(path))
		fs := k.copy()
		change(t, fs, path, func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b })
		r := reopen(t, fs, k.dir)
		lost := k.check(t, r, what)
		told := r.places > 0 && strings.Contains(r.log, "level=ERROR") && strings.Contains(r.log, path)
		atEnd := strings.Contains(r.log, "a batch that is not whole")
		switch {
		case !told && !atEnd:
			t.Fatalf("%s: nobody is told, %d batches lost", what, len(lost))
		case len(lost) > 20: // there are about ten in a block
			t.Errorf("%s: %d of %d batches lost", what, len(lost), len(k.order))
		case !told && (i%2 == 0 || bit/8 < size-2*blockBytes):
			t.Errorf("%s: taken for the end of the log, %d batches lost", what, len(lost))
		case told != r.lossy:
			t.Fatalf("%s: told %v, changes lost %v", what, told, r.lossy)
		case !told:
			ends++
		}
		if again := reopen(t, fs, k.dir); again.places > 0 || len(again.got) != len(r.got) || again.lossy != r.lossy {
			t.Fatalf("%s: mended again, %d keys instead of %d, changes lost %v", what, len(again.got), len(r.got), again.lossy)
		}
	}
	t.Logf("%d of %d in the last group of batches, which a crash could have left so", ends, flips)
}

func TestALogCutAnywhereIsNoDamageAndKeepsAPrefix(t *testing.T) {
	k := kill(t, 60, 3000, 4<<20)
	logs := logFiles(t, k.fs, k.dir)
	path := logs[len(logs)-1]
	size := used(t, k.fs, path)
	rng := rand.New(rand.NewPCG(3, 3))
	for range 60 {
		at := rng.IntN(size)
		fs := k.copy()
		change(t, fs, path, func(b []byte) []byte { return b[:at] })
		r := reopen(t, fs, k.dir)
		lost := k.check(t, r, "cut")
		if r.places != 0 {
			t.Errorf("cut at %d of %d: called damage", at, size)
		}
		if len(lost) > 0 && lost[0] != k.order[len(k.order)-len(lost)] {
			t.Errorf("cut at %d: %s is lost, later ones are there", at, lost[0])
		}
	}
}

// What was not synced may be on the disk in parts, in any order: an end, not
// damage, and what is behind a hole must not come back.
func TestAPowerCutIsNeverTakenForDamage(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 4))
		mem, dir := crashable(t)
		j := open(t, Config{Dir: dir, fs: mem, MemtableBytes: 256 << 10})
		for i := range 100 {
			b := j.NewBatch()
			b.Set(fmt.Appendf(nil, "t%04d", i), make([]byte, rng.IntN(30<<10)))
			commit := j.Commit
			if rng.IntN(3) > 0 {
				commit = j.CommitLazy
			}
			if err := commit(b); err != nil {
				t.Fatal(err)
			}
		}
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		_ = j.Close()
		if r := reopen(t, crashed, dir); r.places != 0 {
			t.Errorf("seed %d: %s", seed, r.log)
		}
	}
}

func TestAKillWhileALogIsMendedLeavesOneThatCanBeMended(t *testing.T) {
	k := kill(t, 60, 3000, 4<<20)
	logs := logFiles(t, k.fs, k.dir)
	path := logs[len(logs)-1]
	middle := used(t, k.fs, path) / 2
	change(t, k.fs, path, func(b []byte) []byte { b[middle] ^= 1; return b })
	whole := reopen(t, k.copy(), k.dir)
	for step := int64(1); ; step++ {
		fs := k.copy()
		hook, hit := faultAt(step, syscall.EIO, func(string, string) bool { return true })
		j, err := Open(Config{Dir: k.dir, fs: fs, Faults: hook, retry: shortRetry})
		if err == nil {
			j.Fail(io.ErrUnexpectedEOF)
			_ = j.Close()
		}
		r := reopen(t, fs.CrashClone(vfs.CrashCloneCfg{}), k.dir)
		if len(r.got) != len(whole.got) || !r.lossy {
			t.Fatalf("stopped at operation %d: %d keys instead of %d, changes lost %v", step, len(r.got), len(whole.got), r.lossy)
		}
		if !hit.Load() {
			if step < 10 {
				t.Fatalf("only %d operations: the test shows little", step)
			}
			return
		}
	}
}

// Counts and positions may have gone back: whoever keeps them must hear so, however
// often the process ends before they have begun anew, and once only.
func TestThatChangesAreLostIsSaidUntilItWasHandled(t *testing.T) {
	k := kill(t, 60, 3000, 4<<20)
	logs := logFiles(t, k.fs, k.dir)
	if r := reopen(t, k.copy(), k.dir); r.lossy {
		t.Fatal("changes are said to be lost without damage")
	}
	path := logs[len(logs)-1]
	middle := used(t, k.fs, path) / 2
	change(t, k.fs, path, func(b []byte) []byte { b[middle] ^= 1; return b })
	for range 2 {
		if r := reopen(t, k.fs, k.dir); !r.lossy {
			t.Fatal("nothing says that changes are lost")
		}
	}
	j := open(t, Config{Dir: k.dir, fs: k.fs})
	if err := j.LossHandled(); err != nil || j.ChangesLost() {
		t.Errorf("handled: %v, still lost: %v", err, j.ChangesLost())
	}
	after := k.copy() // what a power cut leaves
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if r := reopen(t, after, k.dir); r.lossy {
		t.Error("changes are lost again")
	}
}

// Row 6 of the fault matrix, in the engine's own books: without them nobody knows
// what belongs to the store, so the start is refused, with a text that helps.
func TestRow6AFlippedBitInTheEnginesBooksNeverLosesAnythingSilently(t *testing.T) {
	k := kill(t, 100, 16<<10, 256<<10)
	names, err := k.fs.List(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	refused := 0
	for _, name := range names {
		if !strings.HasPrefix(name, "MANIFEST") && !strings.HasPrefix(name, "OPTIONS") {
			continue
		}
		path := filepath.Join(k.dir, name)
		info, err := k.fs.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			bit := rng.IntN(8 * int(info.Size()))
			fs := k.copy()
			change(t, fs, path, func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b })
			what := fmt.Sprintf("bit %d of %s", bit, name)
			j, err := Open(Config{Dir: k.dir, fs: fs})
			if err != nil {
				refused++
				if !strings.Contains(err.Error(), k.dir) || !strings.Contains(err.Error(), "join") {
					t.Errorf("%s: the error does not help: %v", what, err)
				}
				continue
			}
			if got := contents(t, j, "t"); len(got) != len(k.acked) {
				t.Errorf("%s: %d of %d keys, and nobody is told", what, len(got), len(k.acked))
			}
			_ = j.Close()
		}
	}
	t.Logf("%d refused", refused)
}

// lastRound is a log whose last synced batch shares its sync with n lazy ones
// before it, and where in the file the batch of each key begins.
func lastRound(t *testing.T, n int) (k killed, path string, offset map[string]int) {
	t.Helper()
	k = killed{acked: map[string]string{}}
	k.fs, k.dir = crashable(t)
	j := open(t, Config{Dir: k.dir, fs: k.fs})
	for i := range 20 + n + 1 {
		b, key, value := j.NewBatch(), fmt.Sprintf("t%05d", i), strings.Repeat("x", 3000)
		b.Set([]byte(key), []byte(value))
		commit := j.Commit
		if i >= 20 && i < 20+n {
			commit = j.CommitLazy
		}
		if err := commit(b); err != nil {
			t.Fatal(err)
		}
		k.acked[key] = value
		k.order = append(k.order, key)
	}
	j.Fail(io.ErrUnexpectedEOF)
	_ = j.Close()
	logs := logFiles(t, k.fs, k.dir)
	path, offset = logs[len(logs)-1], map[string]int{}
	change(t, k.fs, path, func(b []byte) []byte {
		for _, key := range k.order {
			offset[key] = bytes.Index(b, []byte(key))
		}
		return b
	})
	return k, path, offset
}

func TestOfALastRoundBehindDamageAllThatCanBeReadIsKept(t *testing.T) {
	k, path, offset := lastRound(t, 40)
	fs := k.copy()
	// The last batch that is known to be synced, and the first after it.
	from, to := offset["t00019"], offset["t00021"]
	change(t, fs, path, func(b []byte) []byte { clear(b[from:to]); return b })
	r := reopen(t, fs, k.dir)
	lost := k.check(t, r, "zeros")
	if r.places == 0 || len(lost) < 2 || len(lost) > 13 { // there are about ten in a block
		t.Errorf("%v places, lost are %v", r.places, lost)
	}
}

func TestAHoleInALastRoundIsItsEndAndIsTold(t *testing.T) {
	k, path, offset := lastRound(t, 40)
	fs := k.copy()
	from, to := offset["t00025"], offset["t00026"]
	change(t, fs, path, func(b []byte) []byte { clear(b[from:to]); return b })
	r := reopen(t, fs, k.dir)
	lost := k.check(t, r, "zeros")
	if r.places != 0 || len(lost) == 0 || lost[0] != "t00025" || len(lost) != len(k.order)-25 {
		t.Errorf("%v places, lost are %v", r.places, lost)
	}
	if !strings.Contains(r.log, "a batch that is not whole") {
		t.Errorf("nobody is told: %s", r.log)
	}
}

// A crash can come between the flush of a log with a torn end and its removal.
func TestATornLogThatWasFlushedIsNoDamage(t *testing.T) {
	k := kill(t, 20, 3000, 0)
	logs := logFiles(t, k.fs, k.dir)
	path := logs[len(logs)-1]
	size := used(t, k.fs, path)
	change(t, k.fs, path, func(b []byte) []byte { return b[:size-100] })
	j := open(t, Config{Dir: k.dir, fs: k.fs, Faults: func(op, path string) error {
		if op == "remove" && isLog(path) {
			return syscall.EIO
		}
		return nil
	}})
	if err := set(j, "tlater", "1"); err != nil {
		t.Fatal(err)
	}
	k.acked["tlater"] = "1"
	j.Fail(io.ErrUnexpectedEOF)
	_ = j.Close()
	if !slices.Contains(logFiles(t, k.fs, k.dir), path) {
		t.Fatal("the log was removed: the test shows nothing")
	}
	r := reopen(t, k.fs, k.dir)
	if lost := k.check(t, r, "torn"); r.places != 0 || len(lost) != 1 || r.got["tlater"] == "" {
		t.Errorf("%v places, lost are %v: %s", r.places, lost, r.log)
	}
}

// Behind the end of a log in a file that is used again is what a sender chose.
func TestTheTextOfAnOlderLogIsNotTakenForAChunk(t *testing.T) {
	var file bytes.Buffer
	w := &logChunks{out: &file, number: 7}
	if err := w.write([]byte("a batch")); err != nil {
		t.Fatal(err)
	}
	end := file.Len()
	file.WriteString("xxxx\x40\x00yyyyyy") // as a head it would say that 64 bytes of content follow
	file.Write(make([]byte, end+chunkHeadBytes+64-file.Len()))
	if err := w.write([]byte("a forged batch")); err != nil {
		t.Fatal(err)
	}
	s := newLogScanner(&file, 7)
	if err := s.next(); err != nil || string(s.record) != "a batch" {
		t.Fatalf("%q, %v", s.record, err)
	}
	if err := s.next(); err != io.EOF {
		t.Errorf("behind the end is %q, %v", s.record, err)
	}
}
