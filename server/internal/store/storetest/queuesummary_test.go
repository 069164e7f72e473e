package storetest_test

import (
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"activerelay/server/internal/store"
)

// sums are what a tenant sees as "key items recipients queued held quarantined oldest reason reply", then the totals.
func (f *fixture) sums(t fatal, tenant store.Tenant, filter store.QueueFilter, by string, top int) []string {
	t.Helper()
	list := []string{}
	f.read(t, tenant, func(tx *store.Tx) error {
		summary, err := tx.SummariseQueue(filter, by, top)
		for _, g := range summary.Groups {
			list = append(list, fmt.Sprintf("%s %s %s %q", g.Key, counts(g.QueueCounts), g.DelayReason, g.LastReply))
		}
		list = append(list, fmt.Sprintf("of %d: %s", summary.GroupsTotal, counts(summary.Total)))
		return err
	})
	return list
}

func counts(c store.QueueCounts) string {
	return fmt.Sprint(c.Items, c.Recipients, c.Queued, c.Held, c.Quarantined, " ", c.OldestID)
}

func TestTheQueueIsSummedUp(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, owner := range []string{acme, beta} {
			f.addPartner(t, owner)
			f.addDomain(t, owner, owner+".example", nil)
		}
		f.addEdge(t, "edge_1")
		f.addEdge(t, "edge_2")
		deferred := func(id, recipient, why, reply string, at time.Duration) store.Event {
			e := outcome(store.EventDeferred, id, recipient)
			e.Time, e.DelayReason, e.Reply = noon.Add(at), why, reply
			return e
		}
		f.tell(t, "edge_1",
			accepted("m1", "acme.example", "y.example", "y.example", "z.example"), accepted("m2", "beta.example", "y.example"),
			deferred("m1", "a@y.example", "deferred", "451 later", time.Minute),
			deferred("m2", "a@y.example", "connection-failed", "no route", 2*time.Minute),
			store.Event{Kind: store.EventHeld, MessageID: "m1", RecipientDomains: []string{"z.example"}, Time: noon.Add(time.Hour)})
		f.tell(t, "edge_2", accepted("m3", "acme.example", "x.example"), store.Event{Kind: store.EventQuarantined, MessageID: "m3"})
		for _, test := range []struct {
			tenant store.Tenant
			filter store.QueueFilter
			by     string
			top    int
			want   []string
		}{
			{store.Operator(), store.QueueFilter{}, "destination", 10, []string{
				`y.example 2 3 2 0 0 m1 connection-failed "no route"`, `x.example 1 1 0 0 1 m3  ""`, `z.example 1 1 0 1 0 m1  ""`,
				"of 3: 4 5 2 1 1 m1",
			}},
			{store.Operator(), store.QueueFilter{}, "domain", 1, []string{
				`acme.example 3 4 1 1 1 m1 deferred "451 later"`, "of 2: 4 5 2 1 1 m1",
			}},
			{store.Operator(), store.QueueFilter{State: store.Held}, "state", 10, []string{`held 1 1 0 1 0 m1  ""`, "of 1: 1 1 0 1 0 m1"}},
			{store.PartnerTenant(beta), store.QueueFilter{}, "edge", 10, []string{
				`edge_1 1 1 1 0 0 m2 connection-failed "no route"`, "of 1: 1 1 1 0 0 m2",
			}},
			{store.PartnerTenant(beta), store.QueueFilter{Partner: acme}, "partner", 10, []string{"of 0: 0 0 0 0 0 "}},
			{store.Tenant{}, store.QueueFilter{}, "destination", 10, []string{"of 0: 0 0 0 0 0 "}},
		} {
			if diff := gocmp.Diff(test.want, f.sums(t, test.tenant, test.filter, test.by, test.top)); diff != "" {
				t.Errorf("%+v by %s (-want +got):\n%s", test.filter, test.by, diff)
			}
		}
	})
}

func TestTheAgeOfTheOldestIsKnownByItsID(t *testing.T) {
	id := ulid.MustNew(ulid.Timestamp(noon), ulid.DefaultEntropy()).String()
	for _, test := range []struct {
		id   string
		now  time.Time
		want time.Duration
	}{{id, noon.Add(time.Hour), time.Hour}, {id, noon.Add(-time.Hour), 0}, {"", noon, 0}, {"made-up", noon, 0}} {
		if got := (store.QueueCounts{OldestID: test.id}).OldestAge(test.now); got != test.want {
			t.Errorf("%q: got %v, want %v", test.id, got, test.want)
		}
	}
}
