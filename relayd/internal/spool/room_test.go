package spool_test

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"
)

func TestRoomAsksForOneAndAHalfTimesTheSizeBesideTheReserve(t *testing.T) {
	dir := t.TempDir()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal")})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, c := range []struct {
		name          string
		reserve, size int64
		full          bool
	}{
		{"plenty", free / 2, 1 << 20, false},
		{"less than the reserve", 2 * free, 0, true},
		{"as much as is free", 1, free, true},
		{"two thirds and more", 1, free / 4 * 3, true},
		{"half", 1, free / 2, false},
		{"a size that would overflow", 1, math.MaxInt64, true},
		{"a size and a half that would overflow", 1, math.MaxInt64 / 4 * 3, true},
	} {
		s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "bodies"), Journal: j, ReserveBytes: c.reserve})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Room(c.size); errors.Is(err, spool.ErrFull) != c.full || !c.full && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestADiskThatCannotBeAskedIsTroubleAndNotFull(t *testing.T) {
	f := &trouble{op: "statfs", err: syscall.EIO, nth: 1}
	f.armed.Store(true)
	s := open(t, t.TempDir(), f.hook)
	defer s.close(t)
	if err := s.Room(1); !errors.Is(err, syscall.EIO) || errors.Is(err, spool.ErrFull) {
		t.Errorf("got %v", err)
	}
}

// tmpfs mounts a small disk, which needs root.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("SKIPPED %s: mounting needs root", t.Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err, syscall.Unmount(dir, syscall.MNT_DETACH))
		}
	})
	return dir
}

// onDisk opens a spool whose bodies, not its journal, are on a small disk.
func onDisk(t *testing.T, disk string, reserve int64) *store {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(t.TempDir(), "journal")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(spool.Config{Dir: filepath.Join(disk, "bodies"), Journal: j, ReserveBytes: reserve})
	if err != nil {
		t.Fatal(err)
	}
	return &store{Spool: s, journal: j, dir: disk}
}

// Row 5 of the fault matrix.
func TestRow5AFullDiskRefusesMessagesBeforeItHarmsThoseItHolds(t *testing.T) {
	disk := tmpfs(t, "size=8m")
	s := onDisk(t, disk, 2<<20)
	defer s.close(t)
	const size = 1 << 20
	var good []*spool.Message
	for s.Room(size) == nil {
		good = append(good, s.put(t, size))
	}
	if err := s.Room(size); !errors.Is(err, spool.ErrFull) {
		t.Fatal(err)
	}
	// 8 MiB hold as many as leave 2 MiB and one and a half times the next.
	if n := len(good); n != 5 {
		t.Errorf("%d messages of 1 MiB fit", n)
	}
	w, err := s.Create() // of our own, without measure
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = w.Write(make([]byte, 100_000))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the disk ended with %v", err)
	}
	if err := s.Stage(s.journal.NewBatch(), envelope(newID(t)), w); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("staged with %v", err)
	}
	if err := w.Discard(); err != nil {
		t.Error(err)
	}
	for _, m := range good {
		body, err := s.Body(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, body); n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		body.Close()
	}
	b := s.journal.NewBatch()
	s.Remove(b, good[0].ID)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	if err := s.Room(size); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Row 5 of the fault matrix.
func TestRow5ADiskWithoutInodesIsFull(t *testing.T) {
	disk := tmpfs(t, "size=64m,nr_inodes=100")
	s := onDisk(t, disk, 1)
	defer s.close(t)
	if err := s.Room(1000); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(disk, string(rune('a'+i))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Room(1000); !errors.Is(err, spool.ErrFull) {
		t.Errorf("with 60 inodes left: %v", err)
	}
	w, err := s.Receive() // there was room when it asked
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, spool.InlineBytes+1)); !errors.Is(err, spool.ErrFull) {
		t.Errorf("with 60 inodes left a message takes one more: %v", err)
	}
	if err := w.Discard(); err != nil {
		t.Error(err)
	}
}

// Row 5 of the fault matrix: for each of them there was room, and one says less than it
// sends.
func TestRow5MessagesThatComeAtOnceLeaveTheReserveToDeliveriesAndNotifications(t *testing.T) {
	disk := tmpfs(t, "size=16m")
	const reserve = 6 << 20
	s := onDisk(t, disk, reserve)
	defer s.close(t)
	var writers [4]*spool.Writer
	for i := range writers {
		if err := s.Room(4 << 20); err != nil {
			t.Fatal(err)
		}
		w, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Discard() }()
		writers[i] = w
	}
	for refused := 0; refused < len(writers); {
		refused = 0
		for _, w := range writers {
			if _, err := w.Write(make([]byte, 100_000)); err != nil {
				if refused++; !errors.Is(err, spool.ErrFull) {
					t.Fatalf("the disk ended with %v", err)
				}
			}
		}
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < reserve-(1<<20) {
		t.Errorf("%d bytes are left of a reserve of %d", free, reserve)
	}
	small, err := s.Receive() // in memory as yet
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = small.Discard() }()
	if _, err := small.Write(make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	if err := s.Stage(s.journal.NewBatch(), envelope(newID(t)), small); !errors.Is(err, spool.ErrFull) {
		t.Errorf("a small one is staged with %v", err)
	}
	s.put(t, 1<<20) // a notification
	for _, w := range writers {
		if err := w.Discard(); err != nil {
			t.Error(err)
		}
	}
	again, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Discard() }()
	if _, err := again.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
