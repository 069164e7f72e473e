package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	"activerelay/api"
	"activerelay/api/mailaddr"
)

// faults collects what does not compile. Every path starts at the body of the
// document; no value is repeated, since the list goes into logs and events.
type faults struct{ list []string }

// maxFaults bounds the report of one document.
const maxFaults = 20

func (f *faults) add(rule, path string, args ...any) {
	if len(f.list) < maxFaults {
		f.list = append(f.list, fmt.Sprintf(path, args...)+": "+rule)
	}
}

// compilePartner never fails: what cannot be read at all makes a partner whose
// standing is unknown, so that its mail is deferred.
func compilePartner(slug string, d *api.PartnerPolicy, f *faults) *Partner {
	switch {
	case d == nil:
		f.add("body is missing", "/partner")
	case d.Slug != slug:
		f.add("differs from the key", "/slug")
	default:
		return &Partner{
			Slug:     d.Slug,
			Standing: standing("", d.Status, d.StatusSince, d.Relaying, f),
			Contact:  deref(d.SupportContact),
		}
	}
	return &Partner{Slug: strings.Clone(slug), Standing: Standing{Active: Unknown}}
}

// compileDomain never fails either: see compilePartner.
func compileDomain(name string, d *api.DomainPolicy, f *faults) *Domain {
	canonical, err := mailaddr.ParseDomain(name)
	switch {
	case err != nil || canonical != name:
		f.add("is not a canonical domain", "/key")
	case d == nil:
		f.add("body is missing", "/domain")
	case d.Name != name:
		f.add("differs from the key", "/name")
	default:
		return domainOf(d, f)
	}
	return &Domain{
		Name: strings.Clone(name), Standing: Standing{Active: Unknown}, unknown: partWhole,
		partner: unique.Make(""), timeZone: unique.Make(""),
	}
}

func domainOf(d *api.DomainPolicy, f *faults) *Domain {
	compiled := &Domain{
		Name:              d.Name,
		Standing:          standing("", d.Status, d.StatusSince, d.Relaying, f),
		Limit:             d.Limit,
		IncludeSubdomains: d.IncludeSubdomains,
		ExceptSubdomains:  slices.Clone(d.ExceptSubdomains),
		UsersSendAsDomain: d.UsersMaySendAs == api.DomainPolicyUsersMaySendAsDomain,
		partner:           unique.Make(d.Partner),
		timeZone:          unique.Make(zoneOf(d.TimeZone)),
	}
	if d.Limit < 0 {
		f.add("is negative", "/limit")
		compiled.Limit = 0
	}
	if d.UsersMaySendAs != api.DomainPolicyUsersMaySendAsOwn && !compiled.UsersSendAsDomain {
		f.add("is not a known choice", "/users_may_send_as")
		compiled.unknown |= partUsers
	}
	compiled.clients = compileClients(d.Clients, compiled.mark(partClients, f))
	compiled.users = compileUsers(d, compiled.mark(partUsers, f))
	compiled.routes = compileRoutes(d.Routes, compiled.mark(partRoutes, f))
	compiled.Bulk = compileBulk(d.Bulk, compiled.mark(partBulk, f))
	return compiled
}

// reject notes one fault of a part.
type reject func(rule, path string, args ...any)

// mark makes every fault of a part note that the part is not wholly known.
func (d *Domain) mark(part parts, f *faults) reject {
	return func(rule, path string, args ...any) {
		d.unknown |= part
		f.add(rule, path, args...)
	}
}

func standing(path string, status api.AdministrativeStatus, since *time.Time, relaying api.Relaying, f *faults) Standing {
	s := Standing{Active: Unknown, Since: deref(since)}
	switch status {
	case api.AdministrativeStatusActive:
		s.Active = Yes
	case api.AdministrativeStatusSuspended:
		s.Active = No
	default:
		f.add("is not a known choice", "%s/status", path)
	}
	switch relaying.State {
	case api.RelayingStateEnabled:
	case api.RelayingStateDisabled:
		s.Disabled = true
	default:
		s.Active = Unknown
		f.add("is not a known choice", "%s/relaying/state", path)
	}
	return s
}

func compileClients(list []api.ClientPolicy, bad reject) clients {
	compiled := make([]Client, 0, len(list))
	for i, c := range list {
		prefix, ok := parsePrefix(c.Address)
		if !ok {
			bad("is not an address or prefix", "/clients/%d/address", i)
			continue
		}
		state, ok := clientState(c)
		if !ok {
			bad("is not a known choice", "/clients/%d/state", i)
			continue
		}
		compiled = append(compiled, Client{ID: c.ID, Prefix: prefix, State: state})
	}
	return newClients(slices.Clip(compiled))
}

func clientState(c api.ClientPolicy) (ClientState, bool) {
	switch c.State {
	case api.ClientPolicyStateActive:
		return ClientActive, true
	case api.ClientPolicyStateDisabled:
		if c.Cause != nil && *c.Cause == api.ClientPolicyCauseComplaints {
			return ClientAbusive, true
		}
		return ClientDisabled, true
	}
	return "", false
}

// parsePrefix takes an address for the prefix that holds only it. Host bits and
// zones are faults: a reader must not guess what was meant.
func parsePrefix(s string) (netip.Prefix, bool) {
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return prefix, prefix == prefix.Masked() && !prefix.Addr().Is4In6()
	}
	address, err := netip.ParseAddr(s)
	if err != nil || address.Zone() != "" {
		return netip.Prefix{}, false
	}
	address = address.Unmap()
	return netip.PrefixFrom(address, address.BitLen()), true
}

func compileUsers(d *api.DomainPolicy, bad reject) []User {
	compiled := make([]User, 0, len(d.Users))
	for i, u := range d.Users {
		address, err := mailaddr.Parse(u.Address, mailaddr.Options{SMTPUTF8: true})
		if err != nil || !under(address.Domain, d.Name) {
			bad("is not an address of the domain", "/users/%d/address", i)
			continue
		}
		var standingFaults faults
		user := User{
			Address:  address.Key(),
			Standing: standing(fmt.Sprintf("/users/%d", i), u.Status, u.StatusSince, u.Relaying, &standingFaults),
			Verifier: u.Verifier,
			aliases:  compileAliases(u.Aliases, i, bad),
		}
		for _, fault := range standingFaults.list {
			path, rule, _ := strings.Cut(fault, ": ")
			bad(rule, "%s", path)
		}
		compiled = append(compiled, user)
	}
	slices.SortStableFunc(compiled, func(a, b User) int { return strings.Compare(a.Address, b.Address) })
	return slices.Clip(compiled)
}

func compileAliases(list []string, user int, bad reject) []string {
	var keys []string
	for i, alias := range list {
		address, err := mailaddr.Parse(alias, mailaddr.Options{SMTPUTF8: true})
		if err != nil {
			bad("is not an address", "/users/%d/aliases/%d", user, i)
			continue
		}
		keys = append(keys, address.Key())
	}
	slices.Sort(keys)
	return keys
}

func under(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}

func compileRoutes(list []api.RoutePolicy, bad reject) routes {
	compiled := make([]Route, 0, len(list))
	for i, r := range list {
		recipient := deref(r.RecipientDomain)
		if recipient != "" {
			canonical, err := mailaddr.ParseDomain(recipient)
			if err != nil {
				bad("is not a domain", "/routes/%d/recipient_domain", i)
				continue
			}
			recipient = canonical
		}
		if rule, path := faultOfRoute(r); rule != "" {
			bad(rule, "/routes/%d/%s", i, path)
			continue
		}
		compiled = append(compiled, Route{
			ID: r.ID, RecipientDomain: recipient, Host: r.Host, Port: r.Port, TLS: r.TLS,
			Username: deref(r.Username), SecretID: deref(r.SecretID), SecretVersion: deref(r.SecretVersion),
		})
	}
	return newRoutes(slices.Clip(compiled))
}

func faultOfRoute(r api.RoutePolicy) (rule, path string) {
	switch {
	case r.Host == "" || strings.ContainsAny(r.Host, " \t\r\n\x00/@"):
		return "is not a host", "host"
	case r.Port < 1 || r.Port > 65535:
		return "is not a port", "port"
	case !r.TLS.Valid():
		return "is not a known choice", "tls"
	}
	return "", ""
}

func compileBulk(b *api.BulkException, bad reject) *BulkException {
	if b == nil {
		return nil
	}
	if !b.Mode.Valid() {
		bad("is not a known choice", "/bulk/mode")
		return nil
	}
	return &BulkException{Mode: b.Mode, ExpiresAt: deref(b.ExpiresAt)}
}

func zoneOf(name *string) string {
	if name == nil || *name == "" {
		return "UTC"
	}
	return *name
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
