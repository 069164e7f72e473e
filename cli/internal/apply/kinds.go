package apply

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"activerelay/cli/internal/ops"
)

// kind is one kind of object that a file may name.
type kind struct {
	name    string
	section string
	// key are the properties that must be given; identity makes one string of
	// those that tell two objects apart, describe one for people.
	key      []string
	identity func(values map[string]any) string
	describe func(values map[string]any) string
	// create and update are operations; their bodies say which properties the
	// kind has. extra are properties that other operations set.
	create, update string
	extra          []string
}

// kinds are in the order in which they depend on each other.
func kinds() []*kind {
	return []*kind{
		{
			name: "partner", section: "partners", key: []string{"slug"}, identity: one("slug"), describe: one("slug"),
			create: "putPartner", update: "updatePartner", extra: []string{"slug", "status", "status_reason"},
		},
		{
			name: "domain", section: "domains", key: []string{"name"}, identity: one("name"), describe: one("name"),
			create: "putDomain", update: "updateDomain", extra: []string{"name", "status", "status_reason"},
		},
		{
			name: "relay_ip", section: "relay_ips", key: []string{"domain", "address"}, identity: relayIPIdentity,
			describe: func(v map[string]any) string { return fmt.Sprintf("%v for %v", v["address"], v["domain"]) },
			create:   "requestRelayIP", extra: []string{"state", "reason"},
		},
		{
			name: "route", section: "routes", key: []string{"host"}, identity: routeIdentity, describe: routeName,
			create: "createRoute", update: "updateRoute", extra: []string{"password_file"},
		},
		{
			name: "user", section: "users", key: []string{"address"}, identity: one("address"), describe: one("address"),
			create: "createUser", update: "updateUser", extra: []string{"password_file", "status", "status_reason"},
		},
	}
}

func one(name string) func(map[string]any) string {
	return func(values map[string]any) string { return fold(values[name]) }
}

// fold makes names comparable: DNS names and the addresses made of them are
// the same in either case.
func fold(value any) string {
	text, _ := value.(string)
	return strings.TrimSuffix(strings.ToLower(text), ".")
}

func relayIPIdentity(values map[string]any) string {
	return fold(values["domain"]) + " " + prefix(fold(values["address"]))
}

// prefix writes an address as the prefix that it is, so that 192.0.2.10 and
// 192.0.2.10/32 are one.
func prefix(text string) string {
	if address, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()).String()
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked().String()
	}
	return text
}

// routeIdentity: a sender domain and a recipient domain, each possibly any,
// have one route.
func routeIdentity(values map[string]any) string {
	return fold(values["domain"]) + ">" + fold(values["recipient_domain"])
}

func routeName(values map[string]any) string {
	from, to := fold(values["domain"]), fold(values["recipient_domain"])
	switch {
	case from == "" && to == "":
		return "the whole platform"
	case from == "":
		return "any domain to " + to
	case to == "":
		return from
	default:
		return from + " to " + to
	}
}

// properties are the keys that an object of this kind may have.
func (k *kind) properties(table []ops.Op) []string {
	names := slices.Clone(k.extra)
	for _, op := range table {
		if op.ID != k.create && op.ID != k.update || op.Body == nil {
			continue
		}
		for _, p := range op.Body.Properties {
			names = append(names, p.Path[0])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// writable are the properties that an operation's body has.
func writable(op *ops.Op) []string {
	var names []string
	for _, p := range op.Body.Properties {
		names = append(names, p.Path[0])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func kindBy(is func(*kind) bool) *kind {
	for _, k := range kinds() {
		if is(k) {
			return k
		}
	}
	return nil
}

func kindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

func sectionNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.section)
	}
	return names
}
