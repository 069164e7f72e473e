package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// damagedInMemory is a journal in memory with a damaged table that was met, and what it says.
func damagedInMemory(t *testing.T) (mem *vfs.MemFS, dir string, keys [][]byte, before map[string]string) {
	t.Helper()
	mem, dir = crashable(t)
	j := open(t, Config{Dir: dir, fs: mem})
	rng, value := rand.New(rand.NewPCG(1, 1)), make([]byte, 500)
	for n := range 60 {
		for at := range value {
			value[at] = byte(rng.Uint32())
		}
		keys = append(keys, fmt.Appendf(nil, "oe%04d", n))
		if err := set(j, string(keys[n]), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.db.Flush(), set(j, string(keys[30]), "newest"), j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := mem.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			change(t, mem, filepath.Join(dir, name), func(content []byte) []byte {
				if len(content) > 10<<10 {
					content[len(content)/2] ^= 0x10
				}
				return content
			})
		}
	}
	j = open(t, Config{Dir: dir, fs: mem, unmerged: true})
	before = answers(t, j, keys)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return mem, dir, keys, before
}

func TestAKillInsideTheHealLosesNothing(t *testing.T) {
	mem, dir, keys, before := damagedInMemory(t)
	for n := int64(1); ; n++ {
		disk := mem.CrashClone(vfs.CrashCloneCfg{})
		var begun atomic.Bool
		hook, hit := faultAt(n, syscall.EIO, func(_, path string) bool {
			if strings.Contains(path, healingPrefix) {
				begun.Store(true)
			}
			return begun.Load()
		})
		name := fmt.Sprintf("operation %d failed", n)
		if j, err := Open(Config{Dir: dir, fs: disk, Faults: hook, retry: shortRetry}); err == nil {
			if j.Err() == nil {
				compare(t, name, before, answers(t, j, keys))
			}
			j.Fail(io.ErrUnexpectedEOF)
			_ = j.Close()
		}
		disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(n), 1))})
		for range 2 {
			j := open(t, Config{Dir: dir, fs: disk})
			if damaged := compare(t, name, before, answers(t, j, keys)); damaged == 0 || damaged > len(keys)/4 {
				t.Fatalf("%d of %d keys are damaged", damaged, len(keys))
			}
			if err := j.db.Compact(t.Context(), []byte("\x00"), []byte("\xff"), false); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(name, err)
			}
		}
		if names, err := disk.List(dir); err != nil || strings.Contains(strings.Join(names, " "), healingPrefix) {
			t.Errorf("%s: left over: %v, %v", name, names, err)
		}
		if !hit.Load() {
			if n < 10 {
				t.Fatalf("only %d operations: the test shows little", n)
			}
			t.Logf("%d operations", n-1)
			return
		}
	}
}

func TestAPanicInsideTheHealNamesWhatToPutAsideForAStart(t *testing.T) {
	mem, dir, keys, before := damagedInMemory(t)
	hook := func(_, path string) error {
		if strings.Contains(path, healingPrefix) {
			panic("a block that nobody can read")
		}
		return nil
	}
	kept := filepath.Join(dir, damagedDir)
	if _, err := Open(Config{Dir: dir, fs: mem, Faults: hook}); err == nil || !strings.Contains(err.Error(), kept) {
		t.Fatalf("opened with %v", err)
	}
	disk := mem.CrashClone(vfs.CrashCloneCfg{})
	if err := disk.Rename(kept, kept+".aside"); err != nil {
		t.Fatal(err)
	}
	j := open(t, Config{Dir: dir, fs: disk, Faults: hook})
	compare(t, "around the damage", before, answers(t, j, keys))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// mergeDir tells the re-executed test binary to merge the tables of a journal.
const mergeDir = "JOURNAL_TEST_MERGE_DIR"

func mergeAll(dir string) int {
	j, err := Open(Config{Dir: dir})
	if err == nil {
		err = errors.Join(j.db.Compact(context.Background(), []byte("\x00"), []byte("\xff"), false), j.Close())
	}
	fmt.Println("merged:", err)
	return 0
}

// Where a deleted key lies before a damaged block the engine panics as it merges the tables, where nobody can recover. That ends the
// process once, and not each one after it.
func TestDamageThatEndsTheProcessEndsOneOnly(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	rng, value := rand.New(rand.NewPCG(1, 1)), make([]byte, 1000)
	var keys [][]byte
	for n := range 40 {
		for at := range value {
			value[at] = byte(rng.Uint32())
		}
		keys = append(keys, fmt.Appendf(nil, "sb%04d", n))
		if err := set(j, string(keys[n]), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.db.Flush(), j.db.Compact(t.Context(), []byte("a"), []byte("z"), false)); err != nil {
		t.Fatal(err)
	}
	b := j.NewBatch()
	for _, key := range keys[:35] {
		b.DeleteOnce(key)
	}
	if err := errors.Join(j.Commit(b), j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	damageFamily(t, dir)
	merge := func() string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), mergeDir+"="+dir)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := merge(); !strings.Contains(out, "panic: pebble") {
		t.Fatalf("the damage does not end the process, so the test shows nothing:\n%s", out)
	}
	if out := merge(); out != "merged: <nil>\n" {
		t.Errorf("the start after it: %s", tail(out))
	}
	j = open(t, Config{Dir: dir})
	for n, key := range keys {
		if value, err := j.Get(key); n >= 35 && len(value) != 1000 || n < 35 && err == nil {
			t.Errorf("%s: %d bytes, %v", key, len(value), err)
		}
	}
}

// fullDisk has little room.
type fullDisk struct {
	vfs.FS
	free uint64
}

func (d fullDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free}, nil
}

func TestWithoutRoomTheJournalGoesOnAroundTheDamage(t *testing.T) {
	mem, dir, keys, before := damagedInMemory(t)
	for _, free := range []uint64{healMargin, 1 << 40} {
		var text logText
		j := open(t, Config{Dir: dir, fs: fullDisk{FS: mem, free: free}, Log: text.logger()})
		compare(t, "a full disk", before, answers(t, j, keys))
		if err := errors.Join(set(j, "t", "more"), j.Close()); err != nil {
			t.Error(err)
		}
		if told := strings.Contains(text.String(), "not healed"); told != (free == healMargin) {
			t.Errorf("%d bytes free:\n%s", free, &text)
		}
	}
}

func TestTheDiskFillsUpInsideTheHeal(t *testing.T) {
	mem, dir, keys, before := damagedInMemory(t)
	j := open(t, Config{Dir: dir, fs: mem, Faults: func(op, path string) error {
		if op == "write" && strings.HasPrefix(filepath.Base(path), healingPrefix) {
			return syscall.ENOSPC
		}
		return nil
	}})
	compare(t, "a full disk", before, answers(t, j, keys))
	if err := errors.Join(set(j, "t", "more"), j.Close()); err != nil {
		t.Error(err)
	}
}

// Damage that is met as a table is cut out, in another one that reaches beyond it, is cut out with it.
func TestDamageThatIsMetInsideTheHealIsHealedToo(t *testing.T) {
	for _, offset := range []int64{10, 8500, 9500} { // before the end of the first table, and about it
		dir := t.TempDir()
		j := open(t, Config{Dir: dir})
		rng, value := rand.New(rand.NewPCG(1, 1)), make([]byte, 500)
		var keys [][]byte
		fill := func(from, to int) {
			for n := from; n < to; n++ {
				for at := range value {
					value[at] = byte(rng.Uint32())
				}
				keys = append(keys, fmt.Appendf(nil, "oe%04d", n))
				if err := set(j, string(keys[len(keys)-1]), string(value)); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		fill(0, 60)
		if err := j.db.Compact(t.Context(), []byte("a"), []byte("z"), false); err != nil {
			t.Fatal(err)
		}
		fill(40, 140)
		paths := map[int]string{}
		levels, err := j.db.SSTables()
		for level, tables := range levels {
			for _, table := range tables {
				if table.Size > 10_000 {
					paths[level] = filepath.Join(dir, table.BackingSSTNum.String()+".sst")
				}
			}
		}
		if err := errors.Join(err, j.Close()); err != nil || len(paths) != 2 {
			t.Fatal(paths, err)
		}
		flip(t, paths[6], 5000)
		flip(t, paths[0], offset)
		j = open(t, Config{Dir: dir, unmerged: true})
		answers(t, j, keys[:40]) // of the first table alone
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		before := bothDamaged(t, dir, keys)
		j = open(t, Config{Dir: dir})
		if damaged := compare(t, fmt.Sprint("byte ", offset), before, answers(t, j, keys)); damaged < 10 || damaged > 30 {
			t.Errorf("%d keys are damaged", damaged)
		}
		if err := errors.Join(j.db.Compact(t.Context(), []byte("a"), []byte("z"), false), j.Close()); err != nil {
			t.Error(err)
		}
		for level, path := range paths {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("byte %d: the table of level %d is still there", offset, level)
			}
		}
	}
}

// bothDamaged is what a copy of a journal says around its damage.
func bothDamaged(t *testing.T, dir string, keys [][]byte) map[string]string {
	t.Helper()
	to := copyOf(t, dir)
	if err := os.RemoveAll(filepath.Join(to, damagedDir)); err != nil {
		t.Fatal(err)
	}
	return answers(t, open(t, Config{Dir: to, unmerged: true}), keys)
}

// A table that the engine finds damaged by itself as another is cut out is healed by the next start: its note stays.
func TestANoteMadeInsideTheHealStays(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	if err := errors.Join(set(j, "oe1", "1"), j.db.Flush()); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	j.keepDamaged(vfs.Default, tables[0])
	old := filepath.Join(dir, damagedDir, "000001.sst") // of an earlier heal
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j.dropKept(vfs.Default, dir, map[string]bool{"000002.sst": true})
	if _, err := os.Stat(filepath.Join(dir, damagedDir, filepath.Base(tables[0]))); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the copy of an earlier heal is still there")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
