package storetest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"activerelay/server/internal/store"
)

// list is a list of the store in pages: it returns the keys of the rows after a place, and the next place.
type list struct {
	name string
	page func(tx *store.Tx, after string, limit int) (keys []string, err error)
}

func keysOf[T any](rows []T, err error, key func(T) string) ([]string, error) {
	return owners(rows, key), err
}

func lists() []list {
	return []list{
		{"Partners", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Partners("", after, limit)
			return keysOf(rows, err, func(r store.Partner) string { return r.Slug })
		}},
		{"Partners that are suspended", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Partners(store.StatusSuspended, after, limit)
			return keysOf(rows, err, func(r store.Partner) string { return r.Slug })
		}},
		{"Domains", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Domains(store.DomainFilter{}, after, limit)
			return keysOf(rows, err, func(r store.Domain) string { return r.Name })
		}},
		{"Domains by prefix", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Domains(store.DomainFilter{Prefix: "d-1", Partner: acme}, after, limit)
			return keysOf(rows, err, func(r store.Domain) string { return r.Name })
		}},
		{"RelayIPs", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.RelayIPs(store.RelayIPFilter{State: store.RelayIPActive}, after, limit)
			return keysOf(rows, err, func(r store.RelayIP) string { return r.ID })
		}},
		{"Routes", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Routes(store.RouteFilter{Partner: acme}, after, limit)
			return keysOf(rows, err, func(r store.Route) string { return r.ID })
		}},
		{"Users", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Users(store.UserFilter{}, after, limit)
			return keysOf(rows, err, func(r store.User) string { return r.Address })
		}},
		{"Tokens", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Tokens("", after, limit)
			return keysOf(rows, err, func(r store.Token) string { return r.ID })
		}},
		{"JoinTokens", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.JoinTokens(after, limit)
			return keysOf(rows, err, func(r store.JoinToken) string { return r.ID })
		}},
		{"Edges", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Edges(after, limit)
			return keysOf(rows, err, func(r store.Edge) string { return r.ID })
		}},
		{"Complaints", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.Complaints(store.ComplaintFilter{Partner: acme}, after, limit)
			return keysOf(rows, err, func(r store.Complaint) string { return r.ID })
		}},
		{"AuditEntries", func(tx *store.Tx, after string, limit int) ([]string, error) {
			rows, err := tx.AuditEntries(store.AuditFilter{Actor: "tok_op"}, after, limit)
			return keysOf(rows, err, func(r store.AuditRow) string { return r.ID })
		}},
	}
}

// addMany fills the store with enough of each for several pages; names sort in byte order, whatever a locale says.
func addMany(t *testing.T, f *fixture) {
	t.Helper()
	owner := acme
	f.write(t, store.Operator(), func(tx *store.Tx) error {
		for i, slug := range []string{acme, "a", "a-b", "ab", "b1", "b-1", "b10", "z", "zz"} {
			row := newPartner(slug)
			if i%2 == 1 {
				row.Suspend("unpaid", tx.Now)
			}
			if err := tx.InsertPartner(&row); err != nil {
				return err
			}
			tx.Audit(store.AuditRow{TokenID: "tok_op", ActorRole: "operator", Action: "createPartner", Object: "partner/" + slug, Partner: slug})
		}
		return nil
	})
	for i := range 13 {
		f.write(t, store.Operator(), func(tx *store.Tx) error {
			name := fmt.Sprintf("d-%d.example", i)
			domain, ip := newDomain(acme, name), newRelayIP(fmt.Sprintf("ip_%d", i), acme, name, "192.0.2.1/32")
			route, user := newRoute(fmt.Sprintf("rt_%d", i), &owner, name, ""), newUser(acme, name, "u@"+name)
			token, complaint := newToken(fmt.Sprintf("tok_%d", i), "partner", acme, ""), newComplaint(fmt.Sprintf("cpl_%d", i), acme, name)
			edge := store.Edge{ID: fmt.Sprintf("edge_%d", i), Name: "e", PublicKey: "k"}
			tx.Audit(store.AuditRow{TokenID: "tok_op", ActorRole: "operator", Action: "createDomain", Object: "domain/" + name, Partner: acme})
			return all(
				func() error { return tx.InsertDomain(&domain) },
				func() error { return tx.InsertRelayIP(&ip) },
				func() error { return tx.InsertRoute(&route) },
				func() error { return tx.InsertUser(&user) },
				func() error { return tx.InsertToken(&token) },
				func() error { return tx.InsertEdge(&edge) },
				func() error { _, err := tx.InsertComplaint(&complaint); return err },
				func() error {
					return tx.InsertJoinToken(&store.JoinToken{ID: fmt.Sprintf("jt_%d", i), SecretHash: []byte("x"), ExpiresAt: noon})
				},
			)
		})
	}
}

func TestPagesOfAnySizeTogetherAreTheWholeList(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addMany(t, f)
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			for _, l := range lists() {
				whole, err := l.page(tx, "", 1000)
				if err != nil {
					return err
				}
				if len(whole) < 4 {
					t.Errorf("%s: only %d rows, too few to page", l.name, len(whole))
				}
				for size := 1; size <= len(whole)+1; size++ {
					var joined []string
					for after := ""; ; after = joined[len(joined)-1] {
						page, err := l.page(tx, after, size)
						if err != nil {
							return err
						}
						joined = append(joined, page...)
						if len(page) < size {
							break
						}
					}
					if !slices.Equal(joined, whole) {
						t.Errorf("%s in pages of %d: %v, want %v", l.name, size, joined, whole)
					}
				}
				ascending := slices.IsSorted(whole)
				slices.Reverse(whole)
				if !ascending && !slices.IsSorted(whole) {
					t.Errorf("%s is not in the byte order of its keys: %v", l.name, whole)
				}
			}
			return nil
		})
	})
}

func TestPagesOfDayReportsTogetherAreTheWholeReport(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addMany(t, f)
		f.addEdge(t, "edge_reports")
		sequence := int64(0)
		for day := range 4 {
			f.clock.Set(noon.AddDate(0, 0, day))
			f.write(t, store.EdgeTenant("edge_reports", nil), func(tx *store.Tx) error {
				var events []store.Event
				for i := range 5 + day {
					sequence++
					events = append(events, store.Event{
						Sequence: sequence, Time: tx.Now, Kind: store.EventAccepted, Domain: fmt.Sprintf("d-%d.example", i), Recipients: 1,
					})
				}
				_, err := tx.RecordEvents(store.EventBatch{Generation: 1, FirstKept: 1, Events: events})
				return err
			})
		}
		filter := store.DayFilter{From: "2026-11-22", To: "2026-11-25"}
		key := func(d store.QuotaDay) string { return d.Day + " " + d.Domain + " " + d.DayStart.Format(time.RFC3339) }
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			rows, err := tx.DayReports(filter, store.DayCursor{}, 1000)
			whole := owners(rows, key)
			if len(whole) != 5+6+7+8 {
				t.Errorf("%d rows, want 26", len(whole))
			}
			for size := 1; size <= len(whole)+1; size++ {
				var joined []string
				after := store.DayCursor{}
				for {
					page, err := tx.DayReports(filter, after, size)
					if err != nil {
						return err
					}
					joined = append(joined, owners(page, key)...)
					if len(page) < size {
						break
					}
					last := page[len(page)-1]
					after = store.DayCursor{Day: last.Day, Domain: last.Domain, DayStart: last.DayStart}
				}
				if !slices.Equal(joined, whole) {
					t.Errorf("pages of %d: %v, want %v", size, joined, whole)
				}
			}
			return err
		})
	})
}
