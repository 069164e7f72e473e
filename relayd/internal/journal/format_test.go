package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestAStoreFromAnotherReleaseIsRefused(t *testing.T) {
	next := uint32(len(upgrades()) + 2)
	cases := []struct {
		name  string
		stamp []byte
		want  error
		text  string
	}{
		{name: "newer", stamp: binary.BigEndian.AppendUint32(nil, next), want: ErrFormat, text: "newer release"},
		{name: "unreadable", stamp: []byte("?"), want: ErrCorrupt},
		{name: "zero", stamp: make([]byte, 4), want: ErrFormat},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, Config{Dir: dir})
			for _, key := range formatKeys {
				if err := set(j, string(key), string(c.stamp)); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Config{Dir: dir}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestAStoreOfAnEarlierFormatIsUpgradedAndKeepsWhatItHas(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	if err := errors.Join(set(j, "ta", "1"), j.stamp(1), j.Close()); err != nil {
		t.Fatal(err)
	}
	j = open(t, Config{Dir: dir})
	version, whole, err := j.format()
	if err != nil || !whole || version != uint32(len(upgrades())+1) {
		t.Errorf("format %d, whole %v: %v", version, whole, err)
	}
	if got := contents(t, j, "t"); got["ta"] != "1" {
		t.Errorf("contents %v", got)
	}
}

func TestADamagedTableDoesNotHideTheFormat(t *testing.T) {
	master := t.TempDir()
	j := open(t, Config{Dir: master})
	if err := errors.Join(set(j, "ta", "1"), j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(master, "*.sst"))
	if err != nil || len(tables) < 3 {
		t.Fatalf("tables %v: %v", tables, err)
	}
	for _, table := range tables {
		dir := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
			t.Fatal(err)
		}
		flip(t, filepath.Join(dir, filepath.Base(table)), 10)
		j, err := Open(Config{Dir: dir})
		if err != nil {
			t.Errorf("a bit of %s is flipped: %v", filepath.Base(table), err)
			continue
		}
		if _, whole, err := j.format(); err != nil || !whole {
			t.Errorf("the format is whole: %v, %v", whole, err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// doubling is an upgrade of many batches: each key "t" becomes two keys "u".
func doubling(j *Journal) error {
	return j.Scan([]byte("t"), func(key, value []byte) error {
		b := j.NewBatch()
		b.Set(append([]byte("u1"), key...), value)
		b.Set(append([]byte("u2"), key...), value)
		b.Delete(key)
		return j.Commit(b)
	})
}

func TestAKillInsideAnUpgradeLeavesOneThatCanBeFinished(t *testing.T) {
	steps := []upgrade{func(*Journal) error { return nil }, doubling}
	for n := int64(1); ; n++ {
		mem, dir := crashable(t)
		j := open(t, Config{Dir: dir, fs: mem})
		for i := range 10 {
			if err := set(j, fmt.Sprintf("t%d", i), "v"); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(j.stamp(1), j.Close()); err != nil {
			t.Fatal(err)
		}
		hook, hit := faultAt(n, syscall.EIO, func(op, _ string) bool { return op == "write" || op == "sync" })
		if j, err := Open(Config{Dir: dir, fs: mem, Faults: hook, upgrades: steps, retry: shortRetry}); err == nil {
			j.Fail(io.ErrUnexpectedEOF)
			_ = j.Close()
		}
		j = open(t, Config{Dir: dir, fs: mem.CrashClone(vfs.CrashCloneCfg{}), upgrades: steps})
		if rest, got := contents(t, j, "t"), contents(t, j, "u"); len(rest) != 0 || len(got) != 20 {
			t.Fatalf("killed at operation %d: %d keys of the old form, %d of the new", n, len(rest), len(got))
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if !hit.Load() {
			if n < 20 {
				t.Fatalf("only %d operations: the test shows little", n)
			}
			return
		}
	}
}
