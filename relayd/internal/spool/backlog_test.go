package spool_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"activerelay/relayd/internal/spool"

	"github.com/oklog/ulid/v2"
)

// backlog fills a spool with n messages of size bytes, as fast as it can: many
// in a batch, none waited for until the end.
func (s *store) backlog(t fataler, n, size int) {
	t.Helper()
	content := text("backlog", size)
	b := s.journal.NewBatch()
	for i := range n {
		m := envelope(ulid.ULID(numbered(i)).String())
		m.Recipients = m.Recipients[:1]
		binary.BigEndian.PutUint64(content, uint64(i)) // no two are the same
		w, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(content)
		if err := errors.Join(err, s.Stage(b, m, w), w.Discard()); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 1<<20 || i == n-1 {
			if err := s.journal.CommitLazy(b); err != nil {
				t.Fatal(err)
			}
			b = s.journal.NewBatch()
		}
	}
	b.Discard()
	if err := s.journal.Sync(); err != nil {
		t.Fatal(err)
	}
}

// numbered is the ulid of the i-th message: a thousand a second.
func numbered(i int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(noon.UnixMilli()+int64(i))<<16)
	return id
}

func TestABacklogIsReadWithoutHoldingIt(t *testing.T) { readBacklog(t, 3000, 64<<20) }

// A million messages of 5 KiB are on the disk when the edge starts.
func TestSoakAMillionMessagesAreReadAtTheStart(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED TestSoakAMillionMessagesAreReadAtTheStart: only with SOAK=1; the short form is TestABacklogIsReadWithoutHoldingIt")
	}
	readBacklog(t, 1_000_000, 64<<20)
}

func readBacklog(t *testing.T, n int, most uint64) {
	s := open(t, t.TempDir(), nil)
	began := time.Now()
	s.backlog(t, n, 5<<10)
	filled := time.Since(began)
	s.close(t)
	debug.FreeOSMemory()
	before := residentBytes(t)

	began = time.Now()
	s = open(t, s.dir, nil)
	defer s.close(t)
	opened := time.Since(began)
	began = time.Now()
	seen, peak := 0, uint64(0)
	err := s.Each(func(m *spool.Message) error {
		if seen++; seen%10_000 == 1 {
			peak = max(peak, residentBytes(t))
		}
		return nil
	})
	if err != nil || seen != n {
		t.Fatalf("%d of %d messages: %v", seen, n, err)
	}
	read := time.Since(began)
	grown := max(peak, residentBytes(t)) - min(before, peak)
	if grown > most {
		t.Errorf("memory grew by %d bytes while %d messages were read", grown, n)
	}
	runtime.GC()
	t.Logf("%d messages: filled in %v; opened in %v, read in %v; memory %d MiB before, %d MiB more at the peak, %d MiB after",
		n, filled, opened, read, before>>20, grown>>20, residentBytes(t)>>20)
}

// residentBytes is what this process has in memory.
func residentBytes(t fataler) uint64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := bytes.Cut(status, []byte("VmRSS:"))
	var kilobytes uint64
	if _, err := fmt.Sscan(string(rest), &kilobytes); !ok || err != nil {
		t.Fatal(errors.Join(errors.New("no VmRSS in /proc/self/status"), err))
	}
	return kilobytes << 10
}
