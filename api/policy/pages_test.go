package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"activerelay/api"
)

// dump is everything that a table would answer, in a fixed order.
func dump(t *Table) []string {
	lines := []string{fmt.Sprintf("cursor %+v platform %+v", t.cursor, *t.platform)}
	for p := range t.Partners() {
		lines = append(lines, fmt.Sprintf("partner %+v", *p))
	}
	for d := range t.Domains() {
		lines = append(lines, fmt.Sprintf("domain %s of %s in %s: %+v %d %v %v %v clients %v users %v routes %v unknown %b",
			d.Name, d.Partner(), d.TimeZone(), d.Standing, d.Limit, d.IncludeSubdomains, d.UsersSendAsDomain,
			d.Bulk, d.clients, d.users, d.routes, d.unknown))
	}
	slices.Sort(lines)
	return lines
}

// control is the control plane reduced to its documents: the last version of
// each key, and the revision of the last change.
type control struct {
	revision  int64
	documents map[string]api.PolicyDocument
}

func (c *control) after(from Cursor, limit int) []api.PolicyDocument {
	var page []api.PolicyDocument
	for _, d := range c.documents {
		if place(d).Compare(from) > 0 {
			page = append(page, d)
		}
	}
	slices.SortFunc(page, func(a, b api.PolicyDocument) int { return place(a).Compare(place(b)) })
	return page[:min(limit, len(page))]
}

// change makes one change: one revision, several documents, some of which do
// not compile.
func (c *control) change(r *rapid.T) {
	c.revision++
	for range rapid.IntRange(1, 4).Draw(r, "documents") {
		d := drawDocument(r, c.revision)
		c.documents[d.Key] = d
	}
}

func drawDocument(r *rapid.T, revision int64) api.PolicyDocument {
	kind := rapid.SampledFrom([]string{"platform", "partner", "domain", "domain", "domain"}).Draw(r, "kind")
	name := fmt.Sprintf("n%d.test", rapid.IntRange(0, 12).Draw(r, "name"))
	deleted := rapid.IntRange(0, 4).Draw(r, "deleted") == 0
	broken := rapid.IntRange(0, 4).Draw(r, "broken") == 0
	limit := rapid.Int64Range(0, 100).Draw(r, "limit")
	doc := api.PolicyDocument{Key: "platform", Revision: revision, Deleted: deleted}
	switch kind {
	case "platform":
		s := settings()
		s.MaxRecipients = int(limit)
		doc.Platform = &api.PlatformPolicy{Settings: s}
	case "partner":
		doc = partnerDoc(revision, strings.TrimSuffix(name, ".test"))
		if doc.Deleted = deleted; broken {
			doc.Partner = nil
		}
	case "domain":
		doc = domainDoc(revision, name, func(d *api.DomainPolicy) {
			d.Limit = limit
			d.Clients = []api.ClientPolicy{{ID: "c", Address: fmt.Sprintf("192.0.2.%d", limit), State: api.ClientPolicyStateActive}}
			if broken {
				d.Clients[0].Address = "nowhere"
				d.Name = rapid.SampledFrom([]string{name, "other.test"}).Draw(r, "body name")
			}
		})
		doc.Deleted = deleted
	}
	return doc
}

// TestAnySequenceOfPagesGivesTheSameTableAsOnePassFromNothing lets edges poll
// at any moment, with pages of any size that end inside revisions, and with
// pages that come twice, while the control plane goes on changing.
func TestAnySequenceOfPagesGivesTheSameTableAsOnePassFromNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		plane := &control{documents: map[string]api.PolicyDocument{}}
		table, last := Empty(), []api.PolicyDocument(nil)
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			switch rapid.IntRange(0, 3).Draw(r, "step") {
			case 0, 1:
				plane.change(r)
			case 2:
				last = plane.after(table.Cursor(), rapid.IntRange(1, 5).Draw(r, "page size"))
				before := dump(table)
				next, _ := Apply(table, last)
				if diff := cmp.Diff(before, dump(table)); diff != "" {
					r.Fatalf("Apply changed the table that it was given:\n%s", diff)
				}
				table = next
			case 3:
				table, _ = Apply(table, last)
			}
		}
		for page := plane.after(table.Cursor(), 3); len(page) > 0; page = plane.after(table.Cursor(), 3) {
			table, _ = Apply(table, page)
		}
		whole, _ := Apply(Empty(), plane.after(Cursor{}, len(plane.documents)))
		if diff := cmp.Diff(dump(whole), dump(table)); diff != "" {
			r.Fatalf("one pass (-) and pages (+) differ:\n%s", diff)
		}
	})
}

// FuzzDocument holds that whatever a control plane sends, a table comes out
// that answers, and that nothing a document says leaks into another key.
func FuzzDocument(f *testing.F) {
	complaints := api.ClientPolicyCauseComplaints
	for _, doc := range []api.PolicyDocument{
		domainDoc(1, "example.com", func(d *api.DomainPolicy) {
			d.Clients = []api.ClientPolicy{{ID: "c", Address: "2001:db8::/48", State: api.ClientPolicyStateDisabled, Cause: &complaints}}
			d.Users = []api.UserPolicy{{Address: "a@example.com", Aliases: []string{"b@example.com"}, Status: "active", Relaying: enabled()}}
			d.Routes = []api.RoutePolicy{{ID: "r", Host: "h.test", Port: 25, TLS: api.TLSRuleNone}}
		}),
		partnerDoc(2, "acme"),
		{Key: "platform", Revision: 3, Platform: &api.PlatformPolicy{Settings: settings()}},
		{Key: "domain/", Revision: 4},
		{Key: "domain/x/y", Revision: 5, Deleted: true},
		{Key: "", Revision: -1},
	} {
		seed, err := json.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var doc api.PolicyDocument
		if json.Unmarshal(data, &doc) != nil {
			return
		}
		standing, _ := Apply(Empty(), []api.PolicyDocument{domainDoc(0, "standing.test", nil)})
		before := dump(standing)
		table, rejected := Apply(standing, []api.PolicyDocument{doc})
		if diff := cmp.Diff(before, dump(standing)); diff != "" {
			t.Fatalf("the old table changed:\n%s", diff)
		}
		if again, _ := Apply(table, []api.PolicyDocument{doc}); again.cursor != table.cursor {
			t.Fatalf("the same page moved the cursor from %+v to %+v", table.cursor, again.cursor)
		}
		if d, ok := table.Domain("standing.test"); doc.Key != "domain/standing.test" && (!ok || d.Limit != 1000) {
			t.Fatalf("%q changed another domain: %+v", doc.Key, d)
		}
		for _, r := range rejected {
			if r.Key != doc.Key || len(r.Faults) == 0 || len(r.Faults) > maxFaults {
				t.Fatalf("rejected %+v", r)
			}
		}
		for d := range table.Domains() {
			d.Client(netip.MustParseAddr("192.0.2.1"))
			d.User(address(t, "a@example.com"))
			if _, answer := table.Route(d, "x.test"); answer == "" {
				t.Fatal("no answer for a route")
			}
			if d.Limit < 0 || d.Active == "" {
				t.Fatalf("impossible domain %+v", d)
			}
		}
	})
}

// TestOneChangeCopiesAPathNotTheTable keeps a delta cheap however many domains
// there are.
func TestOneChangeCopiesAPathNotTheTable(t *testing.T) {
	table, _ := Apply(Empty(), firstPass(20_000))
	change := []api.PolicyDocument{domainDoc(table.Revision()+1, "customer-7.example", nil)}
	allocations := testing.AllocsPerRun(20, func() {
		if next, _ := Apply(table, change); next.DomainCount() != table.DomainCount() {
			t.Fatal("the count changed")
		}
	})
	if allocations > 100 {
		t.Errorf("one change among 20,000 domains made %v allocations", allocations)
	}
}
