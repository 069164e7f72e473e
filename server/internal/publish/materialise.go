package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/server/internal/store"
)

// The kinds of documents, which are the properties that hold their bodies.
const (
	kindPlatform = "platform"
	kindPartner  = "partner"
	kindDomain   = "domain"
)

// kindOf is the part of a key before its slash.
func kindOf(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}

// Materialise reads the rows of one document; what is not there any more becomes a tombstone. It is given to the store.
func Materialise(tx *store.Tx, key string) (store.Document, error) {
	kind, name, _ := strings.Cut(key, "/")
	var body any
	var owner store.Document
	var err error
	switch kind {
	case kindPlatform:
		body, err = platform(tx)
	case kindPartner:
		owner.Partner = name
		body, err = partner(tx, name)
	case kindDomain:
		var policy api.DomainPolicy
		policy, err = domain(tx, name)
		owner.Partner, owner.Domain, body = policy.Partner, name, policy
	default:
		return owner, fmt.Errorf("unknown kind of document %q", key)
	}
	if errors.Is(err, store.ErrNotFound) {
		owner.Deleted = true
		return owner, nil
	}
	if err != nil {
		return owner, err
	}
	text, err := json.Marshal(body)
	owner.Body = string(text)
	return owner, err
}

func platform(tx *store.Tx) (api.PlatformPolicy, error) {
	settings, err := tx.Settings()
	if err != nil {
		return api.PlatformPolicy{}, err
	}
	limits, err := tx.AllDestinationLimits()
	if err != nil {
		return api.PlatformPolicy{}, err
	}
	routes, err := tx.RoutesOf("")
	return api.PlatformPolicy{
		Settings: Settings(settings), Routes: each(routes, route), DestinationLimits: each(limits, destinationLimit),
	}, err
}

func destinationLimit(row store.DestinationLimit) api.DestinationLimitPolicy {
	return api.DestinationLimitPolicy{
		Destination: row.Destination, MaxConnections: &row.MaxConnections, MessagesPerMinute: &row.MessagesPerMinute,
	}
}

// Settings is the wire form of the settings, which the API shows and the document "platform" holds.
func Settings(s store.Settings) api.Settings {
	return api.Settings{
		QuotaFloor: s.QuotaFloor, QuotaPerUser: s.QuotaPerUser, QuotaUnit: api.QuotaUnit(s.QuotaUnit),
		DefaultTimeZone: s.DefaultTimeZone, RelayIPActivation: api.SettingsRelayIPActivation(s.RelayIPActivation),
		AllowUnscanned: s.AllowUnscanned, AllowTargetNetworks: list(s.AllowTargetNetworks),
		BulkMode: api.BulkMode(s.BulkMode), BulkRefuseAutoSubmitted: s.BulkRefuseAutoSubmitted,
		BulkRecipientCap: s.BulkRecipientCap, MaxRecipients: s.MaxRecipients, MaxMessageBytes: s.MaxMessageBytes,
		MaxPolicyAgeSeconds:     s.MaxPolicyAgeSeconds,
		QuotaReachedReplyServer: api.SettingsQuotaReachedReplyServer(s.QuotaReachedReplyServer),
		QuotaReachedReplyUser:   api.SettingsQuotaReachedReplyUser(s.QuotaReachedReplyUser),
		SuspendedDeferHours:     s.SuspendedDeferHours, BareNewline: api.SettingsBareNewline(s.BareNewline),
		NoticeFrom: s.NoticeFrom, NoticePercent: s.NoticePercent,
		ComplaintThresholds: api.ComplaintThresholds{
			User: s.ComplaintsUser, RelayIP: s.ComplaintsRelayIP, Domain: s.ComplaintsDomain,
			Partner: s.ComplaintsPartner, WindowHours: s.ComplaintsWindowHours,
		},
	}
}

func partner(tx *store.Tx, slug string) (api.PartnerPolicy, error) {
	row, err := tx.Partner(slug)
	if err != nil {
		return api.PartnerPolicy{}, err
	}
	return api.PartnerPolicy{
		Slug: row.Slug, Status: api.AdministrativeStatus(row.Status), StatusSince: since(row.Administrative),
		Relaying: relaying(row.Relaying), SupportContact: optional(row.SupportContact), TimeZone: optional(row.TimeZone),
	}, nil
}

func domain(tx *store.Tx, name string) (api.DomainPolicy, error) {
	row, err := tx.Domain(name)
	if err != nil {
		return api.DomainPolicy{}, err
	}
	terms, err := tx.QuotaTerms(row)
	if err != nil {
		return api.DomainPolicy{}, err
	}
	clients, err := tx.RelayIPsOf(name)
	if err != nil {
		return api.DomainPolicy{}, err
	}
	users, err := tx.UsersOf(name)
	if err != nil {
		return api.DomainPolicy{}, err
	}
	others, err := tx.SubdomainsOfOthers(row)
	if err != nil {
		return api.DomainPolicy{}, err
	}
	routes, err := tx.RoutesOf(name)
	return api.DomainPolicy{
		Name: row.Name, Partner: row.Partner, Status: api.AdministrativeStatus(row.Status),
		StatusSince: since(row.Administrative), Relaying: relaying(row.Relaying), Limit: terms[0].Limit,
		TimeZone: &terms[0].TimeZone, IncludeSubdomains: row.IncludeSubdomains, ExceptSubdomains: others,
		UsersMaySendAs: api.DomainPolicyUsersMaySendAs(row.UsersMaySendAs), Bulk: bulk(row),
		Clients: each(known(clients), client), Users: each(users, user), Routes: each(routes, route), Contacts: list(row.Contacts),
	}, err
}

func bulk(row store.Domain) *api.BulkException {
	if row.BulkMode == "" {
		return nil
	}
	return &api.BulkException{
		Domain: row.Name, Mode: api.BulkMode(row.BulkMode), Reason: row.BulkReason, ExpiresAt: row.BulkExpiresAt,
	}
}

// known leaves out the relay IPs that were never active: to an edge they are as unknown as any other address.
func known(rows []store.RelayIP) []store.RelayIP {
	kept := make([]store.RelayIP, 0, len(rows))
	for _, row := range rows {
		if row.State == store.RelayIPActive || row.State == store.RelayIPDisabled {
			kept = append(kept, row)
		}
	}
	return kept
}

func client(row store.RelayIP) api.ClientPolicy {
	shown := api.ClientPolicy{ID: row.ID, Address: row.Address, State: api.ClientPolicyState(row.State), Reason: optional(row.Reason)}
	if row.Cause != "" {
		cause := api.ClientPolicyCause(row.Cause)
		shown.Cause = &cause
	}
	return shown
}

func user(row store.User) api.UserPolicy {
	return api.UserPolicy{
		Address: row.Address, Verifier: row.Verifier, Status: api.AdministrativeStatus(row.Status),
		StatusSince: since(row.Administrative), Relaying: relaying(row.Relaying), Aliases: list(row.Aliases),
	}
}

func route(row store.Route) api.RoutePolicy {
	shown := api.RoutePolicy{
		ID: row.ID, RecipientDomain: optional(row.RecipientDomain), Host: row.Host, Port: row.Port, TLS: api.TLSRule(row.TLS),
		Username: optional(row.Username),
	}
	if row.PasswordSealed != nil {
		shown.SecretID, shown.SecretVersion = &row.ID, &row.SecretVersion
	}
	return shown
}

func relaying(r store.Relaying) api.Relaying {
	shown := api.Relaying{State: api.RelayingState(r.State), Reason: optional(r.Reason), Since: r.Since}
	if r.Cause != "" {
		cause := api.RelayingCause(r.Cause)
		shown.Cause = &cause
	}
	return shown
}

func since(a store.Administrative) *time.Time {
	if a.Status == store.StatusActive {
		return nil
	}
	return &a.StatusSince
}

func optional(value string) *string {
	if value == "" {
		return nil
	}
	return &value
}

// list is never nil, because the contract wants a list.
func list(values store.Strings) []string { return append([]string{}, values...) }

func each[T, U any](rows []T, to func(T) U) []U {
	items := make([]U, 0, len(rows))
	for _, row := range rows {
		items = append(items, to(row))
	}
	return items
}
