package spool_test

import (
	"bytes"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"
)

// Row 6 of the fault matrix, in the journal's tables.
func TestRow6AFlippedBitInATableIsFoundAndTheRestGoesOn(t *testing.T) { flipTables(t, 25) }

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
	var log bytes.Buffer
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
