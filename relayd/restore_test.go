package relayd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/server"
	"activerelay/server/servertest"
)

// A restored control plane grants nothing until every edge has reported, also one that never had anything to report.
func TestMailFlowsAgainAfterARestoreThoughOneEdgeHoldsNothing(t *testing.T) {
	w := newWorld(t)
	w.addEdge(nil) // idle
	busy := w.addEdge(nil)
	w.plane.Stop()
	backup := filepath.Join(t.TempDir(), "backup")
	copyDir(t, w.plane.DataDir, backup)
	if err := os.RemoveAll(w.plane.DataDir); err != nil {
		t.Fatal(err)
	}
	copyDir(t, backup, w.plane.DataDir)

	log := &logBuffer{}
	address := strings.TrimPrefix(w.plane.URL, "http://")
	w.plane = servertest.Start(t, servertest.Config{Now: w.clock, DataDir: w.plane.DataDir, Configure: func(c *server.Config) {
		c.Listen, c.Log = address, log.logger()
	}})
	if log.count("a new epoch begins") != 1 {
		t.Fatal("the restore was not found out")
	}
	// The first message is deferred at once, or at the end of its wait for units.
	if r := send(t, busy.Relay, "anna@example.com", "early"); !strings.HasPrefix(r, "451 ") {
		t.Fatalf("reply %q before the idle edge has reported", r)
	}
	w.advance(31 * time.Second) // by then it asks how things are
	eventually(t, "a message that is accepted", func() bool {
		return strings.HasPrefix(send(t, busy.Relay, "anna@example.com", "late"), "250 ")
	})
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp -a: %v %s", err, out)
	}
}
