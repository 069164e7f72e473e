package smtpd

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/policy"
)

// newWorld is the policy of most tests. All tests connect from 127.0.0.1, which
// is a relay IP of every domain but elsewhere.test; the users have the domain
// ok.test.
func newWorld(t testing.TB) *world {
	t.Helper()
	proof, err := passwordVerifier()
	if err != nil {
		t.Fatal(err)
	}
	enabled := api.Relaying{State: api.RelayingStateEnabled}
	disabled := api.Relaying{State: api.RelayingStateDisabled}
	domain := func(name string, change func(*api.DomainPolicy)) api.PolicyDocument {
		d := api.DomainPolicy{
			Name: name, Partner: "acme", Status: api.AdministrativeStatusActive, Relaying: enabled, Limit: 1000,
			UsersMaySendAs: api.DomainPolicyUsersMaySendAsOwn,
			Clients:        []api.ClientPolicy{{ID: "rip_1", Address: "127.0.0.1", State: api.ClientPolicyStateActive}},
		}
		if change != nil {
			change(&d)
		}
		return api.PolicyDocument{Key: "domain/" + name, Domain: &d}
	}
	user := func(address string) api.UserPolicy {
		return api.UserPolicy{
			Address: address, Aliases: []string{}, Status: api.AdministrativeStatusActive, Relaying: enabled, Verifier: proof,
		}
	}
	banned := user("banned@ok.test")
	banned.Relaying = disabled
	w := &world{docs: []api.PolicyDocument{
		{Key: "platform", Platform: &api.PlatformPolicy{Settings: api.Settings{
			QuotaUnit: api.QuotaUnitMessage, BulkMode: api.BulkModeRefuse, MaxRecipients: 100, MaxMessageBytes: 1 << 20,
			MaxPolicyAgeSeconds: 30, SuspendedDeferHours: 24, BareNewline: api.SettingsBareNewlineRefuse,
			QuotaReachedReplyServer: api.SettingsQuotaReachedReplyServerDefer,
			QuotaReachedReplyUser:   api.SettingsQuotaReachedReplyUserRefuse,
		}}},
		{Key: "partner/acme", Partner: &api.PartnerPolicy{
			Slug: "acme", Status: api.AdministrativeStatusActive, Relaying: enabled, SupportContact: new("help@acme.example"),
		}},
		{Key: "partner/rival", Partner: &api.PartnerPolicy{
			Slug: "rival", Status: api.AdministrativeStatusActive, Relaying: enabled,
		}},
		domain("ok.test", func(d *api.DomainPolicy) {
			d.Users = []api.UserPolicy{user("anna@ok.test"), user("bo@ok.test"), banned}
		}),
		domain("other.test", nil),
		domain("full.test", nil),
		domain("last.test", nil),
		domain("unlent.test", nil),
		domain("rival.test", func(d *api.DomainPolicy) { d.Partner = "rival" }),
		domain("elsewhere.test", func(d *api.DomainPolicy) { d.Clients[0].Address = "192.0.2.10" }),
		domain("suspended.test", func(d *api.DomainPolicy) {
			d.Status, d.StatusSince = api.AdministrativeStatusSuspended, new(time.Now().Add(-time.Hour))
		}),
		domain("lapsed.test", func(d *api.DomainPolicy) {
			d.Status, d.StatusSince = api.AdministrativeStatusSuspended, new(time.Now().Add(-48*time.Hour))
		}),
		domain("abusive.test", func(d *api.DomainPolicy) { d.Relaying = disabled }),
		domain("exempt.test", func(d *api.DomainPolicy) { d.Bulk = &api.BulkException{Mode: api.BulkModeAllow} }),
		domain("watched.test", func(d *api.DomainPolicy) { d.Bulk = &api.BulkException{Mode: api.BulkModeObserve} }),
	}}
	for i := range w.docs {
		w.docs[i].Revision = int64(i + 1)
	}
	var rejected []policy.Rejected
	w.table, rejected = policy.Apply(policy.Empty(), w.docs)
	if len(rejected) > 0 {
		t.Fatalf("policy does not compile: %v", rejected)
	}
	return w
}

// lockedBuffer takes in a log.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func textLogger(b *lockedBuffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
