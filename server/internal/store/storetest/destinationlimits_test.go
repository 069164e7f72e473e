package storetest_test

import (
	"errors"
	"slices"
	"testing"

	"activerelay/server/internal/store"
)

func TestTheLimitsOfDestinationsAreThePlatformsOwn(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			return all(
				func() error {
					return tx.InsertDestinationLimit(&store.DestinationLimit{Destination: "b.example", MaxConnections: 1})
				},
				func() error {
					return tx.InsertDestinationLimit(&store.DestinationLimit{Destination: "a.example", MessagesPerMinute: 60, Reason: "asked"})
				},
			)
		})
		again := f.attempt(store.Operator(), func(tx *store.Tx) error {
			return tx.InsertDestinationLimit(&store.DestinationLimit{Destination: "b.example"})
		})
		if !store.IsConflict(again, "destination_limits_pkey") {
			t.Errorf("the same destination again: %v", again)
		}
		update := func(stale bool) error {
			return f.attempt(store.Operator(), func(tx *store.Tx) error {
				row, err := tx.LockDestinationLimit("b.example")
				row.MaxConnections, row.MessagesPerMinute = 0, 30
				return stepped(err, &row.Version, stale, func() error { return tx.UpdateDestinationLimit(&row) })
			})
		}
		if err := update(false); err != nil {
			t.Fatal(err)
		}
		if err := update(true); !store.IsConflict(err, store.VersionConstraint) {
			t.Errorf("a stale change: %v", err)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			every, err := tx.AllDestinationLimits()
			after, err2 := tx.DestinationLimits("a.example", 1)
			row, err3 := tx.DestinationLimit("b.example")
			name := func(r store.DestinationLimit) string { return r.Destination }
			if got := owners(every, name); !slices.Equal(got, []string{"a.example", "b.example"}) {
				t.Errorf("all are %q", got)
			}
			if got := owners(after, name); !slices.Equal(got, []string{"b.example"}) {
				t.Errorf("the second page is %q", got)
			}
			if row.MaxConnections != 0 || row.MessagesPerMinute != 30 || row.Version != 2 {
				t.Errorf("changed to %+v", row)
			}
			return errors.Join(err, err2, err3)
		})
		for _, tenant := range []store.Tenant{store.PartnerTenant(acme), store.CustomerTenant(acme, "acme.example")} {
			f.read(t, tenant, func(tx *store.Tx) error {
				if rows, err := tx.AllDestinationLimits(); err != nil || len(rows) != 0 {
					t.Errorf("%+v sees %v, %v", tenant, rows, err)
				}
				if _, err := tx.DestinationLimit("b.example"); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%+v: %v, want not found", tenant, err)
				}
				return nil
			})
		}
		remove := func(tx *store.Tx) error { return tx.DeleteDestinationLimit("b.example") }
		if err := f.attempt(store.Operator(), remove); err != nil {
			t.Fatal(err)
		}
		if err := f.attempt(store.Operator(), remove); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
	})
}
