package storetest_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"activerelay/api/quota"
	"activerelay/server/internal/store"
)

// Row 25 of the fault matrix, and more: whatever is lost, repeated, delayed or set back, no unit is spent over the limit
// and no spent one is forgotten.
func TestLeasesNeverOverspendNorForget(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		db, runs := f.db.SQL(t), 0
		rapid.Check(t, func(t *rapid.T) {
			runs++
			g := newFleet(t, f, db, runs)
			edge := func() *modelEdge { return rapid.SampledFrom(g.edges).Draw(t, "edge") }
			domain := func() string { return rapid.SampledFrom(g.domains).Draw(t, "domain") }
			units := func() int64 { return rapid.Int64Range(0, 700).Draw(t, "units") }
			call := func() {
				e := edge()
				atLeast := rapid.SampledFrom([]int64{0, 0, 1, 30}).Draw(t, "at least")
				g.deliver(t, e, g.report(e, units(), atLeast), rapid.IntRange(0, 3).Draw(t, "lost") == 0)
			}
			t.Repeat(map[string]func(*rapid.T){
				"call": func(*rapid.T) { call() }, "call again": func(*rapid.T) { call() },
				"call and spend": func(*rapid.T) {
					e, d := edge(), domain()
					g.deliver(t, e, g.report(e, units(), 0), false)
					g.spend(e, d, units())
				},
				"send": func(*rapid.T) { e := edge(); g.report(e, units(), 0) },
				"deliver any": func(*rapid.T) {
					if len(g.calls) > 0 {
						c := rapid.SampledFrom(g.calls).Draw(t, "call")
						g.deliver(t, c.edge, c.call, false)
					}
				},
				"spend": func(*rapid.T) { g.spend(edge(), domain(), units()) },
				"return": func(*rapid.T) {
					if lease := edge().running(domain(), f.clock.Now()); lease != nil {
						lease.counters.Returned += min(units(), lease.counters.Held())
					}
				},
				"restart":  func(*rapid.T) { g.restart(edge()) },
				"back up":  func(*rapid.T) { edge().backUp() },
				"set back": func(*rapid.T) { g.restore(t, edge()) },
				"retire": func(*rapid.T) {
					if e := edge(); e != g.edges[0] && rapid.IntRange(0, 3).Draw(t, "really") == 0 {
						g.retire(t, e)
					}
				},
				"limit": func(*rapid.T) {
					g.setLimit(t, domain(), rapid.SampledFrom([]int64{0, 50, 999, 1500, 3000}).Draw(t, "limit"))
				},
				"zone": func(*rapid.T) {
					zones := []string{"UTC", "Asia/Kolkata", "America/Los_Angeles", "Pacific/Kiritimati", "Pacific/Pago_Pago"}
					g.setZone(t, domain(), rapid.SampledFrom(zones).Draw(t, "zone"))
				},
				"time": func(*rapid.T) {
					f.clock.Advance(time.Duration(rapid.IntRange(1, 30000).Draw(t, "seconds")) * time.Second)
				},
				"": g.check,
			})
			g.settle(t)
		})
	})
}

// Row 24 of the fault matrix, in short.
func TestEdgesThatRaceForTheLastUnitsAcceptExactlyTheLimit(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const edges, limit = 16, 1000
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		var accepted, rounds atomic.Int64
		var group errgroup.Group
		for i := range edges {
			f.addEdge(t, fmt.Sprintf("edge_%02d", i))
		}
		for i := range edges {
			id := fmt.Sprintf("edge_%02d", i)
			group.Go(func() error {
				var counters quota.Counters
				var start time.Time
				for sequence := int64(1); ; sequence++ {
					rounds.Add(1)
					// Two messages wait; some edges want to stock up, and give back what is left in the next call.
					call := store.LeaseCall{BootNonce: id, Generation: 1, Sequence: sequence, Leases: []store.LeaseReport{{
						Domain: "acme.example", DayStart: start, Counters: counters, Want: int64(2 + i%3*20), AtLeast: 1,
					}}}
					var grant store.LeaseGrant
					err := f.Write(context.Background(), store.EdgeTenant(id, nil), func(tx *store.Tx) error {
						reply, err := tx.Lease(call)
						if err == nil {
							grant = reply.Leases[0]
						}
						return err
					})
					if err != nil {
						return err
					}
					counters.Granted, start = *grant.Granted, grant.Day.DayStart
					if grant.State == string(quota.Reached) {
						return nil
					}
					use := min(counters.Held(), 2+counters.Held()/2)
					counters.Spent += use
					accepted.Add(use)
					if i%3 > 0 {
						counters.Returned += counters.Held() / 2
					}
				}
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if accepted.Load() != limit {
			t.Errorf("%d edges accepted %d, want exactly %d", edges, accepted.Load(), limit)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			figures, err := tx.DomainQuota("acme.example")
			if figures.Day.Spent != limit || figures.Day.Held != limit || len(figures.Leases) < 2 {
				t.Errorf("the day says %+v with %d leases", figures.Day, len(figures.Leases))
			}
			return err
		})
		t.Logf("%d calls", rounds.Load())
	})
}

// lease asks for units of a domain as an edge that knows nothing yet, in its next call.
func (f *fixture) lease(t fatal, edge string, sequence int64, report store.LeaseReport) store.LeaseGrant {
	t.Helper()
	var grant store.LeaseGrant
	f.write(t, store.EdgeTenant(edge, nil), func(tx *store.Tx) error {
		reply, err := tx.Lease(store.LeaseCall{
			BootNonce: "boot", Generation: 1, Sequence: sequence, Complete: true, Leases: []store.LeaseReport{report},
		})
		if err == nil && reply.Fenced != "" {
			return fmt.Errorf("fenced: %s", reply.Fenced)
		}
		if err == nil {
			grant = reply.Leases[0]
		}
		return err
	})
	return grant
}

func TestDaysOfZonesThatChangeTheirClocks(t *testing.T) {
	days := []struct {
		zone, day string
		start     time.Time
		hours     float64
	}{
		{"America/Havana", "2026-03-08", time.Date(2026, 3, 8, 5, 0, 0, 0, time.UTC), 23},         // 00:00 is 01:00
		{"America/Santiago", "2026-09-06", time.Date(2026, 9, 6, 4, 0, 0, 0, time.UTC), 23},       // 00:00 is 01:00
		{"America/Havana", "2026-11-01", time.Date(2026, 11, 1, 4, 0, 0, 0, time.UTC), 25},        // 00:00 comes twice
		{"Europe/Berlin", "2026-03-29", time.Date(2026, 3, 28, 23, 0, 0, 0, time.UTC), 23},        // 02:00 is 03:00
		{"Europe/Berlin", "2026-10-25", time.Date(2026, 10, 24, 22, 0, 0, 0, time.UTC), 25},       // 03:00 is 02:00
		{"Australia/Lord_Howe", "2026-04-05", time.Date(2026, 4, 4, 13, 0, 0, 0, time.UTC), 24.5}, // half an hour
	}
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addEdge(t, "edge_1")
		sequence := int64(0)
		for i, day := range days {
			name := fmt.Sprintf("d%d.example", i)
			f.addDomain(t, acme, name, func(d *store.Domain) { d.TimeZone = &day.zone })
			end := day.start.Add(time.Duration(day.hours * float64(time.Hour)))
			lease := func(at time.Time) store.LeaseGrant {
				f.clock.Set(at)
				sequence++
				return f.lease(t, "edge_1", sequence, store.LeaseReport{Domain: name, Want: 1000, AtLeast: 1000})
			}
			before := lease(day.start.Add(-time.Second))
			if !before.Day.DayEnd.Equal(day.start) || *before.Granted != 1000 {
				t.Errorf("%s, a second before %s: day to %v with %d units", day.zone, day.day, before.Day.DayEnd, *before.Granted)
			}
			first := lease(day.start)
			if !first.Day.DayStart.Equal(day.start) || !first.Day.DayEnd.Equal(end) || first.Day.Day != day.day || *first.Granted != 1000 {
				t.Errorf("%s: got %s from %v to %v with %d units, want %s from %v to %v with 1000", day.zone,
					first.Day.Day, first.Day.DayStart, first.Day.DayEnd, *first.Granted, day.day, day.start, end)
			}
			last := lease(end.Add(-time.Second))
			if !last.Day.DayStart.Equal(day.start) || *last.Granted != 1000 {
				t.Errorf("%s: its last second is of the day from %v with %d units", day.zone, last.Day.DayStart, *last.Granted)
			}
			next := lease(end)
			if !next.Day.DayStart.Equal(end) || *next.Granted != 1000 {
				t.Errorf("%s: what follows it starts at %v with %d units", day.zone, next.Day.DayStart, *next.Granted)
			}
		}
	})
}

func TestChangeOfZoneTakesEffectWhenTheDayEnds(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		// Nothing is leased yet: the running day is UTC's all the same once the zone changes.
		zone := "Asia/Tokyo"
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockDomain("acme.example")
			row.TimeZone = &zone
			return all(func() error { return err }, func() error { return tx.FixRunningDay("acme.example") }, func() error { return tx.UpdateDomain(&row) })
		})
		running := f.lease(t, "edge_1", 1, store.LeaseReport{Domain: "acme.example", Want: 1})
		midnight := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		if !running.Day.DayEnd.Equal(midnight) || running.Day.TimeZone != "UTC" {
			t.Errorf("the running day ends at %v in %s, want at midnight UTC", running.Day.DayEnd, running.Day.TimeZone)
		}
		f.clock.Set(midnight)
		next := f.lease(t, "edge_1", 2, store.LeaseReport{Domain: "acme.example", Want: 1})
		// Tokyo's next midnight is 15 hours away.
		if !next.Day.DayStart.Equal(midnight) || !next.Day.DayEnd.Equal(midnight.Add(15*time.Hour)) || next.Day.TimeZone != zone {
			t.Errorf("the next day is %v in %s, want 15 hours in Tokyo", next.Day.Span(), next.Day.TimeZone)
		}
	})
}

func TestLimitRisesAtOnceAndFallsTomorrow(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		set := func(limit int64) {
			until := noon.Add(100 * time.Hour)
			f.write(t, store.Operator(), func(tx *store.Tx) error {
				row, err := tx.LockDomain("acme.example")
				row.OverrideLimit, row.OverrideExpiresAt = &limit, &until
				return all(func() error { return err }, func() error { return tx.UpdateDomain(&row) }, func() error { return tx.RaiseRunningDay("acme.example", limit) })
			})
		}
		inForce := func() (limit int64) {
			f.read(t, store.CustomerTenant(acme, "acme.example"), func(tx *store.Tx) error {
				figures, err := tx.DomainQuota("acme.example")
				limit = figures.Day.Limit
				return err
			})
			return limit
		}
		f.lease(t, "edge_1", 1, store.LeaseReport{Domain: "acme.example", Want: 1})
		if got := inForce(); got != 1000 {
			t.Errorf("limit %d, want the floor", got)
		}
		const huge = 5_000_000_000 // more than 32 bits
		set(huge)
		grant := f.lease(t, "edge_1", 2, store.LeaseReport{Domain: "acme.example", Want: huge})
		if got := inForce(); got != huge || *grant.Granted != huge {
			t.Errorf("limit %d with %d granted after the rise", got, *grant.Granted)
		}
		set(10)
		if got := inForce(); got != huge {
			t.Errorf("limit %d, want that the fall waits for the next day", got)
		}
		f.clock.Advance(12 * time.Hour)
		if got := inForce(); got != 10 {
			t.Errorf("limit %d on the next day, want 10", got)
		}
		f.clock.Set(noon.Add(100 * time.Hour))
		if got := inForce(); got != 1000 {
			t.Errorf("limit %d after the override, want the floor", got)
		}
	})
}

func TestTermsFollowFromDomainPartnerAndPlatform(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		own := "Asia/Tokyo"
		f.addPartner(t, acme)
		f.addDomain(t, acme, "own.example", func(d *store.Domain) { d.TimeZone, d.LicensedUsers = &own, 21 })
		f.addDomain(t, acme, "inherits.example", nil)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockPartner(acme)
			row.TimeZone = "Europe/Lisbon"
			return all(func() error { return err }, func() error { return tx.UpdatePartner(&row) })
		})
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			domains, err := tx.Domains(store.DomainFilter{}, "", 10)
			if err != nil {
				return err
			}
			terms, err := tx.QuotaTerms(domains...)
			if err != nil {
				return err
			}
			facts, err := tx.InForce(domains...)
			want := []store.QuotaTerms{{Limit: 1000, TimeZone: "Europe/Lisbon"}, {Limit: 1050, TimeZone: own}}
			for i, w := range want {
				if terms[i] != w || facts[domains[i].Name] != store.InForce(w) {
					t.Errorf("%s: %+v and %+v, want %+v", domains[i].Name, terms[i], facts[domains[i].Name], w)
				}
			}
			return err
		})
	})
}
