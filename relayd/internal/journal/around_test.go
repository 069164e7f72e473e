package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// damagedAtTheEnd is the directory of a journal whose n keys are in a table, the
// last of them in a damaged block, together with a key behind them.
func damagedAtTheEnd(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	j := open(t, Config{Dir: dir})
	rng := rand.New(rand.NewPCG(1, 1))
	value := make([]byte, 500) // of random bytes, which stay as they are in the table
	for i := range n {
		for at := range value {
			value[at] = byte(rng.Uint32())
		}
		b := j.NewBatch()
		b.Set(fmt.Appendf(nil, "t%04d", i), value)
		if err := j.CommitLazy(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(set(j, "t0x", "behind the range"), j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tables {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(content, value[len(value)-30:]); at >= 0 {
			flip(t, path, int64(at))
			return dir
		}
	}
	t.Fatal("the last value is in no table")
	return ""
}

func TestDamageUpToTheEndOfARangeEndsWithTheRange(t *testing.T) {
	dir := damagedAtTheEnd(t, 100)
	for _, end := range [][]byte{[]byte("t0w"), []byte("t0100"), []byte("t00\xff\xff")} {
		j := open(t, Config{Dir: dir})
		good, gaps := 0, 0
		err := j.ScanAround([]byte("t"), end, func(_, _ []byte) error { good++; return nil }, func(from, to []byte, _ error) error {
			gaps++
			if want := fmt.Sprintf("t%04d\x00", good-1); string(from) != want || !bytes.Equal(to, end) {
				t.Errorf("with the end %q: a gap from %q to %q", end, from, to)
			}
			return nil
		})
		if err != nil || gaps != 1 || good < 50 || good == 100 {
			t.Errorf("with the end %q: %d gaps, %d good keys, %v", end, gaps, good, err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFlippedBitInATableIsReportedAndTheRestIsReadable(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir, MemtableBytes: 256 << 10})
	written := writeUntilRefused(j, 60)
	if err := j.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	largest, size := "", int64(0) // others hold the format
	for _, path := range tables {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size {
			largest, size = path, info.Size()
		}
	}
	flip(t, largest, size/2)
	j = open(t, Config{Dir: dir})
	bad := 0
	for key, want := range written {
		value, err := j.Get([]byte(key))
		if errors.Is(err, ErrCorrupt) {
			bad++
		} else if err != nil || string(value) != want {
			t.Errorf("%s: %d bytes, %v", key, len(value), err)
		}
	}
	if bad == 0 || bad == len(written) {
		t.Errorf("%d of %d keys reported as corrupt", bad, len(written))
	}
}

// The engine takes seconds to search a large damaged block for the flipped bit: it is let do so once, and not where the block can be
// read again.
func TestADamagedBlockIsSearchedForItsBitOnce(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	if err := errors.Join(set(j, "sb0", strings.Repeat("0123456789abcdef", 300)), j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	damageFamily(t, dir)
	j = open(t, Config{Dir: dir, unmerged: true})
	for n, text := range []string{"checksum mismatch", "has not become better", "has not become better"} {
		if _, err := j.Get([]byte("sb0")); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), text) {
			t.Errorf("look %d: %v", n, err)
		}
	}
	damageFamily(t, dir) // flips the bit back
	if value, err := j.Get([]byte("sb0")); len(value) != 4800 || err != nil {
		t.Errorf("after the disk gives what was written: %d bytes, %v", len(value), err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDamageMetAfterAFailureChangesNothingOnTheDisk(t *testing.T) {
	dir := damagedAtTheEnd(t, 100)
	j := open(t, Config{Dir: dir})
	j.Fail(errors.New("a failed disk"))
	if _, err := j.Get([]byte("t0099")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the damaged key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, damagedDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory was made: %v", err)
	}
	_ = j.Close()
}
