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
// whichever of its tables is damaged, and so it does when the next start has cut out the table.
func TestMatrixRow6AnEdgeStartsAndRelaysWhicheverTableIsDamaged(t *testing.T) {
	w := newWorld(t)
	// Each copy of the edge is one that was set back: what the copy before it held stays counted, and is much of a small limit.
	w.call("PUT", "/v1/domains/example.com", `{"partner":"acme","time_zone":"Europe/Berlin","licensed_users":20000}`, nil)
	e := w.addEdge(nil)
	w.stocked(e, "first")
	w.restart(e).Stop() // what was in the log alone is in tables now, each with keys of one kind
	tables, err := filepath.Glob(filepath.Join(e.DataDir, "journal", "*.sst"))
	if err != nil || len(tables) < 6 {
		t.Fatalf("tables %v: %v", tables, err)
	}
	healed := 0
	for i, path := range tables {
		dir, table := filepath.Join(t.TempDir(), "edge"), filepath.Base(path)
		copyDir(t, e.DataDir, dir)
		flipFirst(t, filepath.Join(dir, "journal", table))
		damaged := edgetest.Start(t, edgetest.Config{Server: w.plane.URL, Now: w.clock, DataDir: dir})
		w.relaysAndReports(damaged, fmt.Sprint("table ", i, " ", table))
		damaged.Stop()
		_, met := os.Stat(filepath.Join(dir, "journal", "damaged", table))
		again := w.restart(damaged)
		w.relaysAndReports(again, fmt.Sprint("healed table ", i, " ", table))
		again.Stop()
		if met != nil {
			continue // nobody had to read it
		}
		healed++
		if _, err := os.Stat(filepath.Join(dir, "journal", table)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", table, err)
		}
	}
	if healed < 4 {
		t.Errorf("%d of %d tables were healed: the test shows little", healed, len(tables))
	}
}

// What a damaged log has lost may be a count or a policy document. The edge begins anew with those, and only once.
func TestMatrixRow6AnEdgeWhoseLogIsDamagedBeginsAnewAndRelays(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.stocked(e, "first")
	dir := filepath.Join(t.TempDir(), "edge")
	copyDir(t, e.DataDir, dir) // as a kill leaves it
	e.Stop()
	logs, err := filepath.Glob(filepath.Join(dir, "journal", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs %v: %v", logs, err)
	}
	flipFirst(t, logs[0])
	damaged := edgetest.Start(t, edgetest.Config{Server: w.plane.URL, Now: w.clock, DataDir: dir})
	defer damaged.Stop()
	w.relaysAndReports(damaged, "damaged log")
	if _, err := os.Stat(filepath.Join(dir, "journal", "damaged", filepath.Base(logs[0]))); err != nil {
		t.Errorf("the log was not found damaged: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "journal", "changes-lost")); !os.IsNotExist(err) {
		t.Errorf("the next start would begin anew again: %v", err)
	}
}

// relaysAndReports waits until a message comes through an edge, and until another is reported.
func (w *world) relaysAndReports(e *edgetest.Edge, what string) {
	w.t.Helper()
	before := len(w.mx.Messages())
	eventually(w.t, "a message that is accepted: "+what, func() bool {
		w.advance(10 * time.Second)
		return strings.HasPrefix(send(w.t, e.Relay, "anna@example.com", what), "250 ")
	})
	eventually(w.t, "the message at its destination: "+what, func() bool { return len(w.mx.Messages()) > before })
	sent := w.reported()
	eventually(w.t, "a message that is reported: "+what, func() bool {
		w.advance(10 * time.Second)
		send(w.t, e.Relay, "anna@example.com", "more")
		return w.reported() > sent
	})
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
