package storetest_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"activerelay/server/internal/store"
)

// The world of two partners: each object of "acme" has a twin of "beta", and "none" stands for what does not exist.
const (
	acme = "acme"
	beta = "beta"
	none = "none"
)

// addWorld fills a store with one of everything for both partners.
func addWorld(t *testing.T, f *fixture) {
	t.Helper()
	f.write(t, store.Operator(), func(tx *store.Tx) error {
		for _, owner := range []string{acme, beta} {
			if err := addObjects(tx, owner, owner+".example"); err != nil {
				return err
			}
		}
		route := newRoute("rt_platform", nil, "", "")
		return tx.InsertRoute(&route)
	})
	f.addEdge(t, "edge_acme", acme)
	f.addEdge(t, "edge_all")
	f.write(t, store.Operator(), func(tx *store.Tx) error {
		return tx.InsertJoinToken(&store.JoinToken{ID: "jt_1", SecretHash: []byte("x"), ExpiresAt: noon.Add(time.Hour)})
	})
	for _, owner := range []string{acme, beta} {
		f.write(t, store.EdgeTenant("edge_all", nil), func(tx *store.Tx) error {
			edge, err := tx.Edge("edge_all")
			if err != nil {
				return err
			}
			_, err = tx.RecordEvents(store.EventBatch{Generation: 1, FirstKept: 1, Events: []store.Event{{
				Sequence: edge.EventAcknowledged + 1, Time: noon, Kind: store.EventRefused, Domain: owner + ".example",
				Ref: "ref_" + owner, Reason: "bulk-refused", ClientAddress: "192.0.2.1", Sender: "a@" + owner + ".example",
			}, {
				Sequence: edge.EventAcknowledged + 2, Time: noon, Kind: store.EventAccepted, Domain: owner + ".example",
				MessageID: "msg_" + owner, Sender: "a@" + owner + ".example", Recipients: 1, RecipientDomains: []string{"dest.example"},
			}}})
			return err
		})
		f.write(t, store.PartnerTenant(owner), func(tx *store.Tx) error {
			return tx.OperateQueue(&store.QueueOperation{ID: "qop_" + owner, Action: "hold", Partner: owner})
		})
	}
}

func addObjects(tx *store.Tx, owner, name string) error {
	partner, domain := newPartner(owner), newDomain(owner, name)
	relayIP := newRelayIP("ip_"+owner, owner, name, "192.0.2.1/32")
	route := newRoute("rt_"+owner, &owner, name, "")
	user := newUser(owner, name, "user@"+name)
	token, customer := newToken("tok_"+owner, "partner", owner, ""), newToken("tok_c_"+owner, "customer", owner, name)
	complaint := newComplaint("cpl_"+owner, owner, name)
	tx.Audit(store.AuditRow{TokenID: "tok_op", ActorRole: "operator", Action: "createPartner", Object: "partner/" + owner, Partner: owner})
	tx.Publish(store.PartnerKey(owner), store.DomainKey(name))
	return all(
		func() error { return tx.InsertPartner(&partner) },
		func() error { return tx.InsertDomain(&domain) },
		func() error { return tx.InsertRelayIP(&relayIP) },
		func() error { return tx.InsertRoute(&route) },
		func() error { return tx.InsertUser(&user) },
		func() error { return tx.InsertToken(&token) },
		func() error { return tx.InsertToken(&customer) },
		func() error { _, err := tx.InsertComplaint(&complaint); return err },
	)
}

// auditID is the id of the entry about a partner.
func auditID(t *testing.T, f *fixture, owner string) (id string) {
	t.Helper()
	f.read(t, store.Operator(), func(tx *store.Tx) error {
		entries, err := tx.AuditEntries(store.AuditFilter{Partner: owner}, "", 10)
		if err == nil && len(entries) > 0 {
			id = entries[0].ID
		}
		return err
	})
	return id
}

// lookUp is a query for one object of an owner; writes are run in a write transaction.
type lookUp struct {
	name  string
	write bool
	find  func(tx *store.Tx, owner string) error
}

func lookUps(entry func(owner string) string) []lookUp {
	client := netip.MustParseAddr("192.0.2.1")
	return []lookUp{
		{"Partner", false, func(tx *store.Tx, o string) error { _, err := tx.Partner(o); return err }},
		{"Domain", false, func(tx *store.Tx, o string) error { _, err := tx.Domain(o + ".example"); return err }},
		{"RelayIP", false, func(tx *store.Tx, o string) error { _, err := tx.RelayIP("ip_" + o); return err }},
		{"RelayIPOf", false, func(tx *store.Tx, o string) error {
			_, err := tx.RelayIPOf(o+".example", netip.MustParsePrefix("192.0.2.1/32"))
			return err
		}},
		{"MostSpecificRelayIP", false, func(tx *store.Tx, o string) error {
			_, err := tx.MostSpecificRelayIP(o+".example", client)
			return err
		}},
		{"Route", false, func(tx *store.Tx, o string) error { _, err := tx.Route("rt_" + o); return err }},
		{"User", false, func(tx *store.Tx, o string) error { _, err := tx.User("user@" + o + ".example"); return err }},
		{"Token", false, func(tx *store.Tx, o string) error { _, err := tx.Token("tok_" + o); return err }},
		{"Complaint", false, func(tx *store.Tx, o string) error { _, err := tx.Complaint("cpl_" + o); return err }},
		{"ComplaintBy", false, func(tx *store.Tx, o string) error {
			_, err := tx.ComplaintBy("msg-cpl_"+o, "fbl@mail.example")
			return err
		}},
		{"Decision", false, func(tx *store.Tx, o string) error { _, err := tx.Decision("ref_" + o); return err }},
		{"AuditEntry", false, func(tx *store.Tx, o string) error { _, err := tx.AuditEntry(entry(o)); return err }},
		{"QueuedMessage", false, func(tx *store.Tx, o string) error { _, err := tx.QueuedMessage("msg_" + o); return err }},
		{"QueueOperation", false, func(tx *store.Tx, o string) error { _, _, err := tx.QueueOperation("qop_" + o); return err }},
		{"DomainQuota", false, func(tx *store.Tx, o string) error { _, err := tx.DomainQuota(o + ".example"); return err }},
		{"DayStartOf", false, func(tx *store.Tx, o string) error { _, err := tx.DayStartOf(o+".example", "2026-11-22"); return err }},

		{"OperateQueue", true, func(tx *store.Tx, o string) error {
			return tx.OperateQueue(&store.QueueOperation{ID: "qop_new", Action: "retry", MessageIDs: store.Strings{"msg_" + o}})
		}},
		{"FixRunningDay", true, func(tx *store.Tx, o string) error { return tx.FixRunningDay(o + ".example") }},
		{"LockPartner", true, func(tx *store.Tx, o string) error { _, err := tx.LockPartner(o); return err }},
		{"LockDomain", true, func(tx *store.Tx, o string) error { _, err := tx.LockDomain(o + ".example"); return err }},
		{"LockRelayIP", true, func(tx *store.Tx, o string) error { _, err := tx.LockRelayIP("ip_" + o); return err }},
		{"LockRoute", true, func(tx *store.Tx, o string) error { _, err := tx.LockRoute("rt_" + o); return err }},
		{"LockUser", true, func(tx *store.Tx, o string) error { _, err := tx.LockUser("user@" + o + ".example"); return err }},
		{"LockToken", true, func(tx *store.Tx, o string) error { _, err := tx.LockToken("tok_" + o); return err }},
		{"DeleteRelayIP", true, func(tx *store.Tx, o string) error { return tx.DeleteRelayIP("ip_" + o) }},
		{"DeleteRoute", true, func(tx *store.Tx, o string) error { return tx.DeleteRoute("rt_" + o) }},
		{"DeleteUser", true, func(tx *store.Tx, o string) error { return tx.DeleteUser("user@" + o + ".example") }},
		{"DeleteDomain", true, func(tx *store.Tx, o string) error { return tx.DeleteDomain(o + ".example") }},
	}
}

// cost is what a look-up of a tenant says and how many statements it takes.
func (f *fixture) cost(tenant store.Tenant, l lookUp, owner string) (statements int64, err error) {
	before := f.statements.Count()
	if l.write {
		err = f.attempt(tenant, func(tx *store.Tx) error { return l.find(tx, owner) })
	} else {
		err = f.Read(context.Background(), tenant, func(tx *store.Tx) error { return l.find(tx, owner) })
	}
	return f.statements.Count() - before, err
}
