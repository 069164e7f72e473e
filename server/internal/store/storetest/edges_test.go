package storetest_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"activerelay/api/quota"
	"activerelay/server/internal/store"
)

func TestEdgeRotatesItsCredential(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addEdge(t, "edge_1")
		promote := func(hash string) {
			f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error { return tx.PromoteCredential("edge_1", []byte(hash)) })
		}
		credential := func() (row store.Edge) {
			f.read(t, store.Operator(), func(tx *store.Tx) (err error) {
				row, err = tx.Edge("edge_1")
				return err
			})
			return row
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockEdge("edge_1")
			return all(func() error { return err }, func() error { return tx.SetNextCredential(&row, []byte("next")) })
		})
		promote("another")
		if row := credential(); string(row.CredentialHash) != "edge_1" || string(row.NextCredentialHash) != "next" {
			t.Errorf("after a strange credential: %q and %q", row.CredentialHash, row.NextCredentialHash)
		}
		for range 2 { // two calls with it may come at once
			promote("next")
		}
		if row := credential(); string(row.CredentialHash) != "next" || row.NextCredentialHash != nil {
			t.Errorf("after its first use: %q and %q", row.CredentialHash, row.NextCredentialHash)
		}
	})
}

// Control 12.
func TestRetiredEdgeIsAnsweredNothingAndItsUnitsStayCounted(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		f.lease(t, "edge_1", 1, store.LeaseReport{Domain: "acme.example", Want: 300})
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockEdge("edge_1")
			return all(func() error { return err }, func() error { return tx.RetireEdge(&row) })
		})
		err := f.attempt(store.EdgeTenant("edge_1", nil), func(tx *store.Tx) error {
			_, err := tx.Lease(store.LeaseCall{BootNonce: "boot", Generation: 1, Sequence: 2})
			return err
		})
		if !notFound(err) {
			t.Errorf("got %v, want not found", err)
		}
		grant := f.lease(t, "edge_2", 1, store.LeaseReport{Domain: "acme.example", Want: 1000})
		if *grant.Granted != 700 {
			t.Errorf("%d units for the other edge, want the 700 that are left", *grant.Granted)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.Edge("edge_1")
			if row.Status != store.EdgeRetired || row.CredentialHash != nil || row.RetiredAt == nil {
				t.Errorf("the retired edge is %+v", row)
			}
			return err
		})
	})
}

func TestWhatEdgesEnforceIsWrittenDownTogether(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		f.write(t, store.System(), func(tx *store.Tx) error {
			return tx.SaveSeen(map[string]store.EdgeSeen{
				"edge_1": {At: noon, Epoch: "e", Revision: 7, Version: "1.2.0", Capability: 3}, "edge_2": {At: noon}, "edge_gone": {At: noon},
			})
		})
		f.write(t, store.System(), func(tx *store.Tx) error {
			return tx.SaveSeen(map[string]store.EdgeSeen{"edge_1": {At: noon.Add(time.Second)}})
		})
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.Edge("edge_1")
			if row.EnforcedEpoch != "e" || row.EnforcedRevision != 7 || !row.LastSeenAt.Equal(noon.Add(time.Second)) {
				t.Errorf("kept %q %d %v: a call that says nothing of policy must not forget it", row.EnforcedEpoch, row.EnforcedRevision, row.LastSeenAt)
			}
			if row.SoftwareVersion != "1.2.0" || row.CapabilityVersion != 3 {
				t.Errorf("it runs %q %d: a call that does not say must not forget it", row.SoftwareVersion, row.CapabilityVersion)
			}
			return err
		})
	})
}

func TestTwoProcessesOfOneEdgeAreRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		call := func(nonce string, generation, sequence int64, counters quota.Counters) (reply store.LeaseReply) {
			f.write(t, store.EdgeTenant("edge_1", nil), func(tx *store.Tx) (err error) {
				reply, err = tx.Lease(store.LeaseCall{
					BootNonce: nonce, Generation: generation, Sequence: sequence, Complete: true,
					Leases: []store.LeaseReport{{Domain: "acme.example", Counters: counters, Want: 100}},
				})
				return err
			})
			return reply
		}
		held := quota.Counters{Granted: 100}
		call("one", 1, 1, quota.Counters{})
		if got := call("two", 1, 2, held); got.Fenced != "" || *got.Leases[0].Granted != 100 {
			t.Errorf("a restart is answered %+v, want that it keeps its units", got)
		}
		if got := call("one", 1, 1, held); got.Fenced == "" {
			t.Errorf("a late call of the start before is answered %+v", got)
		}
		if got := call("two", 1, 3, held); got.Fenced != "" {
			t.Errorf("after a late call the running edge is answered %+v", got)
		}
		if got := call("one", 1, 4, held); got.Fenced == "" {
			t.Errorf("a second process is answered %+v, want that it is refused", got)
		}
		if got := call("two", 1, 4, held); got.Fenced == "" {
			t.Errorf("the first is answered %+v, want that it is refused too", got)
		}
		// The other is silent now: what called last goes on, with nothing.
		got := call("two", 1, 5, held)
		if got.Generation != 3 || len(got.Leases) != 0 {
			t.Errorf("the last is answered %+v, want that its units are written off", got)
		}
		if got := call("two", 3, 6, quota.Counters{}); got.Leases[0].Granted == nil || *got.Leases[0].Granted != 100 {
			t.Errorf("in the next generation it is answered %+v, want fresh units", got)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			figures, err := tx.DomainQuota("acme.example")
			if figures.Day.Held != 200 {
				t.Errorf("%d units count as held, want both generations' 200", figures.Day.Held)
			}
			return err
		})
	})
}

// An edge that knows of more than the database proves that it was restored: until every edge has reported, nothing is
// granted, and then what they hold is counted, over the limit if it must be.
func TestRestoredDatabaseGrantsNothingUntilAllEdgesHaveReported(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, acme)
		f.addDomain(t, acme, "acme.example", nil)
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		start := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
		lease := func(edge string, sequence int64, counters quota.Counters, want int64, complete bool) (reply store.LeaseReply) {
			f.write(t, store.EdgeTenant(edge, nil), func(tx *store.Tx) (err error) {
				reply, err = tx.Lease(store.LeaseCall{
					BootNonce: edge, Generation: 1, Sequence: sequence, Complete: complete,
					Leases: []store.LeaseReport{{Domain: "acme.example", DayStart: start, Counters: counters, Want: want}},
				})
				return err
			})
			return reply
		}
		epoch := func() (id string) {
			f.read(t, store.System(), func(tx *store.Tx) (err error) {
				id, err = tx.Epoch()
				return err
			})
			return id
		}
		before := epoch()
		// The database has forgotten the 600 of one edge and the 300 of the other.
		got := lease("edge_1", 9, quota.Counters{Granted: 600, Spent: 500}, 700, true)
		if !got.Learning || *got.Leases[0].Granted != 600 {
			t.Errorf("the first is answered %+v, want nothing new while the others are not heard", got)
		}
		if epoch() == before {
			t.Error("the epoch is the old one")
		}
		if got := lease("edge_1", 10, quota.Counters{Granted: 600, Spent: 600}, 700, true); !got.Learning || *got.Leases[0].Granted != 600 {
			t.Errorf("again: %+v", got)
		}
		if got := lease("edge_2", 9, quota.Counters{Granted: 300, Spent: 200}, 0, false); !got.Learning {
			t.Errorf("a part of the second's leases is answered %+v, want that the rest is waited for", got)
		}
		if got := lease("edge_2", 10, quota.Counters{Granted: 300, Spent: 200}, 0, true); got.Learning {
			t.Errorf("the last is answered %+v, want that the learning is over", got)
		}
		got = lease("edge_1", 11, quota.Counters{Granted: 600, Spent: 600}, 700, true)
		if *got.Leases[0].Granted != 650 { // half of what is left, since the other is there too
			t.Errorf("%d granted, want 650", *got.Leases[0].Granted)
		}
		// More than the limit was granted before the restore, by an override that is forgotten too.
		got = lease("edge_2", 11, quota.Counters{Granted: 900, Spent: 900}, 0, true)
		if got.Leases[0].Day.Held != 1550 || got.Leases[0].Day.Spent != 1500 {
			t.Errorf("the day says %+v, want that what is spent is counted", got.Leases[0].Day)
		}
		if got.Claim != store.EpochBegun || !got.Learning {
			t.Errorf("the claim of the second edge is %q", got.Claim)
		}
		// The same edge within the hour is not believed again, but what it says that it spent is counted.
		if got := lease("edge_1", 12, quota.Counters{Granted: 650, Spent: 650}, 0, true); got.Learning {
			t.Errorf("answered %+v, want that all have reported", got)
		}
		before = epoch()
		got = lease("edge_2", 12, quota.Counters{Granted: 2000, Spent: 2000}, 0, true)
		if got.Claim != store.EpochRefused || got.Learning || epoch() != before || got.Leases[0].Day.Spent != 2650 {
			t.Errorf("the second claim is %q, the day says %+v", got.Claim, got.Leases[0].Day)
		}
	})
}

func TestAnEdgeBeginsOneEpochAnHourInWhichAllAreToReport(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, id := range []string{"edge_1", "edge_2", "edge_3"} {
			f.addEdge(t, id)
		}
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockEdge("edge_3")
			return errors.Join(err, tx.RetireEdge(&row))
		})
		silent := func() (ids []string) {
			f.read(t, store.System(), func(tx *store.Tx) error {
				rows, err := tx.Unreported()
				for _, row := range rows {
					ids = append(ids, row.ID)
				}
				return err
			})
			return ids
		}
		if got := silent(); len(got) != 0 {
			t.Errorf("%v have not reported before anything was restored", got)
		}
		claim := func(want bool) {
			t.Helper()
			f.write(t, store.System(), func(tx *store.Tx) error {
				begun, err := tx.ClaimEpoch("edge_1")
				if begun != want {
					t.Errorf("a new epoch began: %v, want %v", begun, want)
				}
				return err
			})
		}
		claim(true)
		claim(false)
		f.clock.Advance(store.ClaimEvery)
		claim(true)
		f.clock.Advance(-time.Minute) // a clock that was put right is no reason to disbelieve
		claim(true)
		if got := silent(); !slices.Equal(got, []string{"edge_1", "edge_2"}) {
			t.Errorf("%v have not reported, want the two that are not retired", got)
		}
	})
}

func TestPositionGrowsWithChangesAndGrants(t *testing.T) {
	f := newFixture(t, sqlite(t))
	f.addPartner(t, acme)
	f.addDomain(t, acme, "acme.example", nil)
	f.addEdge(t, "edge_1")
	position := func() (at int64) {
		f.read(t, store.System(), func(tx *store.Tx) (err error) {
			at, err = tx.Position()
			return err
		})
		return at
	}
	before := position()
	f.lease(t, "edge_1", 1, store.LeaseReport{Domain: "acme.example", Want: 1})
	granted := position()
	f.write(t, store.Operator(), func(tx *store.Tx) error { tx.Publish(store.PlatformKey); return nil })
	if published := position(); granted <= before || published <= granted {
		t.Errorf("position %d, then %d after a grant, then %d after a change", before, granted, published)
	}
	f.lease(t, "edge_1", 2, store.LeaseReport{Domain: "acme.example"})
	if file := f.FilePath(); file == "" || f.MarkPath() != file+".mark" {
		t.Errorf("SQLite has the mark %q of the file %q", f.MarkPath(), file)
	}
}

func TestComplaintsCountAgainstTheirScope(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		add := func(id string, change func(*store.Complaint)) (first bool) {
			f.write(t, store.System(), func(tx *store.Tx) (err error) {
				row := newComplaint(id, acme, "acme.example")
				change(&row)
				if first, err = tx.InsertComplaint(&row); err != nil || !first {
					return err
				}
				row.Disabled = store.Strings{"user/u@acme.example"}
				return tx.SetComplaintDisabled(&row)
			})
			return first
		}
		add("user", func(c *store.Complaint) { c.UserAddress = "u@acme.example" })
		add("ip", func(c *store.Complaint) { c.RelayIP = "ip_acme" })
		add("not counted", func(c *store.Complaint) { c.Counts = false })
		add("old", func(c *store.Complaint) { c.ReceivedAt = noon.Add(-48 * time.Hour) })
		if add("again", func(c *store.Complaint) { c.MessageID = "msg-user" }) {
			t.Error("the same report of a message counts twice")
		}
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			for scope, want := range map[store.ComplaintScope]int64{
				{Partner: acme}:                          3, // with that of the world
				{Partner: acme, Domain: "acme.example"}:  3,
				{Partner: acme, Domain: "other.example"}: 0,
				{Partner: acme, User: "u@acme.example"}:  1,
				{Partner: acme, RelayIP: "ip_acme"}:      1,
			} {
				if got, err := tx.CountComplaints(scope, noon.Add(-24*time.Hour)); err != nil || got != want {
					t.Errorf("%+v: %d, %v, want %d", scope, got, err, want)
				}
			}
			row, err := tx.Complaint("user")
			if len(row.Disabled) != 1 || row.Disabled[0] != "user/u@acme.example" {
				t.Errorf("it disabled %v", row.Disabled)
			}
			return err
		})
	})
}

func TestTombstonesAreRemovedAndTheHorizonRemembersThem(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			tx.Publish(store.DomainKey("acme.example"))
			return tx.DeleteDomain("acme.example")
		})
		var deleted store.Document
		f.read(t, store.EdgeTenant("edge_acme", []string{acme}), func(tx *store.Tx) error {
			rows, err := tx.DocumentsAfter(store.PolicyCursor{}, 100)
			for _, row := range rows {
				if row.Key == store.DomainKey("acme.example") {
					deleted = row
				}
			}
			return err
		})
		if !deleted.Deleted || deleted.Body != "" {
			t.Errorf("whoever had the domain is told %+v, want its tombstone", deleted)
		}
		purge := func(before time.Time) (removed, horizon int64) {
			f.write(t, store.System(), func(tx *store.Tx) (err error) {
				if removed, err = tx.PurgeTombstones(before); err != nil {
					return err
				}
				horizon, err = tx.PolicyHorizon()
				return err
			})
			return removed, horizon
		}
		if removed, horizon := purge(noon); removed != 0 || horizon != 0 {
			t.Errorf("%d removed too early, horizon %d", removed, horizon)
		}
		if removed, horizon := purge(noon.Add(time.Second)); removed != 1 || horizon != deleted.Revision {
			t.Errorf("%d removed with horizon %d, want 1 and %d", removed, horizon, deleted.Revision)
		}
	})
}

func TestTombstoneThatGaveWayToAnotherPartnersDomainIsRemembered(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		horizon := func(tenant store.Tenant) (at int64) {
			f.read(t, tenant, func(tx *store.Tx) (err error) {
				at, err = tx.MoveHorizon()
				return err
			})
			return at
		}
		move := func(name, to string) (deleted int64) {
			f.write(t, store.Operator(), func(tx *store.Tx) error {
				tx.Publish(store.DomainKey(name))
				return tx.DeleteDomain(name)
			})
			f.read(t, store.System(), func(tx *store.Tx) (err error) {
				deleted, err = tx.Revision()
				return err
			})
			f.addDomain(t, to, name, nil)
			f.write(t, store.Operator(), func(tx *store.Tx) error { tx.Publish(store.DomainKey(name)); return nil })
			return deleted
		}
		scoped := store.EdgeTenant("edge_acme", []string{acme})
		if move("acme.example", acme); horizon(scoped) != 0 {
			t.Errorf("back at the same partner the horizon is %d", horizon(scoped))
		}
		if deleted := move("acme.example", beta); horizon(scoped) != deleted {
			t.Errorf("at another partner the horizon is %d, want %d", horizon(scoped), deleted)
		}
		if got := horizon(store.EdgeTenant("edge_all", nil)); got != 0 {
			t.Errorf("who sees all is told of %d", got)
		}
	})
}

func TestOneTransactionSpeaksForSeveralTenants(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			if _, err := tx.As(store.System()).Domain("beta.example"); err != nil {
				t.Errorf("as the system: %v", err)
			}
			if _, err := tx.Domain("beta.example"); !notFound(err) {
				t.Errorf("as the partner, after that: %v, want not found", err)
			}
			settings, err := tx.Settings()
			if settings.QuotaFloor != quota.DefaultFloor || settings.QuotaPerUser != quota.DefaultPerUser || settings.DefaultTimeZone != "UTC" {
				t.Errorf("the settings of a new database are %+v", settings)
			}
			id, err2 := tx.DatabaseID()
			if len(id) != 32 {
				t.Errorf("the database is called %q", id)
			}
			return errors.Join(err, err2)
		})
		for range 2 {
			if err := f.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// The suite must be whole: a query that nothing calls here is not held to anything.
func TestEveryQueryIsUsedByThisSuite(t *testing.T) {
	used := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if selector, ok := call.Fun.(*ast.SelectorExpr); ok {
					used[selector.Sel.Name] = true
				}
			}
			return true
		})
	}
	for _, kind := range []reflect.Type{reflect.TypeFor[*store.Tx](), reflect.TypeFor[*store.Store]()} {
		for method := range kind.Methods() {
			if !used[method.Name] {
				t.Errorf("%v.%s is not called by any test", kind, method.Name)
			}
		}
	}
}
