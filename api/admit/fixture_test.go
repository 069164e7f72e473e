package admit

import (
	"net/netip"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/policy"
)

// noon is the instant at which the tests decide.
func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func ptr[T any](v T) *T { return &v }

func enabled() api.Relaying  { return api.Relaying{State: api.RelayingStateEnabled} }
func disabled() api.Relaying { return api.Relaying{State: api.RelayingStateDisabled} }

// world is the policy of most tests: the partner acme with example.com and
// example.net, the partner rival with rival.test.
type world struct {
	settings api.Settings
	acme     api.PartnerPolicy
	com, net api.DomainPolicy
	rival    api.DomainPolicy
	without  []string // keys of documents that have not come
}

func newWorld() *world {
	domain := func(name, partner, address string) api.DomainPolicy {
		return api.DomainPolicy{
			Name: name, Partner: partner, Status: api.AdministrativeStatusActive, Relaying: enabled(), Limit: 1000,
			UsersMaySendAs: api.DomainPolicyUsersMaySendAsOwn,
			Clients:        []api.ClientPolicy{{ID: "rip_" + name, Address: address, State: api.ClientPolicyStateActive}},
		}
	}
	w := &world{
		settings: api.Settings{
			QuotaUnit: api.QuotaUnitMessage, BulkMode: api.BulkModeRefuse, MaxRecipients: 100, MaxMessageBytes: 1 << 20,
			MaxPolicyAgeSeconds: 30, SuspendedDeferHours: 24, BareNewline: api.SettingsBareNewlineRefuse,
			QuotaReachedReplyServer: api.SettingsQuotaReachedReplyServerDefer,
			QuotaReachedReplyUser:   api.SettingsQuotaReachedReplyUserRefuse,
		},
		acme: api.PartnerPolicy{
			Slug: "acme", Status: api.AdministrativeStatusActive, Relaying: enabled(), SupportContact: ptr("help@acme.example"),
		},
		com:   domain("example.com", "acme", "192.0.2.10/32"),
		net:   domain("example.net", "acme", "192.0.2.20/32"),
		rival: domain("rival.test", "rival", "192.0.2.10/32"),
	}
	w.com.Users = []api.UserPolicy{
		{Address: "anna@example.com", Aliases: []string{"info@example.com", "shop@example.net"}, Status: api.AdministrativeStatusActive, Relaying: enabled()},
		{Address: "bo@example.com", Status: api.AdministrativeStatusActive, Relaying: enabled()},
	}
	return w
}

// view compiles the world as an edge sees it that polled a second ago.
func (w *world) view(t *testing.T) View {
	t.Helper()
	documents := []api.PolicyDocument{
		{Key: "platform", Revision: 1, Platform: &api.PlatformPolicy{Settings: w.settings}},
		{Key: "partner/acme", Revision: 2, Partner: &w.acme},
		{Key: "partner/rival", Revision: 3, Partner: &api.PartnerPolicy{Slug: "rival", Status: api.AdministrativeStatusActive, Relaying: enabled()}},
		{Key: "domain/example.com", Revision: 4, Domain: &w.com},
		{Key: "domain/example.net", Revision: 5, Domain: &w.net},
		{Key: "domain/rival.test", Revision: 6, Domain: &w.rival},
	}
	for i := range documents {
		for _, key := range w.without {
			documents[i].Deleted = documents[i].Deleted || documents[i].Key == key
		}
	}
	table, _ := policy.Apply(policy.Empty(), documents)
	return View{Table: table, Complete: true, LastPoll: noon().Add(-time.Second), Now: noon()}
}

// changed compiles the world after a change to it, which may be nil.
func changed(t *testing.T, change func(*world)) View {
	t.Helper()
	w := newWorld()
	if change != nil {
		change(w)
	}
	return w.view(t)
}

func byIP(address string) Client { return Client{Address: netip.MustParseAddr(address)} }

func byUser(t *testing.T, user string) Client {
	t.Helper()
	return Client{Address: netip.MustParseAddr("198.51.100.7"), User: addr(t, user)}
}

// addr parses an address; "" is the null sender.
func addr(t *testing.T, s string) mailaddr.Address {
	t.Helper()
	a, err := mailaddr.ParsePath(s, mailaddr.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
