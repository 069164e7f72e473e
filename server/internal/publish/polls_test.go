package publish_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest"
)

// Any sequence of pages, whatever their size and whatever happens between them, gives the table of one pass.
func TestPagesOfAnySizeGiveTheTableOfOnePass(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		runs := 0
		rapid.Check(t, func(rt *rapid.T) {
			runs++
			var domains []string
			for i := range 2 {
				f.addPartner(t, fmt.Sprintf("p%d-%d", runs, i))
			}
			partner := func() string { return fmt.Sprintf("p%d-%d", runs, rapid.IntRange(0, 1).Draw(rt, "partner")) }
			sized := f.publisher(t, publish.Config{
				PageDocuments: rapid.IntRange(1, 5).Draw(rt, "documents"), PageBytes: rapid.IntRange(1, 2000).Draw(rt, "bytes"),
			})
			edges := []*edge{newEdge("all"), newEdge("one", fmt.Sprintf("p%d-0", runs)), newEdge("both", fmt.Sprintf("p%d-1", runs), fmt.Sprintf("p%d-0", runs))}
			rt.Repeat(map[string]func(*rapid.T){
				"add": func(*rapid.T) {
					name := fmt.Sprintf("d%d-%d.example", runs, len(domains))
					f.addDomain(t, partner(), name)
					domains = append(domains, name)
				},
				"change several at once": func(*rapid.T) {
					f.write(t, func(tx *store.Tx) error { return tx.PublishDomains(partner(), false) })
				},
				"remove": func(*rapid.T) {
					if len(domains) > 0 {
						i := rapid.IntRange(0, len(domains)-1).Draw(rt, "domain")
						if domains[i] != "" {
							f.remove(t, domains[i])
							domains[i] = ""
						}
					}
				},
				"platform": func(*rapid.T) {
					f.write(t, func(tx *store.Tx) error { tx.Publish(store.PlatformKey); return nil })
				},
				"poll": func(*rapid.T) { rapid.SampledFrom(edges).Draw(rt, "edge").poll(t, sized) },
			})
			for _, e := range edges {
				want := newEdge("fresh", e.partners...).follow(t, f.Publisher)
				if diff := cmp.Diff(want.table, e.follow(t, sized).table); diff != "" {
					rt.Fatalf("%s (-one pass +pages):\n%s", e.id, diff)
				}
			}
			for _, name := range domains { // the next run starts small
				if name != "" {
					f.remove(t, name)
				}
			}
			f.clock.Advance(publish.TombstoneAge + time.Hour)
			f.write(t, func(tx *store.Tx) error { _, err := tx.PurgeTombstones(tx.Now); return err })
		})
	})
}

// wait starts a poll that waits, and returns once it does.
func (f *fixture) wait(t *testing.T, e *edge) <-chan *publish.Page {
	t.Helper()
	answer := make(chan *publish.Page, 1)
	question := e.question()
	question.Wait = time.Minute
	go func() {
		page, err := f.Poll(t.Context(), question)
		if err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		answer <- page
	}()
	return answer
}

func TestWaitingPollsWakeAtTheCommit(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addDomain(t, "acme", "acme.example")
		edges, answers := []*edge{}, []<-chan *publish.Page{}
		for i := range 20 {
			e := newEdge(fmt.Sprint("edge_", i)).follow(t, f.Publisher)
			edges, answers = append(edges, e), append(answers, f.wait(t, e))
		}
		begin := time.Now()
		f.touch(t, "acme.example")
		for i, answer := range answers {
			page := <-answer
			if page == nil {
				t.Fatalf("%s heard nothing", edges[i].id)
			}
			edges[i].take(t, page)
			if limit := edges[i].table["domain/acme.example"].Domain.Limit; limit != 5000 {
				t.Errorf("%s holds a limit of %d, want the new one", edges[i].id, limit)
			}
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestChangesOutsideTheScopeWakeNobodyIn(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addPartner(t, "beta")
		f.addDomain(t, "beta", "beta.example")
		e := newEdge("edge_acme", "acme").follow(t, f.Publisher)
		answer := f.wait(t, e)
		f.touch(t, "beta.example")
		f.addDomain(t, "acme", "acme.example")
		e.take(t, <-answer)
		if _, there := e.table["domain/acme.example"]; !there || len(e.table) != 2 {
			t.Errorf("the edge holds %v", e.keys)
		}
	})
}

func TestWaitEndsWithNothingInItsTimeAndWhenThePublisherCloses(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		e := newEdge("edge_1").follow(t, f.Publisher)
		question := e.question()
		question.Wait = time.Millisecond
		if page, err := f.Poll(t.Context(), question); page != nil || err != nil {
			t.Errorf("got %v, %v, want nothing", page, err)
		}
		answer := f.wait(t, e)
		f.Publisher.Close()
		if page := <-answer; page != nil {
			t.Errorf("got %v at the end, want nothing", page)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.Poll(ctx, question); err == nil {
			t.Error("a poll whose client is gone is answered")
		}
	})
}

func TestEmptyPolicyIsAnAnswerToo(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		page, err := f.Poll(t.Context(), publish.Poll{Edge: "edge_1", Wait: time.Minute})
		if err != nil || page == nil || string(page.Documents) != "[]" || page.More || page.Epoch == "" {
			t.Errorf("got %+v, %v, want an empty whole", page, err)
		}
	})
}

func TestInstructionsComeWithThePollAndWakeIt(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addDomain(t, "acme", "acme.example")
		f.addEdge(t, "edge_1")
		e := newEdge("edge_1").follow(t, f.Publisher)
		answer := f.wait(t, e)
		tenant := store.EdgeTenant("edge_1", nil)
		lease := func(sequence, granted, spent int64) {
			report := store.LeaseReport{Domain: "acme.example", Want: 1000}
			report.Counters.Granted, report.Counters.Spent = granted, spent
			err := f.Write(t.Context(), tenant, func(tx *store.Tx) error {
				_, err := tx.Lease(store.LeaseCall{BootNonce: "b", Generation: 1, Sequence: sequence, Leases: []store.LeaseReport{report}})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		lease(1, 0, 0)
		lease(2, 1000, 1000)
		f.Wake()
		page := <-answer
		if page == nil || len(page.Instructions) != 1 || page.Instructions[0].Number != 1 {
			t.Fatalf("got %+v, want the notice to send", page)
		}
		again, err := f.Poll(t.Context(), e.question())
		if err != nil || len(again.Instructions) != 1 {
			t.Errorf("got %+v, %v, want it again until it is acknowledged", again, err)
		}
		if err := f.Write(t.Context(), tenant, func(tx *store.Tx) error { return tx.AcknowledgeInstructions(1, true) }); err != nil {
			t.Fatal(err)
		}
		if page, err := f.Poll(t.Context(), e.question()); page != nil || err != nil {
			t.Errorf("got %+v, %v, want nothing", page, err)
		}
	})
}

// runOnce has the publisher do one round of its upkeep.
func (f *fixture) runOnce(t *testing.T, p *publish.Publisher) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil { // a round at its end, whatever happened before
		t.Fatal(err)
	}
}

func TestCursorThatIsNoneIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		e := newEdge("edge_1").follow(t, f.Publisher)
		for _, after := range []string{"x", "1", ",", "-1,a", "1.5,a", "9999999999999999999,a"} {
			if _, err := f.Poll(t.Context(), publish.Poll{Edge: "edge_1", Epoch: e.epoch, After: after}); !errors.Is(err, publish.ErrCursor) {
				t.Errorf("%q: got %v", after, err)
			}
		}
		if _, err := f.Poll(t.Context(), publish.Poll{Edge: "edge_1", After: "1,a"}); !errors.Is(err, publish.ErrCursor) {
			t.Errorf("without an epoch: got %v", err)
		}
	})
}

func TestWhatEdgesEnforceIsKnownAndWrittenDown(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addEdge(t, "edge_1")
		for i := range 3 {
			f.addDomain(t, "acme", fmt.Sprintf("d%d.example", i))
		}
		f.write(t, func(tx *store.Tx) error { return tx.PublishDomains("acme", false) }) // one revision of three documents
		small := f.publisher(t, publish.Config{PageDocuments: 1})
		e := newEdge("edge_1")
		last := int64(0)
		for e.poll(t, small) {
			if now := small.Sighting("edge_1").Revision; now < last {
				t.Errorf("it enforces %d, then %d", last, now)
			} else {
				last = now
			}
			if len(e.table) < 4 && last == 5 {
				t.Errorf("revision 5 counts as enforced with %v", e.keys)
			}
		}
		if seen := small.Sighting("edge_1"); seen.Revision != 5 || seen.Epoch != e.epoch || !seen.At.Equal(noon) {
			t.Errorf("seen %+v, want revision 5", seen)
		}
		f.runOnce(t, small)
		err := f.Read(t.Context(), store.Operator(), func(tx *store.Tx) error {
			row, err := tx.Edge("edge_1")
			if row.EnforcedRevision != 5 || row.EnforcedEpoch != e.epoch || row.LastSeenAt == nil || !row.LastSeenAt.Equal(noon) {
				t.Errorf("written down %+v", row)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestPollsOfEqualStateShareOneRead(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const polls = 40
		var statements storetest.Statements
		f.addPartner(t, "acme")
		f.Store = f.db.OpenOnly(t, store.Config{Now: f.clock.Now, Log: statements.Logger()})
		p := f.publisher(t, publish.Config{})
		before := statements.Count()
		newEdge("edge_first").poll(t, p)
		first := statements.Count() - before
		before = statements.Count()
		var group errgroup.Group
		for i := range polls {
			group.Go(func() error {
				page, err := p.Poll(t.Context(), publish.Poll{Edge: fmt.Sprint("edge_", i)})
				if err == nil && !strings.Contains(string(page.Documents), "partner/acme") {
					t.Errorf("edge %d is answered %s", i, page.Documents)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		// Each still looks for its own instructions.
		if cost := statements.Count() - before; cost >= polls*first {
			t.Errorf("%d polls took %d statements, one alone %d", polls, cost, first)
		}
	})
}

func TestAnotherProcessIsHeardByTheSlowLook(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		e := newEdge("edge_1").follow(t, f.Publisher)
		answer := f.wait(t, e)
		// This one rings no bell of ours.
		elsewhere := f.db.OpenOnly(t, store.Config{Now: f.clock.Now, Materialise: publish.Materialise})
		err := elsewhere.Write(t.Context(), store.Operator(), func(tx *store.Tx) error { tx.Publish(store.PlatformKey); return nil })
		if err != nil {
			t.Fatal(err)
		}
		f.runOnce(t, f.Publisher)
		e.take(t, <-answer)
		if e.table["platform"].Platform == nil {
			t.Errorf("the edge holds %v", e.keys)
		}
	})
}

// An edge polls one replica, and the operator may speak to another.
func TestAnInstructionOfAnotherProcessWakesAWaitingPoll(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addEdge(t, "edge_1")
		f.runOnce(t, f.Publisher)
		answer := f.wait(t, newEdge("edge_1").follow(t, f.Publisher))
		f.write(t, func(tx *store.Tx) error {
			return tx.OperateQueue(&store.QueueOperation{ID: "qop_1", Action: "retry", Destination: "y.example"})
		})
		f.runOnce(t, f.Publisher)
		if page := <-answer; page == nil || len(page.Instructions) != 1 {
			t.Errorf("got %+v, want the instruction", page)
		}
	})
}
