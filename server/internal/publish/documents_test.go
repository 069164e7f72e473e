package publish_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"activerelay/api"
	"activerelay/server/internal/store"
)

// change is one kind of change, as the API makes it.
type change struct {
	name string
	do   func(tx *store.Tx) error
	// rewritten are the documents that it rewrites, and no others.
	rewritten []string
	// shown looks at the documents afterwards.
	shown func(t *testing.T, table map[string]api.PolicyDocument)
}

const domainKey, partnerKey = "domain/acme.example", "partner/acme"

func onDomain(change func(*store.Domain)) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		row, err := tx.LockDomain("acme.example")
		if err != nil {
			return err
		}
		change(&row)
		tx.Publish(domainKey)
		return tx.UpdateDomain(&row)
	}
}

func onPartner(change func(*store.Partner)) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		row, err := tx.LockPartner("acme")
		if err != nil {
			return err
		}
		change(&row)
		tx.Publish(partnerKey)
		return tx.UpdatePartner(&row)
	}
}

func onUser(change func(*store.User)) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		row, err := tx.LockUser("u@acme.example")
		if err != nil {
			return err
		}
		change(&row)
		tx.Publish(domainKey)
		return tx.UpdateUser(&row)
	}
}

func onRelayIP(change func(*store.RelayIP)) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		row, err := tx.LockRelayIP("ip_1")
		if err != nil {
			return err
		}
		change(&row)
		tx.Publish(domainKey)
		return tx.UpdateRelayIP(&row)
	}
}

func domainOf(t *testing.T, table map[string]api.PolicyDocument) api.DomainPolicy {
	t.Helper()
	if table[domainKey].Domain == nil {
		t.Fatalf("there is no %s in %v", domainKey, table)
	}
	return *table[domainKey].Domain
}

func expect[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func domainChanges() []change {
	zone, limit, until := "Asia/Tokyo", int64(77), noon.Add(time.Hour)
	return []change{
		{"licensed users", onDomain(func(d *store.Domain) { d.LicensedUsers = 30 }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "limit", domainOf(t, table).Limit, 1500)
		}},
		{"override", onDomain(func(d *store.Domain) { d.OverrideLimit, d.OverrideExpiresAt = &limit, &until }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "limit", domainOf(t, table).Limit, 77)
		}},
		{"zone", onDomain(func(d *store.Domain) { d.TimeZone = &zone }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "zone", *domainOf(t, table).TimeZone, zone)
		}},
		{"suspension", onDomain(func(d *store.Domain) { d.Suspend("unpaid", noon) }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "status", domainOf(t, table).Status, api.AdministrativeStatusSuspended)
			expect(t, "since", domainOf(t, table).StatusSince.UTC(), noon)
		}},
		{"resumption", onDomain(func(d *store.Domain) { d.Resume(noon) }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "status", domainOf(t, table).Status, api.AdministrativeStatusActive)
			expect(t, "since", domainOf(t, table).StatusSince, nil)
		}},
		{"abuse", onDomain(func(d *store.Domain) { d.Relaying.Disable(store.CauseComplaints, "spam", noon) }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "relaying", string(domainOf(t, table).Relaying.State), store.RelayingDisabled)
			expect(t, "cause", string(*domainOf(t, table).Relaying.Cause), store.CauseComplaints)
		}},
		{"end of abuse", onDomain(func(d *store.Domain) { d.Relaying.Enable(noon) }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "relaying", string(domainOf(t, table).Relaying.State), store.RelayingEnabled)
		}},
		{"bulk exception", onDomain(func(d *store.Domain) { d.BulkMode, d.BulkReason = "observe", "trial" }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "bulk", string(domainOf(t, table).Bulk.Mode), "observe")
		}},
		{"contacts and subdomains", onDomain(func(d *store.Domain) {
			d.Contacts, d.IncludeSubdomains, d.UsersMaySendAs = store.Strings{"a@x.example"}, true, "domain"
		}), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "contacts", domainOf(t, table).Contacts, []string{"a@x.example"})
			expect(t, "subdomains", domainOf(t, table).IncludeSubdomains, true)
			expect(t, "users may send as", string(domainOf(t, table).UsersMaySendAs), "domain")
		}},
	}
}

func partChanges() []change {
	owner := "acme"
	return []change{
		{"requested relay IP", func(tx *store.Tx) error {
			tx.Publish(domainKey)
			return tx.InsertRelayIP(&store.RelayIP{ID: "ip_1", Partner: owner, Domain: "acme.example", Address: "192.0.2.1/32", State: store.RelayIPRequested})
		}, []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "clients", len(domainOf(t, table).Clients), 0)
		}},
		{"activation", onRelayIP(func(r *store.RelayIP) { r.State, r.ActivatedAt = store.RelayIPActive, &noon }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "clients", domainOf(t, table).Clients, []api.ClientPolicy{{ID: "ip_1", Address: netip.MustParsePrefix("192.0.2.1/32").String(), State: "active"}})
		}},
		{"disabling", onRelayIP(func(r *store.RelayIP) {
			r.State, r.Reason, r.Cause = store.RelayIPDisabled, "spam", store.CauseOperator
		}), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			client := domainOf(t, table).Clients[0]
			expect(t, "state", string(client.State), store.RelayIPDisabled)
			expect(t, "cause", string(*client.Cause), store.CauseOperator)
		}},
		{"user", func(tx *store.Tx) error {
			tx.Publish(domainKey)
			return tx.InsertUser(&store.User{
				Address: "u@acme.example", Domain: "acme.example", Partner: owner, Verifier: "$argon2id$1", Aliases: store.Strings{"v@acme.example"},
				Administrative: store.Active(noon), Relaying: store.Enabled(), PasswordChangedAt: noon,
			})
		}, []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			user := domainOf(t, table).Users[0]
			expect(t, "verifier", user.Verifier, "$argon2id$1")
			expect(t, "aliases", user.Aliases, []string{"v@acme.example"})
		}},
		{"password", onUser(func(u *store.User) { u.Verifier = "$argon2id$2" }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "verifier", domainOf(t, table).Users[0].Verifier, "$argon2id$2")
		}},
		{"suspended user", onUser(func(u *store.User) { u.Suspend("left", noon) }), []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "status", domainOf(t, table).Users[0].Status, api.AdministrativeStatusSuspended)
		}},
		{"route", func(tx *store.Tx) error {
			tx.Publish(domainKey)
			return tx.InsertRoute(&store.Route{
				ID: "rt_1", Partner: &owner, Domain: "acme.example", Host: "smtp.example.net", Port: 587, TLS: "required", Username: "acme",
				PasswordSealed: []byte("sealed secret"), SecretVersion: 3,
			})
		}, []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			route := domainOf(t, table).Routes[0]
			expect(t, "secret", *route.SecretID, "rt_1")
			expect(t, "version", *route.SecretVersion, int64(3))
		}},
		{"deleted user, relay IP and route", func(tx *store.Tx) error {
			tx.Publish(domainKey)
			if err := tx.DeleteUser("u@acme.example"); err != nil {
				return err
			}
			if err := tx.DeleteRelayIP("ip_1"); err != nil {
				return err
			}
			return tx.DeleteRoute("rt_1")
		}, []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			d := domainOf(t, table)
			expect(t, "what is left", len(d.Users)+len(d.Clients)+len(d.Routes), 0)
		}},
	}
}

func sharedChanges() []change {
	return []change{
		{"suspended partner", onPartner(func(p *store.Partner) { p.Suspend("unpaid", noon) }), []string{partnerKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "status", table[partnerKey].Partner.Status, api.AdministrativeStatusSuspended)
		}},
		{"partner's contact", onPartner(func(p *store.Partner) { p.SupportContact = "https://acme.example/help" }), []string{partnerKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "contact", *table[partnerKey].Partner.SupportContact, "https://acme.example/help")
		}},
		{"partner's zone", func(tx *store.Tx) error {
			if err := onPartner(func(p *store.Partner) { p.TimeZone = "Europe/Lisbon" })(tx); err != nil {
				return err
			}
			return tx.PublishDomains("acme", true)
		}, []string{partnerKey, "domain/second.example"}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "inherited zone", *table["domain/second.example"].Domain.TimeZone, "Europe/Lisbon")
			expect(t, "own zone", *domainOf(t, table).TimeZone, "Asia/Tokyo")
		}},
		{"settings", func(tx *store.Tx) error {
			row, err := tx.LockSettings()
			if err != nil {
				return err
			}
			row.QuotaFloor, row.MaxRecipients = 2000, 50
			tx.Publish(store.PlatformKey)
			if err := tx.UpdateSettings(&row); err != nil {
				return err
			}
			return tx.PublishDomains("", false)
		}, []string{domainKey, "domain/beta.example", "domain/second.example", "platform"}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "recipients", table["platform"].Platform.Settings.MaxRecipients, 50)
			expect(t, "limit", table["domain/second.example"].Domain.Limit, 2000)
			expect(t, "overridden limit", domainOf(t, table).Limit, 77)
		}},
		{"platform's route", func(tx *store.Tx) error {
			tx.Publish(store.PlatformKey)
			return tx.InsertRoute(&store.Route{ID: "rt_0", Host: "smtp.example.org", Port: 25, TLS: "opportunistic"})
		}, []string{"platform"}, func(t *testing.T, table map[string]api.PolicyDocument) {
			expect(t, "host", table["platform"].Platform.Routes[0].Host, "smtp.example.org")
		}},
		{"deleted domain", func(tx *store.Tx) error {
			tx.Publish(domainKey)
			return tx.DeleteDomain("acme.example")
		}, []string{domainKey}, func(t *testing.T, table map[string]api.PolicyDocument) {
			if _, there := table[domainKey]; there {
				t.Error("the deleted domain is still there")
			}
		}},
	}
}

func TestEachChangeRewritesItsDocumentsAndNoOthers(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addPartner(t, "beta")
		for name, owner := range map[string]string{"acme.example": "acme", "second.example": "acme", "beta.example": "beta"} {
			f.addDomain(t, owner, name)
		}
		all, acme := newEdge("edge_all").follow(t, f.Publisher), newEdge("edge_acme", "acme").follow(t, f.Publisher)
		for _, c := range slices.Concat(domainChanges(), partChanges(), sharedChanges()) {
			t.Run(c.name, func(t *testing.T) {
				all.keys = nil
				f.write(t, c.do)
				all.follow(t, f.Publisher)
				acme.follow(t, f.Publisher)
				expect(t, "rewritten", all.keys, slices.Sorted(slices.Values(c.rewritten)))
				c.shown(t, all.table)
				c.shown(t, acme.table)
				expect(t, "a new edge's table", newEdge("edge_new").follow(t, f.Publisher).table, all.table)
			})
		}
		if _, there := acme.table["domain/beta.example"]; there {
			t.Error("an edge was given what is outside its scope")
		}
	})
}

func TestUnknownKindOfDocumentIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		err := f.Write(t.Context(), store.Operator(), func(tx *store.Tx) error {
			tx.Publish("nonsense/x")
			return nil
		})
		if err == nil {
			t.Error("it was published")
		}
	})
}
