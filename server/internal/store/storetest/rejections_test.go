package storetest_test

import (
	"testing"
	"time"

	"activerelay/server/internal/store"
)

func TestARejectionStandsOnlyWhileTheEdgeHoldsTheDocument(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		document := store.DomainKey("acme.example")
		revision := func() (last int64) {
			f.read(t, store.System(), func(tx *store.Tx) (err error) { last, err = tx.Revision(); return err })
			return last
		}
		enforces := func(revision int64) {
			f.write(t, store.System(), func(tx *store.Tx) error {
				return tx.SaveSeen(map[string]store.EdgeSeen{"edge_1": {At: noon, Epoch: "epoch", Revision: revision}})
			})
		}
		stands := func(when string, want int64) {
			t.Helper()
			f.read(t, store.Operator(), func(tx *store.Tx) error {
				last, err := tx.LastRejections([]string{"edge_1", "edge_2"})
				if got := last["edge_1"]; got.Standing != want || len(last) > 1 {
					t.Errorf("%s: %+v, want %d of edge_1", when, last, want)
				} else if want > 0 && (got.Document != document || got.Detail != "/limit: is negative" || !got.OccurredAt.Equal(noon)) {
					t.Errorf("%s: %+v", when, got)
				}
				return err
			})
		}
		rejects := func(revision int64) {
			f.tell(t, "edge_1", store.Event{Kind: store.EventPolicyRejected, PolicyRevision: revision, Detail: document + ": /limit: is negative"})
		}
		publish := func() {
			f.write(t, store.Operator(), func(tx *store.Tx) error { tx.Publish(document); return nil })
		}
		publish()
		stands("before", 0)
		first := revision()
		rejects(first)
		enforces(first)
		stands("it enforces the rest", 1)
		publish()
		enforces(revision())
		stands("it enforces another in its place", 0)
		rejects(first)
		stands("told so late that another is in its place", 0)
		rejects(revision() + 40)
		stands("of a history that the database does not know", 0)
		rejects(revision())
		stands("it rejects the other, too", 1)

		f.write(t, store.Operator(), func(tx *store.Tx) error {
			tx.Publish(document)
			return tx.DeleteDomain("acme.example")
		})
		stands("deleted, not heard of", 1)
		enforces(revision())
		stands("deleted", 0)
		f.write(t, store.System(), func(tx *store.Tx) error {
			_, err := tx.PurgeTombstones(noon.Add(time.Hour))
			return err
		})
		rejects(revision()) // of what nobody knows any more
		stands("forgotten", 0)
	})
}
