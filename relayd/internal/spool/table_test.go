package spool_test

import (
	"bytes"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"
)

// Row 6 of the fault matrix, in the journal's tables.
func TestRow6AFlippedBitInATableIsFoundAndTheRestGoesOn(t *testing.T) { flipTables(t, 10) }

func TestSoakRow6OfAThousandFlippedBitsInTablesNoneIsDelivered(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED TestSoakRow6OfAThousandFlippedBitsInTablesNoneIsDelivered: only with SOAK=1; " +
			"the short form is TestRow6AFlippedBitInATableIsFoundAndTheRestGoesOn")
	}
	flipTables(t, 1000)
}

// tabled is a spool whose messages are in tables, and what they hold.
func tabled(t *testing.T) (dir string, texts map[string][]byte) {
	t.Helper()
	dir, texts = t.TempDir(), map[string][]byte{}
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), MemtableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "bodies"), Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	all := &store{Spool: s, journal: j, dir: dir}
	for range 300 {
		m := envelope(newID(t))
		b := j.NewBatch()
		if err := errors.Join(all.stage(b, m, text(m.ID, 4000), 4000), j.CommitLazy(b)); err != nil {
			t.Fatal(err)
		}
		texts[m.ID] = text(m.ID, 4000)
	}
	all.close(t)
	return dir, texts
}

// copyDir copies the files of a spool.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func flipTables(t *testing.T, flips int) {
	master, texts := tabled(t)
	told, quarantined := 0, 0
	for range flips {
		dir := copyDir(t, master)
		tables, err := filepath.Glob(filepath.Join(dir, "journal", "*.sst"))
		if err != nil || len(tables) == 0 {
			t.Fatalf("no tables: %v", err)
		}
		path := tables[mathrand.IntN(len(tables))]
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, flipped(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		alarm, kept := checkFlipped(t, dir, texts)
		if alarm {
			told++
		}
		quarantined += kept
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d flips: %d found in what was read, %d messages in quarantine", flips, told, quarantined)
	if told == 0 {
		t.Error("no flip was found: the test shows nothing")
	}
}

// checkFlipped opens a spool with a flipped bit and reports whether there was an
// alarm, and how many messages are in quarantine.
func checkFlipped(t *testing.T, dir string, texts map[string][]byte) (alarm bool, kept int) {
	t.Helper()
	var log lockedText // the engine tells of damage that it finds by itself
	logger := slog.New(slog.NewTextHandler(&log, nil))
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "bodies"), Journal: j, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	all := &store{Spool: s, journal: j, dir: dir}
	defer all.close(t)
	good := 0
	for _, id := range all.ids(t) {
		content, err := all.body(id)
		switch {
		case err == nil && bytes.Equal(content, texts[id]):
			good++
		case err == nil || !errors.Is(err, spool.ErrCorrupt):
			t.Errorf("message %s: %d bytes, %v", id, len(content), err)
		}
	}
	kept = len(all.quarantined(t))
	alarm = strings.Contains(log.String(), "level=ERROR")
	if good < len(texts) && !alarm {
		t.Errorf("%d of %d messages are there, and nobody is told", good, len(texts))
	}
	// At most one table of 256 KiB cannot be read at all.
	if good+kept < len(texts)-70 {
		t.Errorf("%d of %d messages are there, %d in quarantine", good, len(texts), kept)
	}
	return alarm, kept
}

// lockedText may be read while it is written.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// inOneTable is a spool of n messages whose envelopes are in one table of the
// journal, and bytes by which each can be found there.
func inOneTable(t *testing.T, n int) (dir string, ids []string, marks map[string][]byte) {
	t.Helper()
	s := open(t, t.TempDir(), nil)
	marks = map[string][]byte{}
	for range n {
		m, b := envelope(newID(t)), s.journal.NewBatch()
		mark := text("mark of "+m.ID, 200)
		m.Helo = string(mark) // random, so it is in the table as it is
		if err := errors.Join(s.stage(b, m, text(m.ID, 1000), 1000), s.journal.CommitLazy(b)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
		marks[m.ID] = mark[len(mark)-30:]
	}
	slices.Sort(ids)
	b := s.journal.NewBatch()
	b.Set([]byte("t"), []byte("of another owner, in the same block as the last envelope"))
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	s = s.reopen(t) // which brings it all into a table
	s.close(t)
	return s.dir, ids, marks
}

// flipNear flips a bit at the mark, in whichever table it is.
func flipNear(t *testing.T, dir string, mark []byte) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "journal", "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tables {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(content, mark); at >= 0 {
			content[at] ^= 1
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the mark is in no table")
}

func TestADamagedBlockOfEnvelopesLosesNoMessageWhereverItIs(t *testing.T) {
	master, ids, marks := inOneTable(t, 200)
	for name, damaged := range map[string]int{"first": 0, "in the middle": 100, "last": 199} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, master)
			flipNear(t, dir, marks[ids[damaged]])
			s := open(t, dir, nil)
			defer func() { s.close(t) }()
			for range 2 {
				there, kept := s.ids(t), 0
				for _, id := range ids {
					_, err := s.journal.Get([]byte("sq" + id))
					if err == nil {
						kept++
					}
					if (err == nil) == slices.Contains(there, id) {
						t.Errorf("message %s: in quarantine %v, and just so among the rest", id, err == nil)
					}
				}
				if kept == 0 || kept > 100 {
					t.Errorf("%d messages in quarantine", kept)
				}
				s = s.reopen(t)
			}
		})
	}
}
