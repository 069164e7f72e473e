package storetest_test

import (
	"strings"
	"testing"

	"activerelay/server/internal/store"
)

// A notice that a lost edge never sent is not lost with it, and one that it sent does not go out again.
func TestTheNextEdgeSendsTheNoticeThatARetiredOneDidNot(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addEdge(t, "edge_1")
		sequence := map[string]int64{}
		use := func(edge, domain string, granted, spent int64) store.LeaseGrant {
			sequence[edge]++
			report := store.LeaseReport{Domain: domain, Want: 1000}
			report.Counters.Granted, report.Counters.Spent = granted, spent
			return f.lease(t, edge, sequence[edge], report)
		}
		for _, domain := range []string{"sent.example", "unsent.example"} {
			f.addDomain(t, acme, domain, nil)
			grant := use("edge_1", domain, 0, 0)
			for grant.State != "reached" {
				grant = use("edge_1", domain, *grant.Granted, *grant.Granted)
			}
			if domain == "sent.example" {
				f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error { return tx.AcknowledgeInstructions(100, true) })
			}
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockEdge("edge_1")
			return all(func() error { return err }, func() error { return tx.RetireEdge(&row) })
		})
		f.addEdge(t, "edge_2")
		for _, domain := range []string{"sent.example", "unsent.example"} {
			use("edge_2", domain, 0, 0)
		}
		f.read(t, store.EdgeTenant("edge_2", nil), func(tx *store.Tx) error {
			rows, err := tx.Instructions(10)
			if err == nil && (len(rows) != 1 || !strings.Contains(rows[0].Body, "unsent.example")) {
				t.Errorf("the other edge is told %+v, want to send the notice to unsent.example", rows)
			}
			return err
		})
	})
}

func TestARetiredEdgeHasNothingInItsQueueAndInstructionsAreCountedOn(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		f.tell(t, "edge_1", accepted(first, "acme.example", "y.example", "z.example"))
		is := func(queued, given int64) {
			t.Helper()
			f.read(t, store.Operator(), func(tx *store.Tx) error {
				n, err := tx.CountQueued(store.QueueFilter{Edge: "edge_1"})
				if err != nil || n != queued {
					t.Errorf("%d messages wait, %v, want %d", n, err, queued)
				}
				if n, err = tx.InstructionsGiven(); n != given {
					t.Errorf("%d instructions were given, want %d", n, given)
				}
				return err
			})
		}
		is(1, 0)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			return tx.OperateQueue(&store.QueueOperation{ID: "qop_1", Action: "retry", Destination: "y.example"})
		})
		is(1, 1)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockEdge("edge_1")
			return all(func() error { return err }, func() error { return tx.RetireEdge(&row) })
		})
		is(0, 1)
	})
}
