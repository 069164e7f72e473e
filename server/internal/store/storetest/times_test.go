package storetest_test

import (
	"testing"
	"time"

	"activerelay/server/internal/store"
)

// SQLite keeps instants as text and compares them so; whoever gives one in another zone must not notice.
func TestInstantsInOtherZonesAreTheSameInstants(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		limit := int64(5000)
		tokyo, lima := time.FixedZone("", 9*3600), time.FixedZone("", -5*3600)
		for name, until := range map[string]time.Time{"a.example": noon.Add(time.Hour).In(lima), "b.example": noon.Add(-time.Hour).In(tokyo)} {
			f.addDomain(t, acme, name, func(d *store.Domain) { d.OverrideLimit, d.OverrideExpiresAt = &limit, &until })
		}
		f.addEdge(t, "edge_1")
		f.clock.Set(noon.Add(-2 * time.Hour))
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			tx.Publish(store.DomainKey("a.example"), store.DomainKey("b.example"))
			return nil
		})
		f.clock.Set(noon)
		before := f.documents(t)
		f.write(t, store.System(), func(tx *store.Tx) error { _, err := tx.PublishExpired(); return err })
		after := f.documents(t)
		if after["domain/a.example"] != before["domain/a.example"] || after["domain/b.example"] == before["domain/b.example"] {
			t.Error("want that the override which is over expires, and only that")
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.Domain("a.example")
			if got := *row.OverrideExpiresAt; !got.Equal(noon.Add(time.Hour)) || got.Location() != time.UTC {
				t.Errorf("comes back as %v, want the same instant in UTC", got)
			}
			return err
		})

		// One lease and one day, whatever zone the edge writes its start in.
		first := f.lease(t, "edge_1", 1, store.LeaseReport{Domain: "b.example", Want: 10})
		again := store.LeaseReport{Domain: "b.example", DayStart: first.Day.DayStart.In(tokyo), Want: 10}
		again.Counters.Granted, again.Counters.Spent = 10, 4
		f.lease(t, "edge_1", 2, again)
		f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error {
			_, err := tx.RecordEvents(store.EventBatch{Generation: 1, FirstKept: 1, Events: []store.Event{
				{Sequence: 1, Time: noon.In(tokyo), DayStart: first.Day.DayStart.In(lima), Kind: store.EventAccepted, Domain: "b.example", Recipients: 2},
				{Sequence: 2, Time: noon.In(lima), Kind: store.EventRefused, Reason: "bulk-refused", Ref: "r", Domain: "b.example", Sender: "s@b.example"},
			}})
			return err
		})
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			days, err := tx.DayReports(store.DayFilter{From: "2026-01-01", To: "2026-12-31"}, store.DayCursor{}, 10)
			if len(days) != 1 || days[0].Spent != 4 || days[0].Messages != 1 {
				t.Errorf("reported %+v, want one day with all of it", days)
			}
			senders, err2 := tx.TopSenders("b.example", first.Day.DayStart.In(tokyo), store.SenderAddress, 10)
			if len(senders) != 1 {
				t.Errorf("%d senders are found, want 1", len(senders))
			}
			return all(func() error { return err }, func() error { return err2 })
		})
	})
}
