package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A log of which nothing but the zeros ahead, or only marks, came to the disk is none of damage, also as one that is not the last.
func TestALogOfZerosDoesNotKeepAJournalFromOpening(t *testing.T) {
	for _, synced := range []bool{false, true} {
		mem, dir := crashable(t)
		j := open(t, Config{Dir: dir, fs: mem})
		if err := errors.Join(set(j, "t0", "0"), j.Close()); err != nil {
			t.Fatal(err)
		}
		j = open(t, Config{Dir: dir, fs: mem})
		if synced {
			if err := j.Commit(j.NewBatch()); err != nil {
				t.Fatal(err)
			}
		}
		disk := mem.CrashClone(vfs.CrashCloneCfg{})
		names, err := disk.List(dir)
		if err := errors.Join(err, j.Close()); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if isLog(name) && !synced {
				change(t, disk, filepath.Join(dir, name), func([]byte) []byte { return make([]byte, aheadBytes) })
			}
		}
		for n := range 5 {
			var text logText
			j, err := Open(Config{Dir: dir, fs: disk, Log: text.logger()})
			if err != nil {
				t.Fatalf("start %d: %v", n, err)
			}
			if err := set(j, fmt.Sprint("t", n), fmt.Sprint(n)); err != nil {
				t.Fatal(err)
			}
			if got := contents(t, j, "t"); len(got) != n+1 && n > 0 || text.String() != "" {
				t.Errorf("start %d: %v\n%s", n, got, &text)
			}
			disk = disk.CrashClone(vfs.CrashCloneCfg{})
			_ = j.Close()
		}
	}
}

// nearlyFull is a file on a disk with little room; what is written over takes none.
type nearlyFull struct {
	vfs.File
	room   int
	at     int64
	blocks map[int64]bool // of 4 KiB, that it has
}

// fit is how many of n bytes find room at an offset.
func (f *nearlyFull) fit(at int64, n int) int {
	const block = 4 << 10
	for b := at / block; b*block < at+int64(n); b++ {
		if f.blocks[b] {
			continue
		}
		if f.room < block {
			return int(max(b*block-at, 0))
		}
		f.room -= block
		f.blocks[b] = true
	}
	return n
}

func (f *nearlyFull) Write(p []byte) (int, error) {
	n := f.fit(f.at, len(p))
	f.at += int64(n)
	if n, err := f.File.Write(p[:n]); n < len(p) || err != nil {
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return len(p), nil
}

func (f *nearlyFull) WriteAt(p []byte, at int64) (int, error) {
	n := f.fit(at, len(p))
	if n, err := f.File.WriteAt(p[:n], at); n < len(p) || err != nil {
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return len(p), nil
}

// What is laid out ahead takes no room from what is to be written.
func TestALogIsWrittenToTheLastBlockOfAFullDisk(t *testing.T) {
	mem, dir := crashable(t)
	j := open(t, Config{Dir: dir, fs: mem})
	inner, err := mem.Create(filepath.Join(dir, "x.log"), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	const room = aheadBytes * 5 / 2
	disk := &nearlyFull{File: inner, room: room, blocks: map[int64]bool{}}
	f := &guardedFile{File: disk, guard: newGuard(j, Config{}), name: "x.log", silent: true}
	piece := make([]byte, 8<<10)
	for j.Err() == nil {
		if _, err := f.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if f.size < room-int64(len(piece)) {
		t.Errorf("%d bytes were written where %d have room", f.size, room)
	}
	if err := errors.Join(f.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
}
