package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"activerelay/api"
	"activerelay/api/mailaddr"
)

func enabled() api.Relaying { return api.Relaying{State: api.RelayingStateEnabled} }

func settings() api.Settings {
	return api.Settings{
		QuotaUnit: api.QuotaUnitMessage, BulkMode: api.BulkModeRefuse, MaxRecipients: 100, MaxMessageBytes: 1 << 20,
		MaxPolicyAgeSeconds: 30, SuspendedDeferHours: 24, BareNewline: api.SettingsBareNewlineRefuse,
		QuotaReachedReplyServer: api.SettingsQuotaReachedReplyServerDefer,
		QuotaReachedReplyUser:   api.SettingsQuotaReachedReplyUserRefuse,
	}
}

func domainDoc(revision int64, name string, change func(*api.DomainPolicy)) api.PolicyDocument {
	d := &api.DomainPolicy{
		Name: name, Partner: "acme", Status: api.AdministrativeStatusActive, Relaying: enabled(), Limit: 1000,
		UsersMaySendAs: api.DomainPolicyUsersMaySendAsOwn,
	}
	if change != nil {
		change(d)
	}
	return api.PolicyDocument{Key: "domain/" + name, Revision: revision, Domain: d}
}

func partnerDoc(revision int64, slug string) api.PolicyDocument {
	return api.PolicyDocument{Key: "partner/" + slug, Revision: revision, Partner: &api.PartnerPolicy{
		Slug: slug, Status: api.AdministrativeStatusActive, Relaying: enabled(),
	}}
}

func compiled(t *testing.T, documents ...api.PolicyDocument) *Table {
	t.Helper()
	table, rejected := Apply(Empty(), documents)
	if len(rejected) > 0 {
		t.Fatalf("rejected: %+v", rejected)
	}
	return table
}

func TestADomainSpeaksForItsSubdomainsWhereItSaysSo(t *testing.T) {
	including := func(d *api.DomainPolicy) { d.IncludeSubdomains = true }
	table := compiled(t,
		domainDoc(1, "example.com", including), domainDoc(2, "own.example.com", nil), domainDoc(3, "example.net", nil))
	cases := []struct{ name, want string }{
		{name: "example.com", want: "example.com"},
		{name: "a.example.com", want: "example.com"},
		{name: "a.b.example.com", want: "example.com"},
		{name: "own.example.com", want: "own.example.com"},
		// own.example.com may belong to another partner: it hides the parent.
		{name: "a.own.example.com", want: ""},
		{name: "a.example.net", want: ""},
		{name: "xexample.com", want: ""},
		{name: "com", want: ""},
		{name: "", want: ""},
	}
	for _, c := range cases {
		d, ok := table.Domain(c.name)
		if ok != (c.want != "") || ok && d.Name != c.want {
			t.Errorf("%q speaks under %v, %v; want %q", c.name, d, ok, c.want)
		}
	}
}

// An edge that serves only some partners has no document of another partner's domain below one of theirs.
func TestADomainDoesNotSpeakForSubdomainsOfOtherPartnersThatTheEdgeDoesNotKnow(t *testing.T) {
	table := compiled(t, domainDoc(1, "example.com", func(d *api.DomainPolicy) {
		d.IncludeSubdomains, d.ExceptSubdomains = true, []string{"sub.example.com"}
	}))
	for name, speaks := range map[string]bool{
		"a.example.com": true, "xsub.example.com": true, "sub.example.com": false, "a.sub.example.com": false,
	} {
		if _, ok := table.Domain(name); ok != speaks {
			t.Errorf("%q speaks under example.com: %v, want %v", name, ok, speaks)
		}
	}
}

func TestTheMostExactRelayIPDecides(t *testing.T) {
	complaints := api.ClientPolicyCauseComplaints
	table := compiled(t, domainDoc(1, "example.com", func(d *api.DomainPolicy) {
		d.Clients = []api.ClientPolicy{
			{ID: "net", Address: "192.0.2.0/24", State: api.ClientPolicyStateActive},
			{ID: "bad", Address: "192.0.2.66/32", State: api.ClientPolicyStateDisabled},
			{ID: "worse", Address: "192.0.2.67", State: api.ClientPolicyStateDisabled, Cause: &complaints},
			{ID: "six", Address: "2001:db8:1::/48", State: api.ClientPolicyStateActive},
			{ID: "host", Address: "2001:db8:1::25", State: api.ClientPolicyStateDisabled},
			{ID: "same length", Address: "2001:db8::c000:200/120", State: api.ClientPolicyStateActive},
		}
	}))
	d, _ := table.Domain("example.com")
	cases := []struct {
		address, id string
		state       ClientState
	}{
		{address: "192.0.2.10", id: "net", state: ClientActive},
		{address: "::ffff:192.0.2.10", id: "net", state: ClientActive},
		{address: "192.0.2.66", id: "bad", state: ClientDisabled},
		{address: "192.0.2.67", id: "worse", state: ClientAbusive},
		{address: "2001:db8:1:2::3", id: "six", state: ClientActive},
		{address: "2001:db8:1::25", id: "host", state: ClientDisabled},
		{address: "2001:db8:1:2::3%eth0", id: "six", state: ClientActive},
		{address: "2001:db8::c000:2ff", id: "same length", state: ClientActive},
		{address: "192.0.3.1"},
		{address: "2001:db8:2::1"},
		{address: "::"},
		{address: "0.0.0.0"},
	}
	for _, c := range cases {
		got, answer := d.Client(netip.MustParseAddr(c.address))
		if (answer == Yes) != (c.id != "") || got.ID != c.id || got.State != c.state {
			t.Errorf("%s: %+v, %s; want %q %s", c.address, got, answer, c.id, c.state)
		}
	}
	if _, answer := d.Client(netip.Addr{}); answer != No {
		t.Errorf("no address at all: %s", answer)
	}
}

// TestPrefixLookupAgreesWithLookingAtEach compares with a plain scan.
func TestPrefixLookupAgreesWithLookingAtEach(t *testing.T) {
	octet := rapid.IntRange(0, 3)
	rapid.Check(t, func(r *rapid.T) {
		var list []Client
		seen := map[netip.Prefix]bool{}
		for i := range rapid.IntRange(0, 30).Draw(r, "clients") {
			address := netip.AddrFrom4([4]byte{10, 0, byte(octet.Draw(r, "c")), byte(octet.Draw(r, "d"))})
			if rapid.Bool().Draw(r, "six") {
				address = netip.AddrFrom16([16]byte{0x20, 1, 5: byte(octet.Draw(r, "e")), 15: byte(octet.Draw(r, "f"))})
			}
			prefix, _ := address.Prefix(address.BitLen() - rapid.IntRange(0, 8).Draw(r, "host bits"))
			if !seen[prefix] {
				seen[prefix] = true
				list = append(list, Client{ID: fmt.Sprint(i), Prefix: prefix})
			}
		}
		indexed := newClients(slices.Clone(list))
		for _, c := range list {
			for _, address := range []netip.Addr{c.Prefix.Addr(), c.Prefix.Addr().Next()} {
				var want Client
				for _, other := range list {
					if other.Prefix.Contains(address) && (want.ID == "" || other.Prefix.Bits() > want.Prefix.Bits()) {
						want = other
					}
				}
				if got, ok := indexed.find(address); ok != (want.ID != "") || got != want {
					r.Fatalf("%s: got %v, want %v in %v", address, got, want, list)
				}
			}
		}
	})
}

func address(t *testing.T, s string) mailaddr.Address {
	t.Helper()
	a, err := mailaddr.Parse(s, mailaddr.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestUsersAreFoundByAddressAndOwnTheirAliases(t *testing.T) {
	user := func(a string, aliases ...string) api.UserPolicy {
		return api.UserPolicy{Address: a, Aliases: aliases, Verifier: "v-" + a, Status: api.AdministrativeStatusActive, Relaying: enabled()}
	}
	table := compiled(t,
		domainDoc(1, "example.com", func(d *api.DomainPolicy) {
			d.Users = []api.UserPolicy{user("zoe@example.com"), user("Anna@example.com", "Info@example.com", "sales@example.com"), user("bo@mail.example.com")}
		}),
		domainDoc(2, "example.net", nil))
	anna, domain, answer := table.User(address(t, "anna@EXAMPLE.com"))
	if answer != Yes || anna.Address != "anna@example.com" || domain.Name != "example.com" || anna.Verifier != "v-Anna@example.com" {
		t.Fatalf("got %+v of %v, %s", anna, domain, answer)
	}
	for _, c := range []struct {
		address string
		want    bool
	}{
		{address: "ANNA@example.com", want: true},
		{address: "info@example.com", want: true},
		{address: "sales@example.com", want: true},
		{address: "zoe@example.com"},
		{address: "anna@example.net"},
	} {
		if got := anna.Owns(address(t, c.address)); got != c.want {
			t.Errorf("anna owns %s: %v", c.address, got)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*api.DomainPolicy)
		want   Answer
	}{
		{name: "own addresses only", want: No},
		{name: "whole domain", change: func(d *api.DomainPolicy) { d.UsersMaySendAs = api.DomainPolicyUsersMaySendAsDomain }, want: Yes},
		{name: "unreadable choice", change: func(d *api.DomainPolicy) { d.UsersMaySendAs = "colleagues" }, want: Unknown},
	} {
		other, _ := Apply(Empty(), []api.PolicyDocument{domainDoc(1, "example.com", c.change), domainDoc(2, "example.net", nil)})
		d, _ := other.Domain("example.com")
		if got := d.UserMaySend(anna, address(t, "boss@example.com"), d); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
		if got := d.UserMaySend(anna, address(t, "info@example.com"), d); got != Yes {
			t.Errorf("%s, alias: %s", c.name, got)
		}
		foreign, _ := other.Domain("example.net")
		if got := d.UserMaySend(anna, address(t, "x@example.net"), foreign); got == Yes {
			t.Errorf("%s, another domain: %s", c.name, got)
		}
	}
	if bo, _, answer := table.User(address(t, "bo@mail.example.com")); answer != Yes || bo.Address != "bo@mail.example.com" {
		t.Errorf("a user below the domain: %v, %s", bo, answer)
	}
	for _, nobody := range []string{"x@example.com", "anna@example.net", "anna@example.org"} {
		if _, _, answer := table.User(address(t, nobody)); answer != No {
			t.Errorf("%s: %s", nobody, answer)
		}
	}
}

func TestTheMostParticularRouteIsTaken(t *testing.T) {
	route := func(id, recipient string) api.RoutePolicy {
		r := api.RoutePolicy{ID: id, Host: id + ".test", Port: 25, TLS: api.TLSRuleOpportunistic}
		if recipient != "" {
			r.RecipientDomain = &recipient
		}
		return r
	}
	table := compiled(t,
		api.PolicyDocument{Key: "platform", Revision: 1, Platform: &api.PlatformPolicy{
			Settings: settings(), Routes: []api.RoutePolicy{route("platform-all", ""), route("platform-one", "one.test")},
		}},
		domainDoc(2, "both.test", func(d *api.DomainPolicy) {
			d.Routes = []api.RoutePolicy{route("both-all", ""), route("both-one", "one.test")}
		}),
		domainDoc(3, "one-only.test", func(d *api.DomainPolicy) { d.Routes = []api.RoutePolicy{route("only-two", "two.test")} }),
		domainDoc(4, "none.test", nil))
	cases := []struct{ sender, recipient, want string }{
		{sender: "both.test", recipient: "one.test", want: "both-one"},
		{sender: "both.test", recipient: "x.test", want: "both-all"},
		{sender: "one-only.test", recipient: "two.test", want: "only-two"},
		{sender: "one-only.test", recipient: "one.test", want: "platform-one"},
		{sender: "none.test", recipient: "x.test", want: "platform-all"},
		{sender: "", recipient: "one.test", want: "platform-one"},
	}
	for _, c := range cases {
		sender, _ := table.Domain(c.sender)
		if got, answer := table.Route(sender, c.recipient); answer != Yes || got.ID != c.want {
			t.Errorf("from %q to %q: %q, %s; want %q", c.sender, c.recipient, got.ID, answer, c.want)
		}
	}
	plain := compiled(t, domainDoc(1, "none.test", nil))
	sender, _ := plain.Domain("none.test")
	if _, answer := plain.Route(sender, "x.test"); answer != No {
		t.Errorf("without routes: %s", answer)
	}
}

func TestADocumentThatDoesNotCompileAppliesWhatItCan(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	table, rejected := Apply(Empty(), []api.PolicyDocument{domainDoc(7, "example.com", func(d *api.DomainPolicy) {
		d.Status, d.Limit = api.AdministrativeStatusSuspended, 77
		d.Clients = []api.ClientPolicy{
			{ID: "good", Address: "192.0.2.10/32", State: api.ClientPolicyStateActive},
			{ID: "bad", Address: "192.0.2.300", State: api.ClientPolicyStateActive},
			{ID: "host bits", Address: "192.0.2.1/24", State: api.ClientPolicyStateActive},
			{ID: "new state", Address: "192.0.2.11", State: "paused"},
		}
		d.Users = []api.UserPolicy{{Address: "anna@elsewhere.test", Status: api.AdministrativeStatusActive, Relaying: enabled()}}
		d.Routes = []api.RoutePolicy{{ID: "r", Host: "h.test", Port: 0, TLS: api.TLSRuleNone}}
		d.Bulk = &api.BulkException{Mode: "sometimes"}
	})})
	want := []Rejected{{Key: "domain/example.com", Revision: 7, Faults: []string{
		"/clients/1/address: is not an address or prefix",
		"/clients/2/address: is not an address or prefix",
		"/clients/3/state: is not a known choice",
		"/users/0/address: is not an address of the domain",
		"/routes/0/port: is not a port",
		"/bulk/mode: is not a known choice",
	}}}
	if diff := cmp.Diff(want, rejected); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
	d, ok := table.Domain("example.com")
	if !ok || d.Active != No || d.Limit != 77 {
		t.Fatalf("status and limit did not apply: %+v", d)
	}
	if c, answer := d.Client(netip.MustParseAddr("192.0.2.10")); answer != Yes || c.State != ClientActive {
		t.Errorf("the good client: %+v, %s", c, answer)
	}
	if _, answer := d.Client(netip.MustParseAddr("192.0.2.99")); answer != Unknown {
		t.Errorf("another client: %s", answer)
	}
	if _, answer := d.User(address(t, "anna@example.com")); answer != Unknown {
		t.Errorf("a user: %s", answer)
	}
	if _, answer := table.Route(d, "x.test"); answer != Unknown {
		t.Errorf("a route: %s", answer)
	}
	if _, answer := d.BulkMode(table.Platform(), now); answer != Unknown {
		t.Errorf("bulk: %s", answer)
	}
}

func TestADocumentThatCannotBeReadLeavesItsSubjectUnknownNotGone(t *testing.T) {
	broken := []api.PolicyDocument{
		{Key: "domain/no-body.test", Revision: 1},
		{Key: "domain/other.test", Revision: 2, Domain: domainDoc(2, "example.com", nil).Domain},
		{Key: "partner/acme", Revision: 3},
	}
	table, rejected := Apply(Empty(), broken)
	if len(rejected) != 3 {
		t.Fatalf("rejected: %+v", rejected)
	}
	for _, name := range []string{"no-body.test", "other.test"} {
		d, ok := table.Domain(name)
		if !ok || d.Active != Unknown || d.Readable() {
			t.Errorf("%s: %+v, %v", name, d, ok)
		}
		if _, answer := d.Client(netip.MustParseAddr("192.0.2.1")); answer != Unknown {
			t.Errorf("%s: a client is %s", name, answer)
		}
	}
	if partner, ok := table.Partner("acme"); !ok || partner.Active != Unknown {
		t.Errorf("partner: %+v, %v", partner, ok)
	}
	if _, ok := table.Domain("example.com"); ok {
		t.Error("a body came in under another key")
	}
}

func TestUnreadableSettingsLoosenNothing(t *testing.T) {
	s := settings()
	s.BulkMode, s.QuotaUnit, s.MaxRecipients, s.MaxMessageBytes, s.BareNewline = "loud", "byte", 0, -1, "keep"
	s.QuotaReachedReplyServer, s.QuotaReachedReplyUser, s.MaxPolicyAgeSeconds = "x", "y", 0
	s.SuspendedDeferHours, s.BulkRecipientCap, s.AllowTargetNetworks = -1, -1, []string{"10.0.0.0/8", "everywhere"}
	table, rejected := Apply(Empty(), []api.PolicyDocument{{Key: "platform", Revision: 1, Platform: &api.PlatformPolicy{Settings: s}}})
	if len(rejected) != 1 || len(rejected[0].Faults) != 11 {
		t.Fatalf("rejected: %+v", rejected)
	}
	want := *defaultPlatform()
	want.AllowTargets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if diff := cmp.Diff(want, *table.Platform(), cmp.AllowUnexported(Platform{}, routes{}), cmp.Comparer(samePrefix)); diff != "" {
		t.Fatalf("settings (-want +got):\n%s", diff)
	}
}

func TestTheLimitsOfADestinationAreThoseOfItsName(t *testing.T) {
	limit := func(destination string, connections, messages int) api.DestinationLimitPolicy {
		return api.DestinationLimitPolicy{Destination: destination, MaxConnections: &connections, MessagesPerMinute: &messages}
	}
	table, rejected := Apply(Empty(), []api.PolicyDocument{{Key: "platform", Revision: 1, Platform: &api.PlatformPolicy{
		Settings: settings(),
		DestinationLimits: []api.DestinationLimitPolicy{
			limit("example.net", 5, 60), limit("", 1, 1), limit("broken.example", -1, 0), {Destination: "bare.example"},
		},
	}}})
	want := []Rejected{{Key: "platform", Revision: 1, Faults: []string{
		"/destination_limits/1: names no destination, or is negative", "/destination_limits/2: names no destination, or is negative",
	}}}
	if diff := cmp.Diff(want, rejected); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
	for name, want := range map[string]DestinationLimit{
		"example.net": {MaxConnections: 5, MessagesPerMinute: 60}, "mx.example.net": {}, "": {}, "broken.example": {}, "bare.example": {},
	} {
		if got := table.Platform().DestinationLimit(name); got != want {
			t.Errorf("%q: got %+v, want %+v", name, got, want)
		}
	}
}

func samePrefix(a, b netip.Prefix) bool { return a == b }

func TestABulkExceptionEndsAtItsInstant(t *testing.T) {
	end := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	table := compiled(t, domainDoc(1, "example.com", func(d *api.DomainPolicy) {
		d.Bulk = &api.BulkException{Mode: api.BulkModeAllow, ExpiresAt: &end}
	}))
	d, _ := table.Domain("example.com")
	if mode, _ := d.BulkMode(table.Platform(), end.Add(-1)); mode != api.BulkModeAllow {
		t.Errorf("before its end: %s", mode)
	}
	if mode, _ := d.BulkMode(table.Platform(), end); mode != api.BulkModeRefuse {
		t.Errorf("at its end: %s", mode)
	}
}

func TestAnOlderDocumentIsNeverAdopted(t *testing.T) {
	limit := func(n int64) func(*api.DomainPolicy) { return func(d *api.DomainPolicy) { d.Limit = n } }
	table := compiled(t, domainDoc(5, "example.com", limit(5)))
	older, rejected := Apply(table, []api.PolicyDocument{
		domainDoc(4, "example.com", limit(4)), domainDoc(5, "example.com", limit(55)),
		{Key: "domain/example.com", Revision: 3, Deleted: true},
	})
	if d, ok := older.Domain("example.com"); !ok || d.Limit != 5 || len(rejected) != 0 || older.Cursor() != table.Cursor() {
		t.Fatalf("got %+v at %+v", d, older.Cursor())
	}
}

func TestKindsOfANewerReaderAreLeftAlone(t *testing.T) {
	table, rejected := Apply(Empty(), []api.PolicyDocument{{Key: "footer/example.com", Revision: 9}, domainDoc(10, "example.com", nil)})
	if len(rejected) != 0 || table.DomainCount() != 1 || table.Revision() != 10 {
		t.Fatalf("rejected %+v, revision %d", rejected, table.Revision())
	}
}
