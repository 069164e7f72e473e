package storetest_test

import (
	"errors"
	"testing"
	"time"

	"activerelay/server/internal/store"
)

// Controls 4 and 5.
func TestForeignObjectsCostAndSayTheSameAsAbsentOnes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		entries := map[string]string{acme: auditID(t, f, acme), beta: auditID(t, f, beta), none: "aud_none"}
		tenants := map[string]store.Tenant{
			"partner": store.PartnerTenant(acme), "customer": store.CustomerTenant(acme, "acme.example"),
			"edge": store.EdgeTenant("edge_acme", []string{acme}),
		}
		for name, tenant := range tenants {
			for _, l := range lookUps(func(owner string) string { return entries[owner] }) {
				foreign, err := f.cost(tenant, l, beta)
				if !notFound(err) {
					t.Errorf("%s, %s of another partner: got %v, want not found", name, l.name, err)
				}
				absent, err := f.cost(tenant, l, none)
				if !notFound(err) {
					t.Errorf("%s, %s of nobody: got %v, want not found", name, l.name, err)
				}
				if foreign != absent {
					t.Errorf("%s, %s: %d statements for another partner's, %d for what does not exist", name, l.name, foreign, absent)
				}
			}
		}
	})
}

func TestPartnerFindsItsOwnObjectsAndTheZeroTenantNone(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		entry := auditID(t, f, acme)
		for _, l := range lookUps(func(string) string { return entry }) {
			if _, err := f.cost(store.Tenant{}, l, acme); !notFound(err) {
				t.Errorf("%s as nobody: got %v, want not found", l.name, err)
			}
			if _, err := f.cost(store.PartnerTenant(acme), l, acme); err != nil {
				t.Errorf("%s as its partner: %v", l.name, err)
			}
		}
	})
}

func TestCustomerSeesOneDomainOnly(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.addDomain(t, acme, "sister.example", nil)
		f.read(t, store.CustomerTenant(acme, "acme.example"), func(tx *store.Tx) error {
			if _, err := tx.Domain("sister.example"); !notFound(err) {
				t.Errorf("another domain of the same partner: got %v, want not found", err)
			}
			if _, err := tx.Partner(acme); !notFound(err) {
				t.Errorf("the partner itself: got %v, want not found", err)
			}
			domains, err := tx.Domains(store.DomainFilter{}, "", 10)
			if err == nil && len(domains) != 1 {
				t.Errorf("lists %d domains, want its own only", len(domains))
			}
			return err
		})
	})
}

// owned is a list of the owners of rows that a list shows.
func owners[T any](rows []T, owner func(T) string) []string {
	found := make([]string, 0, len(rows))
	for _, row := range rows {
		found = append(found, owner(row))
	}
	return found
}

func TestListsOfATenantHoldNothingOfAnother(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			var errs []error
			check := func(name string, found []string, err error) {
				errs = append(errs, err)
				if len(found) == 0 {
					t.Errorf("%s: nothing, want the partner's own", name)
				}
				for _, owner := range found {
					if owner != acme {
						t.Errorf("%s: shows a row of %q", name, owner)
					}
				}
			}
			partners, err := tx.Partners("", "", 100)
			check("Partners", owners(partners, func(r store.Partner) string { return r.Slug }), err)
			domains, err := tx.Domains(store.DomainFilter{}, "", 100)
			check("Domains", owners(domains, func(r store.Domain) string { return r.Partner }), err)
			ips, err := tx.RelayIPs(store.RelayIPFilter{}, "", 100)
			check("RelayIPs", owners(ips, func(r store.RelayIP) string { return r.Partner }), err)
			routes, err := tx.Routes(store.RouteFilter{}, "", 100)
			check("Routes", owners(routes, func(r store.Route) string { return *r.Partner }), err)
			users, err := tx.Users(store.UserFilter{}, "", 100)
			check("Users", owners(users, func(r store.User) string { return r.Partner }), err)
			tokens, err := tx.Tokens("", "", 100)
			check("Tokens", owners(tokens, func(r store.Token) string { return r.Partner }), err)
			complaints, err := tx.Complaints(store.ComplaintFilter{}, "", 100)
			check("Complaints", owners(complaints, func(r store.Complaint) string { return r.Partner }), err)
			entries, err := tx.AuditEntries(store.AuditFilter{}, "", 100)
			check("AuditEntries", owners(entries, func(r store.AuditRow) string { return r.Partner }), err)
			days, err := tx.DayReports(store.DayFilter{From: "2026-01-01", To: "2026-12-31"}, store.DayCursor{}, 100)
			check("DayReports", owners(days, func(r store.QuotaDay) string { return r.Partner }), err)
			queued, err := tx.QueuedMessages(store.QueueFilter{}, store.QueueCursor{}, 100)
			check("QueuedMessages", owners(queued, func(r store.QueuedMessage) string { return r.Partner }), err)
			return errors.Join(errs...)
		})
		f.read(t, store.PartnerTenant(acme), func(tx *store.Tx) error {
			count, err := tx.CountTokens()
			if count != 2 {
				t.Errorf("CountTokens: %d, want the partner's 2", count)
			}
			if edges, err := tx.Edges("", 10); err != nil || len(edges) != 0 {
				t.Errorf("Edges as a partner: %d, %v, want none", len(edges), err)
			}
			if tokens, err := tx.JoinTokens("", 10); err != nil || len(tokens) != 0 {
				t.Errorf("JoinTokens as a partner: %d, %v, want none", len(tokens), err)
			}
			complaints, err2 := tx.CountComplaints(store.ComplaintScope{Partner: beta}, noon.Add(-time.Hour))
			if complaints != 0 {
				t.Errorf("CountComplaints of another partner: %d, want 0", complaints)
			}
			return errors.Join(err, err2)
		})
	})
}

// Control 13.
func TestEdgeSeesPoliciesOfItsScopeAndItselfOnly(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		f.read(t, store.EdgeTenant("edge_acme", []string{acme}), func(tx *store.Tx) error {
			documents, err := tx.DocumentsAfter(store.PolicyCursor{}, 100)
			for _, d := range documents {
				if d.Key == store.PartnerKey(beta) || d.Key == store.DomainKey("beta.example") {
					t.Errorf("the edge is given %s", d.Key)
				}
			}
			if _, err := tx.Edge("edge_all"); !notFound(err) {
				t.Errorf("another edge: got %v, want not found", err)
			}
			if _, err := tx.Edge("edge_acme"); err != nil {
				t.Errorf("itself: %v", err)
			}
			if _, err := tx.RouteForEdge("rt_beta"); !notFound(err) {
				t.Errorf("a route outside its scope: got %v, want not found", err)
			}
			for _, id := range []string{"rt_acme", "rt_platform"} {
				if _, err := tx.RouteForEdge(id); err != nil {
					t.Errorf("route %s: %v", id, err)
				}
			}
			return err
		})
		f.write(t, store.EdgeTenant("edge_acme", []string{acme}), func(tx *store.Tx) error {
			reply, err := tx.Lease(store.LeaseCall{
				BootNonce: "n", Generation: 1, Sequence: 1,
				Leases: []store.LeaseReport{{Domain: "beta.example", Want: 5}, {Domain: "none.example", Want: 5}, {Domain: "acme.example", Want: 5}},
			})
			if err != nil {
				return err
			}
			foreign, absent := reply.Leases[0], reply.Leases[1]
			foreign.Domain, absent.Domain = "", ""
			if foreign != absent || foreign.State != store.LeaseUnknownDomain {
				t.Errorf("a lease outside its scope is answered %+v, of nobody %+v; want both unknown", foreign, absent)
			}
			if reply.Leases[2].Granted == nil || *reply.Leases[2].Granted != 5 {
				t.Errorf("a lease of its scope is answered %+v, want 5 units", reply.Leases[2])
			}
			return nil
		})
	})
}

func TestUpdatesOfATenantDoNotReachForeignRows(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		addWorld(t, f)
		var foreign store.Domain
		f.read(t, store.Operator(), func(tx *store.Tx) (err error) {
			foreign, err = tx.Domain("beta.example")
			return err
		})
		err := f.attempt(store.PartnerTenant(acme), func(tx *store.Tx) error {
			row := foreign
			row.LicensedUsers = 1000
			return tx.UpdateDomain(&row)
		})
		if err == nil {
			t.Error("a partner updated another one's domain by a row that it holds")
		}
		err = f.attempt(store.PartnerTenant(acme), func(tx *store.Tx) error { return tx.RevokeTokens(beta, "") })
		if err != nil {
			t.Error(err)
		}
		f.read(t, store.Operator(), func(tx *store.Tx) error {
			token, err := tx.Token("tok_beta")
			if token.RevokedAt != nil {
				t.Error("a partner revoked another one's tokens")
			}
			return err
		})
	})
}
