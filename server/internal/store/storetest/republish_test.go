package storetest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"activerelay/migrations"
	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest"
)

// revisionsOf returns the documents by key.
func (f *fixture) documents(t fatal) map[string]store.Document {
	t.Helper()
	found := map[string]store.Document{}
	f.read(t, store.System(), func(tx *store.Tx) error {
		rows, err := tx.DocumentsAfter(store.PolicyCursor{}, 10000)
		for _, row := range rows {
			found[row.Key] = row
		}
		return err
	})
	return found
}

func TestChangeOfAPartnerRewritesTheDomainsThatInherit(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		zone := "Asia/Tokyo"
		f.addPartner(t, acme)
		f.addPartner(t, beta)
		f.addDomain(t, acme, "own.example", func(d *store.Domain) { d.TimeZone = &zone })
		f.addDomain(t, acme, "inherits.example", nil)
		f.addDomain(t, beta, "other.example", nil)
		for _, c := range []struct {
			partner   string
			inherited bool
			want      []string
		}{
			{acme, true, []string{"inherits.example"}},
			{acme, false, []string{"inherits.example", "own.example"}},
			{"", true, []string{"inherits.example", "other.example"}},
			{"", false, []string{"inherits.example", "other.example", "own.example"}},
		} {
			before := f.documents(t)
			f.write(t, store.Operator(), func(tx *store.Tx) error { return tx.PublishDomains(c.partner, c.inherited) })
			changed := 0
			after := f.documents(t)
			for _, name := range c.want {
				if after[store.DomainKey(name)].Revision > before[store.DomainKey(name)].Revision {
					changed++
				}
			}
			revisions := map[int64]int{}
			for key, row := range after {
				if row != before[key] {
					revisions[row.Revision]++
				}
			}
			if changed != len(c.want) || len(revisions) != 1 {
				t.Errorf("partner %q, inherited %v: %d of %v changed, revisions %v", c.partner, c.inherited, changed, c.want, revisions)
			}
		}
	})
}

func TestManyDomainsFollowInTheBackgroundAndNoneIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const domains = 450
		f.addPartner(t, acme)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			for i := range domains {
				row := newDomain(acme, fmt.Sprintf("d%03d.example", i))
				if err := tx.InsertDomain(&row); err != nil {
					return err
				}
			}
			return nil
		})
		// The same change twice must not double the work, nor must one in between be lost.
		for range 2 {
			f.write(t, store.Operator(), func(tx *store.Tx) error { return tx.PublishDomains(acme, true) })
		}
		if n := len(f.documents(t)); n != 0 {
			t.Errorf("%d documents were written in the transaction of the change, want that they follow", n)
		}
		rounds := 0
		for more := true; more; rounds++ {
			f.write(t, store.System(), func(tx *store.Tx) (err error) {
				more, err = tx.PublishPending()
				return err
			})
		}
		if n := len(f.documents(t)); n != domains || rounds > 5 {
			t.Errorf("%d documents after %d rounds, want %d", n, rounds, domains)
		}
	})
}

func TestDomainsAreRewrittenWhenTheirOverrideExpires(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		limit, until := int64(5000), noon.Add(time.Hour)
		f.addPartner(t, acme)
		f.addDomain(t, acme, "expires.example", nil)
		f.addDomain(t, acme, "plain.example", nil)
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			row, err := tx.LockDomain("expires.example")
			row.OverrideLimit, row.OverrideExpiresAt = &limit, &until
			tx.Publish(store.DomainKey("expires.example"), store.DomainKey("plain.example"))
			return all(func() error { return err }, func() error { return tx.UpdateDomain(&row) })
		})
		publish := func() (found bool) {
			f.write(t, store.System(), func(tx *store.Tx) (err error) {
				found, err = tx.PublishExpired()
				return err
			})
			return found
		}
		if publish() {
			t.Error("something expired before its time")
		}
		before := f.documents(t)
		f.clock.Set(until)
		if !publish() {
			t.Error("nothing expired in time")
		}
		after := f.documents(t)
		if after["domain/expires.example"].Revision == before["domain/expires.example"].Revision || after["domain/plain.example"] != before["domain/plain.example"] {
			t.Errorf("from %v to %v, want that only the one that expired is new", before, after)
		}
		f.clock.Advance(time.Second)
		if publish() {
			t.Error("the same one expires again")
		}
	})
}

func TestStoreSaysWhichDatabaseItIs(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		want := migrations.Postgres
		if f.db.OnSQLite() {
			want = migrations.SQLite
		}
		if f.Dialect() != want {
			t.Errorf("dialect %s, want %s", f.Dialect(), want)
		}
		if f.Stats().OpenConnections < 1 {
			t.Error("no connection is open")
		}
		if m, err := f.Migrator(); err != nil || m == nil {
			t.Error(err)
		}
		var before, after string
		f.write(t, store.System(), func(tx *store.Tx) (err error) {
			if before, err = tx.Epoch(); err != nil {
				return err
			}
			if err := tx.NewEpoch(); err != nil {
				return err
			}
			after, err = tx.Epoch()
			return err
		})
		if before == after || before == "" || after == "" {
			t.Errorf("epoch %q, then %q", before, after)
		}
		for range 2 {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestURLOfNoDatabaseIsRefusedWithoutItsPassword(t *testing.T) {
	for _, url := range []string{"", "mysql://u:geheim@host/db", "relay.db", "postgres://u:geheim@/db?sslmode=nonsense"} {
		_, err := store.Open(context.Background(), store.Config{URL: url, Log: (&storetest.Statements{}).Logger()})
		if err == nil {
			t.Errorf("%q was opened", url)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: the error tells the password: %v", url, err)
		}
	}
}
