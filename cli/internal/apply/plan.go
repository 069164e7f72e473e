package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"activerelay/cli/internal/failure"
)

// readers is how many objects are read from the server at a time.
const readers = 8

// Plan compares the file with the server.
func (p *Planner) Plan(ctx context.Context, f *File) (*Plan, error) {
	lists, err := p.lists(ctx, f)
	if err != nil {
		return nil, err
	}
	steps := make([]Step, len(f.Objects))
	var compared atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, o := range f.Objects {
		group.Go(func() error {
			step, err := p.step(ctx, o, lists)
			if err != nil {
				return fault(f, o, err)
			}
			step.Kind, step.Name, step.Source = o.kind.name, o.kind.describe(o.Values), f.source(o)
			steps[i] = step
			if done := compared.Add(1); p.Progress != nil {
				p.Progress(int(done), len(steps))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	order := kindNames()
	slices.SortStableFunc(steps, func(a, b Step) int { return slices.Index(order, a.Kind) - slices.Index(order, b.Kind) })
	if p.Prune {
		steps = append(steps, p.prune(f, lists)...)
	}
	return &Plan{Steps: steps, planner: p}, nil
}

// fault says which object of the file an error is about.
func fault(f *File, o Object, err error) error {
	if known, ok := err.(*failure.Error); ok {
		located := *known
		located.Detail = strings.TrimPrefix(fmt.Sprintf("%s (%s)", known.Detail, f.source(o)), " ")
		return &located
	}
	return fmt.Errorf("%s: %w", f.source(o), err)
}

// step plans one object.
func (p *Planner) step(ctx context.Context, o Object, lists *lists) (Step, error) {
	switch o.kind.name {
	case "partner":
		return p.keyed(ctx, o, request{op: "getPartner", args: []string{one("slug")(o.Values)}})
	case "domain":
		return p.keyed(ctx, o, request{op: "getDomain", args: []string{one("name")(o.Values)}})
	case "user":
		return p.keyed(ctx, o, request{op: "getUser", args: []string{o.Values["address"].(string)}})
	case "relay_ip":
		return p.relayIP(o, lists)
	default:
		return p.route(o, lists)
	}
}

// keyed plans an object that has a name of its own to be read and written by.
func (p *Planner) keyed(ctx context.Context, o Object, get request) (Step, error) {
	found, err := p.find(ctx, get)
	if err != nil {
		return Step{}, err
	}
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
	key := get.args[0]
	if found.object == nil {
		made := request{op: create.ID, body: only(values, writable(create))}
		if create.Method == "PUT" {
			made.args = []string{key}
		}
		return p.creation(o, key, made), nil
	}
	if partner, named := values["partner"].(string); named && partner != found.text("partner") {
		return Step{}, &failure.Error{
			Code: failure.Conflict, Title: "Owner differs",
			Detail: fmt.Sprintf("%s belongs to %s, not %s; apply does not move it", key, found.text("partner"), partner),
		}
	}
	c := diff(values, found.object, writable(update))
	move, note := transition(o, found.object)
	c.notes = append(c.notes, note...)
	setPassword := p.SetPasswords && values["password"] != nil && o.kind.name == "user"
	if setPassword {
		c.notes = append(c.notes, "password set")
	}
	if len(c.notes) == 0 {
		return Step{Action: Unchanged}, nil
	}
	return Step{Action: Update, Changes: strings.Join(c.notes, ", "), do: func(ctx context.Context) (string, error) {
		if len(c.body) > 0 {
			patch := request{op: update.ID, args: []string{key}, params: map[string]string{"If-Match": found.etag}, body: c.body}
			if _, err := p.do(ctx, patch); err != nil {
				return "", err
			}
		}
		if setPassword {
			set := request{op: "rotateUserPassword", args: []string{key}, body: map[string]any{"password": values["password"]}}
			if _, err := p.do(ctx, set); err != nil {
				return "", err
			}
		}
		return "", p.transit(ctx, move, key)
	}}, nil
}

// creation plans a new object, and its suspension where the file wants that.
func (p *Planner) creation(o Object, key string, made request) Step {
	move, note := transition(o, map[string]any{"status": "active"})
	return Step{Action: Create, Changes: strings.Join(note, ", "), do: func(ctx context.Context) (string, error) {
		found, err := p.do(ctx, made)
		if err != nil {
			return "", err
		}
		return found.text("password"), p.transit(ctx, move, key)
	}}
}

// transition finds the operation that brings the status to what the file says;
// its args are the caller's to set.
func transition(o Object, has map[string]any) (*request, []string) {
	wanted, _ := o.Values["status"].(string)
	current, _ := has["status"].(string)
	if wanted == "" || wanted == current {
		return nil, nil
	}
	note := []string{fmt.Sprintf("status %s → %s", current, wanted)}
	noun := strings.ToUpper(o.kind.name[:1]) + o.kind.name[1:]
	if wanted == "active" {
		return &request{op: "resume" + noun}, note
	}
	return &request{op: "suspend" + noun, body: reasonBody(o.Values["status_reason"])}, note
}

func (p *Planner) transit(ctx context.Context, move *request, key string) error {
	if move == nil {
		return nil
	}
	to := *move
	to.args = []string{key}
	_, err := p.do(ctx, to)
	return err
}

// reasonBody is the reason that the file gives, or that it was this command.
func reasonBody(reason any) map[string]any {
	text, _ := reason.(string)
	if text == "" {
		text = "relayctl apply"
	}
	return map[string]any{"reason": text}
}

// withPassword puts the content of password_file in its place.
func (p *Planner) withPassword(values map[string]any) (map[string]any, error) {
	name, named := values["password_file"].(string)
	if !named {
		return values, nil
	}
	text, err := p.ReadFile(name)
	if err != nil {
		return nil, failure.Usagef("password_file: %v", err)
	}
	filled := map[string]any{"password": strings.TrimRight(string(text), "\r\n")}
	for key, value := range values {
		if key != "password_file" {
			filled[key] = value
		}
	}
	return filled, nil
}
