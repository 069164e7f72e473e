package httpapi

import (
	"context"
	"net/netip"
	"strings"

	"github.com/oapi-codegen/nullable"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// Ports of a route that names none.
const (
	portSMTP        = 25
	portImplicitTLS = 465 // RFC 8314 3.3
)

// ListRoutes lists the routes that the token may see, oldest first.
func (a *API) ListRoutes(ctx context.Context, r rest.ListRoutesRequestObject) (rest.ListRoutesResponseObject, error) {
	p := r.Params
	cursor, err := a.page(ctx, p.PageSize, p.PageToken, p.Partner, p.Domain)
	if err != nil {
		return nil, err
	}
	filter := store.RouteFilter{Partner: text(p.Partner)}
	if filter.Domain, err = domainFilter(p.Domain); err != nil {
		return nil, err
	}
	var rows []store.Route
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		rows, err = tx.Routes(filter, cursor.after, cursor.limit())
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, next := cut(cursor, rows, func(row store.Route) string { return row.ID })
	return rest.ListRoutes200JSONResponse{Items: convert(rows, routeToAPI), NextPageToken: next}, nil
}

// GetRoute shows one route, never its password.
func (a *API) GetRoute(ctx context.Context, r rest.GetRouteRequestObject) (rest.GetRouteResponseObject, error) {
	var row store.Route
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.Route(r.RouteID)
		return err
	})
	if err != nil {
		return nil, notFound(err, "route")
	}
	return rest.GetRoute200JSONResponse{RouteResponseJSONResponse: routeResponse(row)}, nil
}

// CreateRoute makes mail go to a smarthost instead of the MX.
func (a *API) CreateRoute(ctx context.Context, r rest.CreateRouteRequestObject) (rest.CreateRouteResponseObject, error) {
	row, err := newRoute(*r.Body)
	if err != nil {
		return nil, err
	}
	if row.Domain == "" && PrincipalFrom(ctx).Role != api.RoleOperator {
		return nil, problem.Forbidden("Only the operator may create a route that names no domain")
	}
	return idempotent(ctx, a, attempt[rest.CreateRouteResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.CreateRouteResponseObject.VisitCreateRouteResponse,
	}, func(tx *store.Tx) (rest.CreateRouteResponseObject, error) {
		made := row // the transaction may run again
		if made.Domain != "" {
			// Locked, so that it is not deleted meanwhile: the route would be that of whoever registers the name next.
			domain, err := tx.LockDomain(made.Domain)
			if err != nil {
				return nil, notFound(err, "domain")
			}
			made.Partner = &domain.Partner
		}
		made.ID = newID("rte_", tx.Now)
		secrets, err := a.setRoutePassword(&made, text(r.Body.Password))
		if err != nil {
			return nil, err
		}
		if err := a.saveRoute(ctx, tx, &made, nil, secrets); err != nil {
			return nil, err
		}
		return rest.CreateRoute201JSONResponse{RouteResponseJSONResponse: routeResponse(made)}, nil
	})
}

// newRoute is the route that a body describes, with the defaults that the contract states.
func newRoute(body api.RouteCreate) (store.Route, error) {
	row := store.Route{TLS: string(api.TLSRuleOpportunistic), Username: text(body.Username)}
	var err error
	if body.Domain != nil {
		if row.Domain, err = domainName("/domain", *body.Domain); err != nil {
			return row, err
		}
	}
	if body.RecipientDomain != nil {
		if row.RecipientDomain, err = domainName("/recipient_domain", *body.RecipientDomain); err != nil {
			return row, err
		}
	}
	if row.Host, err = hostName("/host", body.Host); err != nil {
		return row, err
	}
	// A password is not sent over a line that anybody may read, unless that was asked for.
	if row.Username != "" {
		row.TLS = string(api.TLSRuleRequired)
	}
	if body.TLS != nil {
		row.TLS = string(*body.TLS)
	}
	row.Port = portSMTP
	if row.TLS == string(api.TLSRuleImplicit) {
		row.Port = portImplicitTLS
	}
	if body.Port != nil {
		row.Port = *body.Port
	}
	return row, checkLogin(row.Username, body.Password != nil)
}

// hostName returns the canonical form of a smarthost: an address, a DNS name, or one label of the local network.
func hostName(pointer, host string) (string, error) {
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), nil
	}
	// A single label has the grammar of any other.
	single := !strings.Contains(strings.TrimSuffix(host, "."), ".")
	if single {
		host = strings.TrimSuffix(host, ".") + ".local"
	}
	name, err := mailaddr.ParseDomain(host)
	if err != nil {
		return "", invalid(pointer, "host", "is neither an IP address nor a host name")
	}
	if single {
		name = strings.TrimSuffix(name, ".local")
	}
	return name, nil
}

func checkLogin(username string, hasPassword bool) error {
	switch {
	case username == "" && hasPassword:
		return invalid("/username", "required", "is needed beside a password")
	case username != "" && !hasPassword:
		return invalid("/password", "required", "is needed beside a user name")
	}
	return nil
}

// setRoutePassword seals a password into a route; an empty one takes it away. It returns what the audit masks.
func (a *API) setRoutePassword(row *store.Route, password string) (secrets []string, err error) {
	if password == "" {
		row.PasswordSealed = nil
		return nil, nil
	}
	row.SecretVersion++
	row.PasswordSealed, err = seal(a.subkey("route password"), []byte(password), []byte(row.ID))
	return []string{"password"}, err
}

// routePassword opens the password of a route.
func (a *API) routePassword(row store.Route) ([]byte, error) {
	return open(a.subkey("route password"), row.PasswordSealed, []byte(row.ID))
}

// saveRoute inserts or updates a route, audits it and publishes the document that holds it. before is nil for a new one.
func (a *API) saveRoute(ctx context.Context, tx *store.Tx, row *store.Route, before any, secrets []string) error {
	save := tx.UpdateRoute
	if before == nil {
		save = tx.InsertRoute
	}
	if err := save(row); store.IsConflict(err, "routes_domain_recipient_domain_key") {
		return problem.Conflict("There is a route for this domain and recipient domain already; change that one")
	} else if err != nil {
		return err
	}
	tx.Publish(routeDocument(*row))
	return a.audit(ctx, tx, change{
		object: "route/" + row.ID, partner: text(row.Partner), before: before, after: routeToAPI(*row), secrets: secrets,
	})
}

func routeDocument(row store.Route) string {
	if row.Domain == "" {
		return store.PlatformKey
	}
	return store.DomainKey(row.Domain)
}

// UpdateRoute changes the properties that the merge patch names.
func (a *API) UpdateRoute(ctx context.Context, r rest.UpdateRouteRequestObject) (rest.UpdateRouteResponseObject, error) {
	var host string
	if r.Body.Host != nil {
		var err error
		if host, err = hostName("/host", *r.Body.Host); err != nil {
			return nil, err
		}
	}
	var row store.Route
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.LockRoute(r.RouteID); err != nil {
			return notFound(err, "route")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		before := routeToAPI(row)
		if host != "" {
			if err := mayTakePassword(row, host, *r.Body); err != nil {
				return err
			}
			row.Host = host
		}
		secrets, err := a.patchRoute(&row, *r.Body)
		if err != nil {
			return err
		}
		return a.saveRoute(ctx, tx, &row, before, secrets)
	})
	if err != nil {
		return nil, err
	}
	return rest.UpdateRoute200JSONResponse{RouteResponseJSONResponse: routeResponse(row)}, nil
}

// mayTakePassword refuses to hand the password of a route to another host: nobody can read it here, and whoever may change
// the route could have it sent to a host of their own.
func mayTakePassword(row store.Route, host string, patch api.RoutePatch) error {
	if _, named := nullableText(patch.Password); named || row.PasswordSealed == nil || host == row.Host {
		return nil
	}
	return invalid("/password", "required", "is needed again when the host changes")
}

func (a *API) patchRoute(row *store.Route, patch api.RoutePatch) (secrets []string, err error) {
	if patch.Port != nil {
		row.Port = *patch.Port
	}
	if patch.TLS != nil {
		row.TLS = string(*patch.TLS)
	}
	if username, named := nullableText(patch.Username); named {
		row.Username = username
	}
	if secrets, err = a.patchRoutePassword(row, patch.Password); err != nil {
		return nil, err
	}
	return secrets, checkLogin(row.Username, row.PasswordSealed != nil)
}

func (a *API) patchRoutePassword(row *store.Route, password nullable.Nullable[string]) ([]string, error) {
	given, named := nullableText(password)
	if !named {
		return nil, nil
	}
	return a.setRoutePassword(row, given)
}

// DeleteRoute deletes a route.
func (a *API) DeleteRoute(ctx context.Context, r rest.DeleteRouteRequestObject) (rest.DeleteRouteResponseObject, error) {
	err := a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		row, err := tx.LockRoute(r.RouteID)
		if err != nil {
			return notFound(err, "route")
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		if err := tx.DeleteRoute(row.ID); err != nil {
			return err
		}
		tx.Publish(routeDocument(row))
		return a.audit(ctx, tx, change{object: "route/" + row.ID, partner: text(row.Partner), before: routeToAPI(row)})
	})
	if err != nil {
		return nil, err
	}
	return rest.DeleteRoute204Response{}, nil
}

func routeResponse(row store.Route) rest.RouteResponseJSONResponse {
	return rest.RouteResponseJSONResponse{
		Body: routeToAPI(row), Headers: rest.RouteResponseResponseHeaders{ETag: etag(row.Version)},
	}
}

func routeToAPI(row store.Route) api.Route {
	hasPassword := row.PasswordSealed != nil
	return api.Route{
		ID: row.ID, Partner: row.Partner, Domain: optional(row.Domain), RecipientDomain: optional(row.RecipientDomain),
		Host: row.Host, Port: row.Port, TLS: api.TLSRule(row.TLS), Username: optional(row.Username),
		HasPassword: &hasPassword, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
}
