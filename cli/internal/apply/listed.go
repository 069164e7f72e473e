package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"activerelay/cli/internal/failure"
)

// lists holds what can only be found by listing: relay IPs and routes, by
// identity, and what a prune may delete.
type lists struct {
	relayIPs map[string]map[string]any
	routes   map[string]map[string]any
	users    map[string]map[string]any
	domains  map[string]map[string]any
}

// want is one list to read: an operation, its filter, and where it goes.
type want struct {
	request
	kind *kind
	into map[string]map[string]any
}

// lists reads, for the parents that the file has, the lists that the plan
// needs.
func (p *Planner) lists(ctx context.Context, f *File) (*lists, error) {
	l := &lists{
		relayIPs: map[string]map[string]any{}, routes: map[string]map[string]any{},
		users: map[string]map[string]any{}, domains: map[string]map[string]any{},
	}
	wants := p.wants(f, l)
	found := make([][]map[string]any, len(wants))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, w := range wants {
		group.Go(func() (err error) {
			found[i], err = p.all(ctx, w.request)
			if failure.CodeOf(err) == failure.NotFound {
				return nil // the parent is only about to be made
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, w := range wants {
		for _, object := range found[i] {
			w.into[w.kind.identity(object)] = object
		}
	}
	return l, nil
}

func (p *Planner) wants(f *File, l *lists) []want {
	var wants []want
	asked := map[string]bool{}
	add := func(kindName, op, filter, value string, into map[string]map[string]any) {
		id := op + "?" + filter + "=" + value
		if asked[id] {
			return
		}
		asked[id] = true
		w := want{request: request{op: op}, kind: kindBy(func(k *kind) bool { return k.name == kindName }), into: into}
		if value != "" {
			w.params = map[string]string{filter: value}
		}
		wants = append(wants, w)
	}
	for _, o := range f.Objects {
		switch o.kind.name {
		case "relay_ip":
			add("relay_ip", "listRelayIPs", "domain", fold(o.Values["domain"]), l.relayIPs)
		case "route":
			add("route", "listRoutes", "domain", fold(o.Values["domain"]), l.routes)
		case "domain":
			if p.Prune && f.sections["relay_ip"] {
				add("relay_ip", "listRelayIPs", "domain", fold(o.Values["name"]), l.relayIPs)
			}
			if p.Prune && f.sections["route"] {
				add("route", "listRoutes", "domain", fold(o.Values["name"]), l.routes)
			}
			if p.Prune && f.sections["user"] {
				add("user", "listUsers", "domain", fold(o.Values["name"]), l.users)
			}
		case "partner":
			if p.Prune && f.sections["domain"] {
				add("domain", "listDomains", "partner", fold(o.Values["slug"]), l.domains)
			}
		}
	}
	return wants
}

// relayIP plans a relay IP: that it exists, and its state where the file says
// one.
func (p *Planner) relayIP(o Object, l *lists) (Step, error) {
	wanted, _ := o.Values["state"].(string)
	found := live{object: l.relayIPs[o.kind.identity(o.Values)]}
	if found.object == nil {
		return Step{Action: Create, Changes: stateNote("", wanted), do: func(ctx context.Context) (string, error) {
			made, err := p.do(ctx, request{op: "requestRelayIP", body: only(o.Values, []string{"domain", "address", "comment"})})
			if err != nil {
				return "", err
			}
			return "", p.reach(ctx, made, wanted, o.Values["reason"])
		}}, nil
	}
	current := found.text("state")
	if wanted == "" || wanted == current || wanted == "requested" {
		return Step{Action: Unchanged}, nil
	}
	return Step{Action: Update, Changes: stateNote(current, wanted), do: func(ctx context.Context) (string, error) {
		return "", p.reach(ctx, found, wanted, o.Values["reason"])
	}}, nil
}

func stateNote(from, to string) string {
	switch {
	case to == "" || to == "requested":
		return ""
	case from == "":
		return "state " + to
	default:
		return fmt.Sprintf("state %s → %s", from, to)
	}
}

// reach brings a relay IP to a state, by the operations that lead there: only
// an active one can be disabled.
func (p *Planner) reach(ctx context.Context, found live, wanted string, reason any) error {
	id, current := found.text("id"), found.text("state")
	var path []request
	switch {
	case wanted == current || wanted == "" || wanted == "requested":
	case wanted == "active" && current == "disabled":
		path = []request{{op: "enableRelayIP", body: reasonBody(reason)}}
	case wanted == "active":
		path = []request{{op: "activateRelayIP"}}
	case current == "active":
		path = []request{{op: "disableRelayIP", body: reasonBody(reason)}}
	default:
		path = []request{{op: "activateRelayIP"}, {op: "disableRelayIP", body: reasonBody(reason)}}
	}
	for _, r := range path {
		r.args = []string{id}
		if _, err := p.do(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// route plans a route.
func (p *Planner) route(o Object, l *lists) (Step, error) {
	create, err := p.op(o.kind.create)
	if err != nil {
		return Step{}, err
	}
	update, err := p.op(o.kind.update)
	if err != nil {
		return Step{}, err
	}
	values, err := p.withPassword(o.Values)
	if err != nil {
		return Step{}, err
	}
	found := live{object: l.routes[o.kind.identity(values)]}
	if found.object == nil {
		return Step{Action: Create, Changes: "host " + brief(values["host"]), do: func(ctx context.Context) (string, error) {
			_, err := p.do(ctx, request{op: create.ID, body: only(values, writable(create))})
			return "", err
		}}, nil
	}
	password, named := values["password"]
	has, _ := found.object["has_password"].(bool)
	compared := only(values, writable(update))
	for name, value := range values {
		if value == nil && name != "password" {
			compared[name] = nil
		}
	}
	delete(compared, "password")
	c := diff(compared, found.object, writable(update))
	_, moves := c.body["host"] // another host is not given the password that the route has
	if named && (password == nil) == has || (p.SetPasswords || moves) && password != nil {
		c.body["password"] = password
		c.notes = append(c.notes, "password")
	}
	if len(c.body) == 0 {
		return Step{Action: Unchanged}, nil
	}
	return Step{Action: Update, Changes: strings.Join(c.notes, ", "), do: func(ctx context.Context) (string, error) {
		_, err := p.do(ctx, request{op: update.ID, args: []string{found.text("id")}, body: c.body})
		return "", err
	}}, nil
}

// prune plans to delete what the lists have and the file has not, children
// before parents. What a deleted domain takes with it needs no step.
func (p *Planner) prune(f *File, l *lists) []Step {
	kept := map[string]bool{}
	for _, o := range f.Objects {
		kept[o.kind.name+" "+o.kind.identity(o.Values)] = true
	}
	var steps []Step
	for _, doomed := range []struct {
		kind, op, key string
		objects       map[string]map[string]any
	}{
		{"user", "deleteUser", "address", l.users},
		{"route", "deleteRoute", "id", l.routes},
		{"relay_ip", "deleteRelayIP", "id", l.relayIPs},
		{"domain", "deleteDomain", "name", l.domains},
	} {
		k := kindBy(func(k *kind) bool { return k.name == doomed.kind })
		for _, identity := range sorted(doomed.objects) {
			object := live{object: doomed.objects[identity]}
			if kept[doomed.kind+" "+identity] || !f.sections[doomed.kind] || !p.within(f, doomed.kind, object) {
				continue
			}
			r := request{op: doomed.op, args: []string{object.text(doomed.key)}}
			steps = append(steps, Step{
				Action: Delete, Kind: doomed.kind, Name: k.describe(object.object),
				do: func(ctx context.Context) (string, error) { _, err := p.do(ctx, r); return "", err },
			})
		}
	}
	return steps
}

// within: the file has the parent of the object, so its silence about the
// object means something.
func (p *Planner) within(f *File, kindName string, object live) bool {
	parent, name := "domain", fold(object.text("domain"))
	if kindName == "domain" {
		parent, name = "partner", fold(object.text("partner"))
	}
	for _, o := range f.Objects {
		if o.kind.name == parent && o.kind.identity(o.Values) == name {
			return true
		}
	}
	return false
}

func sorted(objects map[string]map[string]any) []string {
	return slices.Sorted(maps.Keys(objects))
}
