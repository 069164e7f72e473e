package policy

import (
	"cmp"
	"slices"

	"activerelay/api"
)

// Route is a smarthost that takes the place of MX delivery.
type Route struct {
	ID string
	// RecipientDomain is "" for a route that serves every recipient.
	RecipientDomain string
	Host            string
	Port            int
	TLS             api.TLSRule
	// Username is "" where the smarthost wants no authentication.
	Username      string
	SecretID      string
	SecretVersion int64
}

// routes keep routes for one recipient domain before the one for all.
type routes struct {
	list []Route
	all  *Route
}

func newRoutes(list []Route) routes {
	var r routes
	for _, route := range list {
		if route.RecipientDomain == "" {
			r.all = &route
			continue
		}
		r.list = append(r.list, route)
	}
	slices.SortStableFunc(r.list, func(a, b Route) int { return cmp.Compare(a.RecipientDomain, b.RecipientDomain) })
	return r
}

func (r routes) find(recipientDomain string) *Route {
	i, ok := slices.BinarySearchFunc(r.list, recipientDomain, func(route Route, name string) int {
		return cmp.Compare(route.RecipientDomain, name)
	})
	if ok {
		return &r.list[i]
	}
	return r.all
}

// Route finds the way from a sender domain to a recipient domain: the sender
// domain's own route for it, its route for all, the platform's for the recipient
// domain, the platform's for all. No means delivery by MX; Unknown means that a
// route may exist that did not compile, so nothing must be sent past it.
//
// sender may be nil for mail that the relay itself sends.
func (t *Table) Route(sender *Domain, recipientDomain string) (Route, Answer) {
	if sender != nil {
		if sender.unknown&(partRoutes|partWhole) != 0 {
			return Route{}, Unknown
		}
		if route := sender.routes.find(recipientDomain); route != nil {
			return *route, Yes
		}
	}
	if t.platform.unknown&partRoutes != 0 {
		return Route{}, Unknown
	}
	if route := t.platform.routes.find(recipientDomain); route != nil {
		return *route, Yes
	}
	return Route{}, No
}
