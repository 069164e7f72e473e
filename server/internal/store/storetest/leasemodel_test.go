package storetest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"activerelay/api/quota"
	"activerelay/server/internal/store"
)

// fleet is a model of edges that hold leases of one control plane. It knows what none of the edges may know: how many
// units were really spent.
type fleet struct {
	*fixture
	sql *sql.DB
	// name tells this fleet's rows from those of other runs on the same database.
	name    string
	domains []string
	edges   []*modelEdge
	// spent is the truth, by domain and start of the day.
	spent map[unitsOf]int64
	// calls are all that were ever sent, delivered or not.
	calls []sentCall
	// seen are the counters as last found in the database.
	seen   map[string]quota.Counters
	nonces int
	epoch  string
}

type unitsOf struct {
	domain string
	start  int64
}

type modelEdge struct {
	id, nonce            string
	generation, sequence int64
	// leases are the edge's side, each with the day that it is of.
	leases map[unitsOf]*modelLease
	// silent: it must hear from the control plane before it spends, since it has just started.
	silent, retired bool
	// backup is an older state of its disk.
	backup *modelDisk
}

type modelDisk struct {
	generation, sequence int64
	leases               map[unitsOf]modelLease
}

type modelLease struct {
	day      quota.Day
	counters quota.Counters
}

type sentCall struct {
	edge *modelEdge
	call store.LeaseCall
}

// newFleet adds three edges and two domains of one partner.
func newFleet(t *rapid.T, f *fixture, db *sql.DB, run int) *fleet {
	g := &fleet{fixture: f, sql: db, name: fmt.Sprintf("run%d", run), spent: map[unitsOf]int64{}, seen: map[string]quota.Counters{}}
	f.clock.Set(noon.Add(time.Duration(rapid.IntRange(0, 23).Draw(t, "hour")) * time.Hour))
	f.addPartner(t, g.name)
	for i := range 2 {
		g.domains = append(g.domains, fmt.Sprintf("d%d.%s.example", i, g.name))
		f.addDomain(t, g.name, g.domains[i], nil)
	}
	for i := range 3 {
		e := &modelEdge{id: fmt.Sprintf("edge_%s_%d", g.name, i), generation: 1, nonce: g.nonce(), leases: map[unitsOf]*modelLease{}}
		f.addEdge(t, e.id, g.name)
		g.edges = append(g.edges, e)
	}
	f.read(t, store.System(), func(tx *store.Tx) (err error) {
		g.epoch, err = tx.Epoch()
		return err
	})
	return g
}

func (g *fleet) nonce() string {
	g.nonces++
	return fmt.Sprintf("boot-%s-%d", g.name, g.nonces)
}

// running returns the lease of the running day, as far as the edge knows.
func (e *modelEdge) running(domain string, now time.Time) *modelLease {
	for key, lease := range e.leases {
		if key.domain == domain && lease.day.Contains(now) {
			return lease
		}
	}
	return nil
}

// report makes the next call: all counters that the edge has, and what it wants of the running days.
func (g *fleet) report(e *modelEdge, want, atLeast int64) store.LeaseCall {
	e.sequence++
	call := store.LeaseCall{BootNonce: e.nonce, Generation: e.generation, Sequence: e.sequence, Complete: true}
	now := g.clock.Now()
	for key, lease := range e.leases {
		r := store.LeaseReport{Domain: key.domain, DayStart: lease.day.Start, Counters: lease.counters}
		if lease.day.Contains(now) {
			r.Want, r.AtLeast = want, atLeast
		}
		call.Leases = append(call.Leases, r)
	}
	for _, domain := range g.domains {
		if e.running(domain, now) == nil {
			call.Leases = append(call.Leases, store.LeaseReport{Domain: domain, Want: want, AtLeast: atLeast})
		}
	}
	g.calls = append(g.calls, sentCall{e, call})
	return call
}

// deliver has the control plane take a call, and the edge the reply unless that is lost.
func (g *fleet) deliver(t *rapid.T, e *modelEdge, call store.LeaseCall, lost bool) {
	var reply store.LeaseReply
	err := g.Write(context.Background(), store.EdgeTenant(e.id, []string{g.name}), func(tx *store.Tx) (err error) {
		reply, err = tx.Lease(call)
		return err
	})
	if e.retired {
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("a retired edge is answered %v, want not found", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if reply.Learning {
		t.Fatal("the control plane takes itself for restored")
	}
	if !lost && call.BootNonce == e.nonce && call.Sequence == e.sequence {
		g.take(e, reply)
	}
}

// take applies a reply as the protocol wants it.
func (g *fleet) take(e *modelEdge, reply store.LeaseReply) {
	if reply.Fenced != "" {
		e.silent = true
		return
	}
	e.silent = false
	if reply.Generation != e.generation {
		e.generation, e.leases = reply.Generation, map[unitsOf]*modelLease{}
	}
	for _, grant := range reply.Leases {
		if grant.Granted == nil {
			continue
		}
		key := unitsOf{grant.Domain, grant.Day.DayStart.Unix()}
		lease := e.leases[key]
		if lease == nil {
			lease = &modelLease{day: grant.Day.Span()}
			e.leases[key] = lease
		}
		lease.counters.Granted = max(lease.counters.Granted, *grant.Granted)
	}
}

// spend accepts messages as far as units are held.
func (g *fleet) spend(e *modelEdge, domain string, units int64) {
	lease := e.running(domain, g.clock.Now())
	if e.silent || lease == nil {
		return
	}
	units = min(units, lease.counters.Held())
	lease.counters.Spent += units
	g.spent[unitsOf{domain, lease.day.Start.Unix()}] += units
}

// restart ends the edge's process and begins another, on the disk as it is.
func (g *fleet) restart(e *modelEdge) {
	e.nonce, e.silent = g.nonce(), true
}

// backUp copies the disk of an edge.
func (e *modelEdge) backUp() {
	e.backup = &modelDisk{e.generation, e.sequence, map[unitsOf]modelLease{}}
	for key, lease := range e.leases {
		e.backup.leases[key] = *lease
	}
}

// restore sets the disk of an edge back, where that can be found out: a call that it has forgotten was taken.
func (g *fleet) restore(t *rapid.T, e *modelEdge) {
	if e.backup == nil {
		return
	}
	provable := false
	g.read(t, store.System(), func(tx *store.Tx) error {
		row, err := tx.Edge(e.id)
		provable = e.backup.generation < row.Generation || e.backup.sequence < row.LeaseSequence
		return err
	})
	if !provable {
		return
	}
	e.generation, e.sequence, e.leases = e.backup.generation, e.backup.sequence, map[unitsOf]*modelLease{}
	for key, lease := range e.backup.leases {
		e.leases[key] = &lease
	}
	g.restart(e)
}

// stored returns the counters of a lease in the database.
func (g *fleet) stored(t *rapid.T, key unitsOf, edge string, generation int64) (c quota.Counters) {
	for _, row := range g.rows(t) {
		if row.lease.Edge == edge && row.lease.Generation == generation && row.lease.Domain == key.domain && row.day.DayStart.Unix() == key.start {
			return row.lease.Counters()
		}
	}
	return c
}

type leaseRow struct {
	day   store.QuotaDay
	lease store.QuotaLease
}

// rows reads all leases of the fleet with their days, past the store.
func (g *fleet) rows(t fatal) []leaseRow {
	rows, err := g.sql.Query(fmt.Sprintf(`SELECT d.domain, d.day_start, d.day_end, d.quota_limit, d.held, d.recovered, d.spent,
			l.edge, l.generation, l.granted, l.spent, l.returned
		FROM quota_days AS d JOIN quota_leases AS l ON l.domain = d.domain AND l.day_start = d.day_start
		WHERE d.partner = '%s' ORDER BY d.domain, d.day_start`, g.name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var found []leaseRow
	for rows.Next() {
		var r leaseRow
		err := rows.Scan(&r.day.Domain, &r.day.DayStart, &r.day.DayEnd, &r.day.Limit, &r.day.Held, &r.day.Recovered, &r.day.Spent,
			&r.lease.Edge, &r.lease.Generation, &r.lease.Granted, &r.lease.Spent, &r.lease.Returned)
		if err != nil {
			t.Fatal(err)
		}
		r.lease.Domain = r.day.Domain
		found = append(found, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// check holds the database and the truth to the rules.
func (g *fleet) check(t *rapid.T) {
	days := map[unitsOf]store.QuotaDay{}
	net, spent := map[unitsOf]int64{}, map[unitsOf]int64{}
	for _, r := range g.rows(t) {
		key := unitsOf{r.day.Domain, r.day.DayStart.Unix()}
		days[key] = r.day
		net[key] += r.lease.Granted - r.lease.Returned
		spent[key] += r.lease.Spent
		if !r.lease.Counters().Valid() {
			t.Fatalf("a lease stands at %+v", r.lease)
		}
		id := fmt.Sprint(key, r.lease.Edge, r.lease.Generation)
		if r.lease.Counters().Behind(g.seen[id]) {
			t.Fatalf("the lease of %s went from %+v back to %+v", id, g.seen[id], r.lease)
		}
		g.seen[id] = r.lease.Counters()
	}
	for key, day := range days {
		switch {
		case net[key] != day.Held:
			t.Fatalf("%v: the leases hold %d, the day says %d", key, net[key], day.Held)
		case day.Recovered != 0:
			t.Fatalf("%v: %d units are recovered though nothing was restored", key, day.Recovered)
		case day.Held > day.Limit:
			t.Fatalf("%v: %d units are held of a limit of %d", key, day.Held, day.Limit)
		case spent[key] != day.Spent:
			t.Fatalf("%v: the leases have %d spent, the day %d", key, spent[key], day.Spent)
		}
	}
	for key, units := range g.spent {
		if units > days[key].Limit {
			t.Fatalf("%v: %d units were spent of a limit of %d", key, units, days[key].Limit)
		}
	}
	ordered := slices.SortedFunc(maps.Values(days), func(a, b store.QuotaDay) int {
		if a.Domain != b.Domain {
			return len(a.Domain) - len(b.Domain) + int(a.Domain[1]) - int(b.Domain[1])
		}
		return a.DayStart.Compare(b.DayStart)
	})
	for i := 1; i < len(ordered); i++ {
		a, b := ordered[i-1], ordered[i]
		if a.Domain == b.Domain && a.DayEnd.After(b.DayStart) {
			t.Fatalf("the days of %s overlap: %v and %v", a.Domain, a.Span(), b.Span())
		}
	}
}

// settle has every edge report all that it spent, and holds the reports to it.
func (g *fleet) settle(t *rapid.T) {
	for _, e := range g.edges {
		for range 4 { // a refused edge needs another call to hear its generation, and one to report in it
			g.deliver(t, e, g.report(e, 0, 0), false)
		}
	}
	g.check(t)
	expected := map[unitsOf]int64{}
	for _, r := range g.rows(t) {
		expected[unitsOf{r.day.Domain, r.day.DayStart.Unix()}] += r.lease.Spent
	}
	for _, e := range g.edges {
		for key, lease := range e.leases {
			if got := g.stored(t, key, e.id, e.generation); !e.retired && got.Spent != lease.counters.Spent {
				t.Fatalf("%s spent %d of %v, the control plane knows of %d", e.id, lease.counters.Spent, key, got.Spent)
			}
		}
	}
	g.read(t, store.PartnerTenant(g.name), func(tx *store.Tx) error {
		reports, err := tx.DayReports(store.DayFilter{From: "2026-01-01", To: "2027-12-31"}, store.DayCursor{}, 1000)
		for _, day := range reports {
			key := unitsOf{day.Domain, day.DayStart.Unix()}
			if day.Spent != expected[key] {
				t.Fatalf("%v: the report says %d, the edges %d", key, day.Spent, expected[key])
			}
			delete(expected, key)
		}
		for key, units := range expected {
			if units != 0 {
				t.Fatalf("%v: %d units are in no report", key, units)
			}
		}
		epoch, err2 := tx.Epoch()
		if epoch != g.epoch {
			t.Fatal("a new epoch began though nothing was restored")
		}
		return errors.Join(err, err2)
	})
	for _, e := range g.edges {
		g.retire(t, e)
	}
}

func (g *fleet) retire(t *rapid.T, e *modelEdge) {
	if e.retired {
		return
	}
	g.write(t, store.Operator(), func(tx *store.Tx) error {
		row, err := tx.LockEdge(e.id)
		return all(func() error { return err }, func() error { return tx.RetireEdge(&row) })
	})
	e.retired = true
}

// setLimit changes the limit of a domain as the API does.
func (g *fleet) setLimit(t *rapid.T, domain string, limit int64) {
	g.write(t, store.Operator(), func(tx *store.Tx) error {
		row, err := tx.LockDomain(domain)
		if err != nil {
			return err
		}
		until := tx.Now.Add(10 * 24 * time.Hour)
		row.OverrideLimit, row.OverrideExpiresAt = &limit, &until
		return all(func() error { return tx.UpdateDomain(&row) }, func() error { return tx.RaiseRunningDay(domain, limit) })
	})
}

// setZone changes the zone of a domain as the API does.
func (g *fleet) setZone(t *rapid.T, domain, zone string) {
	g.write(t, store.Operator(), func(tx *store.Tx) error {
		row, err := tx.LockDomain(domain)
		if err != nil {
			return err
		}
		row.TimeZone = &zone
		return all(func() error { return tx.FixRunningDay(domain) }, func() error { return tx.UpdateDomain(&row) })
	})
}
