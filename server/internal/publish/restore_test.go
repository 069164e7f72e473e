package publish_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"activerelay/server/internal/publish"
	"activerelay/server/internal/store/storetest"
)

func TestWhoMayHaveMissedSomethingStartsAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addDomain(t, "acme", "acme.example")
		f.addDomain(t, "acme", "stays.example")
		gone := func(what string, question publish.Poll) {
			t.Helper()
			if _, err := f.Poll(t.Context(), question); !errors.Is(err, publish.ErrGone) {
				t.Errorf("%s: got %v, want that it is gone", what, err)
			}
		}
		e := newEdge("edge_1").follow(t, f.Publisher)

		other := e.question()
		other.Epoch = "another"
		gone("another epoch", other)
		scoped := e.question()
		scoped.Partners = []string{"acme"}
		gone("a narrower scope", scoped)
		narrow := newEdge("edge_2", "acme").follow(t, f.Publisher).question()
		narrow.Partners = []string{"acme", "beta"}
		gone("a wider scope", narrow)
		narrow.Partners = nil
		gone("the whole scope", narrow)

		// A removed tombstone: who stands before it may have missed the deletion, who stands after it has not.
		before := e.question()
		f.remove(t, "acme.example")
		after := newEdge("edge_3").follow(t, f.Publisher)
		f.clock.Advance(publish.TombstoneAge + time.Second)
		f.runOnce(t, f.Publisher)
		gone("from before a removed tombstone", before)
		if page, err := f.Poll(t.Context(), after.question()); page != nil || err != nil {
			t.Errorf("from after it: got %+v, %v, want nothing new", page, err)
		}
		if e.follow(t, f.Publisher); len(e.table) != 2 {
			t.Errorf("after it started again the edge holds %v", e.keys)
		}
	})
}

// A domain that is deleted and comes back under another partner: where only the first one's documents are seen, nothing
// else tells of the deletion.
func TestWhoMissedThatADomainWentToAnotherPartnerStartsAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addPartner(t, "beta")
		f.addDomain(t, "acme", "moves.example")
		f.addDomain(t, "acme", "stays.example")
		away := newEdge("edge_away", "acme").follow(t, f.Publisher)
		both := newEdge("edge_both", "acme", "beta").follow(t, f.Publisher)
		whole := newEdge("edge_whole").follow(t, f.Publisher)
		there := newEdge("edge_there", "acme").follow(t, f.Publisher)

		f.remove(t, "moves.example")
		f.addDomain(t, "acme", "moves.example") // to the same partner it is a change like others
		f.remove(t, "moves.example")
		there.follow(t, f.Publisher)
		f.addDomain(t, "beta", "moves.example")
		f.addDomain(t, "acme", "last.example")

		// Also where a process that has just begun knows nothing of the edge, in the middle of a revision.
		middle := away.question()
		middle.After = strings.TrimSuffix(middle.After, "~") + "domain/stays.example"
		if _, err := f.publisher(t, publish.Config{}).Poll(t.Context(), middle); !errors.Is(err, publish.ErrGone) {
			t.Errorf("in the middle of a pass: got %v, want that it is gone", err)
		}
		for _, e := range []*edge{whole, there} {
			if _, err := f.Poll(t.Context(), e.question()); err != nil {
				t.Errorf("%s: got %v, want that it goes on", e.id, err)
			}
		}
		for _, e := range []*edge{away, there} {
			if _, holds := e.follow(t, f.Publisher).table["domain/moves.example"]; holds || len(e.table) != 3 {
				t.Errorf("%s holds %v", e.id, e.table)
			}
		}
		for _, e := range []*edge{both, whole} {
			if held := e.follow(t, f.Publisher).table["domain/moves.example"]; held.Domain == nil || held.Domain.Partner != "beta" {
				t.Errorf("%s holds %+v, want the domain of the other partner", e.id, held)
			}
		}
	})
}

// An edge whose first pass takes several pages begins before all tombstones that were ever removed.
func TestFirstPassGoesOnAfterTombstonesWereRemoved(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		for i := range 5 {
			f.addDomain(t, "acme", fmt.Sprintf("d%d.example", i))
		}
		f.addEdge(t, "edge_1")
		old := f.publisher(t, publish.Config{PageDocuments: 1})
		stuck := newEdge("edge_1")
		stuck.poll(t, old)
		stuck.poll(t, old) // it holds d0 when it is deleted
		f.remove(t, "d0.example")
		f.clock.Advance(publish.TombstoneAge + time.Second)
		f.runOnce(t, f.Publisher)
		if _, err := old.Poll(t.Context(), stuck.question()); !errors.Is(err, publish.ErrGone) {
			t.Errorf("the pass that began before the deletion: got %v, want that it is gone", err)
		}
		restarted := f.publisher(t, publish.Config{PageDocuments: 1})
		if _, err := restarted.Poll(t.Context(), stuck.question()); !errors.Is(err, publish.ErrGone) {
			t.Errorf("the same after a restart: got %v, want that it is gone", err)
		}

		f.addEdge(t, "edge_2")
		fresh := newEdge("edge_2")
		for i := range 3 {
			if !fresh.poll(t, restarted) || len(fresh.table) != i+1 {
				t.Fatalf("page %d of the first pass: the edge holds %v", i, fresh.keys)
			}
		}
		// Another process, or this one after a restart, did not see the pass begin.
		if fresh.follow(t, f.publisher(t, publish.Config{PageDocuments: 1})); len(fresh.table) != 5 || len(fresh.keys) != 5 {
			t.Errorf("the edge holds %v", fresh.keys)
		}
	})
}

// copyFile copies a database that nobody has open.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = source.Close() }()
	target, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(target, source); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRestoredFileIsFoundOutByItsMark(t *testing.T) {
	db := storetest.SQLite(t)
	open := func() (f *fixture, restored bool) {
		f = newFixture(t, db, publish.Config{})
		restored, err := publish.OpenHistory(t.Context(), f.Store)
		if err != nil {
			t.Fatal(err)
		}
		return f, restored
	}
	end := func(f *fixture) {
		f.runOnce(t, f.Publisher)
		if err := f.Store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f, restored := open()
	if restored {
		t.Error("a new database counts as restored")
	}
	f.addPartner(t, "acme")
	end(f)
	copyFile(t, db.Path(), db.Path()+".backup")

	f, restored = open()
	if restored {
		t.Error("a database that was closed and opened counts as restored")
	}
	f.addDomain(t, "acme", "acme.example")
	e := newEdge("edge_1").follow(t, f.Publisher)
	end(f)

	copyFile(t, db.Path()+".backup", db.Path())
	f, restored = open()
	if !restored {
		t.Error("the backup was not found out")
	}
	if e.follow(t, f.Publisher); len(e.table) != 1 {
		t.Errorf("the edge holds %v, want what the backup has", e.keys)
	}
	end(f)

	if err := os.Remove(db.Path() + ".mark"); err != nil {
		t.Fatal(err)
	}
	f, restored = open()
	if !restored {
		t.Error("a database that came without its mark was not found out")
	}
	end(f)
	if _, restored = open(); restored {
		t.Error("it counts as restored again")
	}
}

func TestEdgeAheadOfTheDatabaseProvesARestore(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		e := newEdge("edge_1").follow(t, f.Publisher)
		waiting := newEdge("edge_2").follow(t, f.Publisher)
		answer := make(chan error, 1)
		go func() {
			question := waiting.question()
			question.Wait = time.Minute
			_, err := f.Poll(t.Context(), question)
			answer <- err
		}()
		first := e.epoch
		e.after = "1000,~" // in a history that the database has forgotten
		if _, err := f.Poll(t.Context(), e.question()); !errors.Is(err, publish.ErrGone) {
			t.Errorf("got %v, want that it is gone", err)
		}
		if err := <-answer; !errors.Is(err, publish.ErrGone) {
			t.Errorf("who was waiting got %v, want that it is gone", err)
		}
		e.follow(t, f.Publisher)
		if e.epoch == first || len(e.table) != 1 {
			t.Errorf("the edge goes on in epoch %s with %v", e.epoch, e.keys)
		}
	})
}
