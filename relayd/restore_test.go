package relayd_test

import (
	"log/slog"
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
	w.restore(t, w.backup(t))
	// The first message is deferred at once, or at the end of its wait for units.
	if r := send(t, busy.Relay, "anna@example.com", "early"); !strings.HasPrefix(r, "451 ") {
		t.Fatalf("reply %q before the idle edge has reported", r)
	}
	w.advance(31 * time.Second) // by then it asks how things are
	eventually(t, "a message that is accepted", func() bool {
		return strings.HasPrefix(send(t, busy.Relay, "anna@example.com", "late"), "250 ")
	})
}

// What the control plane heard after the backup the edge tells it again, with its next event.
func TestAfterARestoreTheReportsCountWhatTheBackupDoesNotHave(t *testing.T) {
	w := newWorld(t)
	e := w.addEdge(nil)
	w.stocked(e, "in the backup")
	eventually(t, "report of the first", func() bool { return w.reported() == 1 })
	w.plane.Stop()
	backup := w.backup(t)
	w.serve(t, nil)
	for range 3 {
		if r := send(t, e.Relay, "anna@example.com", "after the backup"); !strings.HasPrefix(r, "250 ") {
			t.Fatalf("reply %q", r)
		}
	}
	eventually(t, "report of all four", func() bool { return w.reported() == 4 })

	w.plane.Stop()
	w.restore(t, backup)
	if n := w.reported(); n != 1 {
		t.Fatalf("the backup has %d messages, want 1", n)
	}
	w.advance(31 * time.Second) // by then the edge asks how things are
	eventually(t, "a message that is accepted", func() bool {
		return strings.HasPrefix(send(t, e.Relay, "anna@example.com", "after the restore"), "250 ")
	})
	eventually(t, "report of all five", func() bool { return w.reported() == 5 })
}

// reported is how many messages of example.com the control plane has heard of.
func (w *world) reported() int64 {
	w.t.Helper()
	var report struct{ Items []struct{ Messages int64 } }
	w.call("GET", "/v1/quota-reports?domain=example.com", "", &report)
	if len(report.Items) == 0 {
		return 0
	}
	return report.Items[0].Messages
}

// backup copies the data of a control plane that was stopped.
func (w *world) backup(t *testing.T) string {
	t.Helper()
	backup := filepath.Join(t.TempDir(), "backup")
	copyDir(t, w.plane.DataDir, backup)
	return backup
}

// restore puts a backup in the place of the data, and starts the control plane on it.
func (w *world) restore(t *testing.T, backup string) {
	t.Helper()
	if err := os.RemoveAll(w.plane.DataDir); err != nil {
		t.Fatal(err)
	}
	copyDir(t, backup, w.plane.DataDir)
	log := &logBuffer{}
	w.serve(t, log.logger())
	if log.count("a new epoch begins") != 1 {
		t.Fatal("the restore was not found out")
	}
}

// serve starts a control plane that was stopped, where it was.
func (w *world) serve(t *testing.T, log *slog.Logger) {
	t.Helper()
	address := strings.TrimPrefix(w.plane.URL, "http://")
	w.plane = servertest.Start(t, servertest.Config{Now: w.clock, DataDir: w.plane.DataDir, Configure: func(c *server.Config) {
		c.Listen = address
		if log != nil {
			c.Log = log
		}
	}})
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp -a: %v %s", err, out)
	}
}
