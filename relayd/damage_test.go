package relayd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/relaytest/edgetest"
)

// A flipped bit costs what is in its place, which is told, learnt again or set aside. The edge starts, takes mail and delivers it,
// whichever of its tables is damaged.
func TestMatrixRow6AnEdgeStartsAndRelaysWhicheverTableIsDamaged(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.stocked(e, "first")
	w.restart(e).Stop() // what was in the log alone is in tables now, each with keys of one kind
	tables, err := filepath.Glob(filepath.Join(e.DataDir, "journal", "*.sst"))
	if err != nil || len(tables) < 6 {
		t.Fatalf("tables %v: %v", tables, err)
	}
	for i, table := range tables {
		dir := filepath.Join(t.TempDir(), "edge")
		copyDir(t, e.DataDir, dir)
		flipFirst(t, filepath.Join(dir, "journal", filepath.Base(table)))
		damaged := edgetest.Start(t, edgetest.Config{Server: w.plane.URL, Now: w.clock, DataDir: dir})
		before := len(w.mx.Messages())
		eventually(t, fmt.Sprintf("a message that is accepted with %s damaged", filepath.Base(table)), func() bool {
			w.advance(10 * time.Second)
			return strings.HasPrefix(send(t, damaged.Relay, "anna@example.com", fmt.Sprint("table ", i)), "250 ")
		})
		eventually(t, "the message at its destination", func() bool { return len(w.mx.Messages()) > before })
		sent := w.reported()
		eventually(t, "a message that is reported", func() bool {
			w.advance(10 * time.Second)
			send(t, damaged.Relay, "anna@example.com", "more")
			return w.reported() > sent
		})
		damaged.Stop()
	}
}

// flipFirst flips a bit in the first block of a table, where its keys begin.
func flipFirst(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err == nil {
		content[10] ^= 1
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
