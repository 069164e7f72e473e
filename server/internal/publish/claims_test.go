package publish_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest"
)

// logged runs a test on both databases with a publisher whose log can be read.
func logged(t *testing.T, test func(t *testing.T, f *fixture, log *bytes.Buffer)) {
	t.Helper()
	storetest.Each(t, &server, func(t *testing.T, db storetest.Database) {
		var log bytes.Buffer
		test(t, newFixture(t, db, publish.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}), &log)
	})
}

func (f *fixture) joined(t *testing.T, id, name string) {
	t.Helper()
	f.write(t, func(tx *store.Tx) error { return tx.InsertEdge(&store.Edge{ID: id, Name: name}) })
}

func (f *fixture) epoch(t *testing.T) (epoch string) {
	t.Helper()
	err := f.Read(context.Background(), store.System(), func(tx *store.Tx) (err error) {
		epoch, err = tx.Epoch()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}

// claim lets an edge say that it enforces a revision which the database does not have.
func (f *fixture) claim(t *testing.T, edge string) {
	t.Helper()
	_, err := f.Poll(t.Context(), publish.Poll{Edge: edge, Epoch: f.epoch(t), After: "1000,~"})
	if !errors.Is(err, publish.ErrGone) {
		t.Errorf("got %v, want that it starts again", err)
	}
}

// Each epoch makes every edge start again and stops all grants for a while: one stolen credential must not do that at will.
func TestAnEdgeIsBelievedOnceAnHourThatTheDatabaseWasRestored(t *testing.T) {
	logged(t, func(t *testing.T, f *fixture, log *bytes.Buffer) {
		f.addPartner(t, "acme")
		f.joined(t, "edg_1", "fra1")
		f.joined(t, "edg_2", "fra2")
		steps := []struct {
			name, edge string
			after      time.Duration
			begins     bool
		}{
			{name: "the first claim", edge: "edg_1", begins: true},
			{name: "again at once", edge: "edg_1"},
			{name: "another edge", edge: "edg_2", begins: true},
			{name: "again within the hour", edge: "edg_1", after: 59 * time.Minute},
			{name: "an hour after the first", edge: "edg_1", after: 2 * time.Minute, begins: true},
		}
		for _, step := range steps {
			f.clock.Advance(step.after)
			before := f.epoch(t)
			log.Reset()
			f.claim(t, step.edge)
			if begun := f.epoch(t) != before; begun != step.begins {
				t.Errorf("%s: a new epoch began: %v, want %v", step.name, begun, step.begins)
			}
			alarm := strings.Contains(log.String(), "level=ERROR") && strings.Contains(log.String(), "edge="+step.edge) && strings.Contains(log.String(), "name=fra")
			if !alarm || strings.Contains(log.String(), "is not believed") == step.begins {
				t.Errorf("%s: the log says %q", step.name, log.String())
			}
		}
	})
}

func TestTheEdgesThatKeepQuotaFromBeingGrantedAreNamedOnceAMinute(t *testing.T) {
	logged(t, func(t *testing.T, f *fixture, log *bytes.Buffer) {
		f.addPartner(t, "acme")
		f.joined(t, "edg_1", "fra1")
		look := func() string {
			t.Helper()
			log.Reset()
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := f.Run(ended); err != nil { // one last round
				t.Fatal(err)
			}
			return log.String()
		}
		if said := look(); said != "" {
			t.Errorf("of an edge that has reported it says %q", said)
		}
		f.claim(t, "edg_1")
		f.clock.Advance(time.Minute)
		if said := look(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "fra1 (edg_1), last seen never") {
			t.Errorf("it says %q", said)
		}
		if said := look(); said != "" {
			t.Errorf("again within the minute: %q", said)
		}
	})
}
