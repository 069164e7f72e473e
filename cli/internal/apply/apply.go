// Package apply makes partners, domains, relay IPs, routes and users be as a
// file says.
//
// Read reads the file, Planner.Plan compares each object of it with what the
// server has, and Plan.Execute makes the difference, in the order in which
// objects depend on each other. Only the properties that the file names are
// compared and changed; null clears one. Applying a file twice therefore plans
// nothing the second time. Nothing is deleted unless the plan is made with
// Prune, and then only what the file could have named: objects of a section
// that the file has, under parents that the file has.
//
// An object that was changed between plan and execution is left alone (its
// ETag no longer matches), and what cannot be done is reported in its place
// while the rest goes on.
package apply

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
)

// Action says what a step does.
type Action string

// The actions.
const (
	Create    Action = "create"
	Update    Action = "update"
	Unchanged Action = "unchanged"
	Delete    Action = "delete"
)

// Step is one object of the plan.
type Step struct {
	Action Action
	Kind   string
	Name   string
	// Changes says what will be different, on one line.
	Changes string
	// Source is the file and line of the object; empty for what is pruned.
	Source string
	// do makes the change and returns a password that the server made.
	do func(ctx context.Context) (password string, err error)
}

// Plan is what there is to do, in order.
type Plan struct {
	Steps   []Step
	planner *Planner
}

// Pending counts the steps that change something, and those that delete.
func (p *Plan) Pending() (changes, deletions int) {
	for _, s := range p.Steps {
		switch s.Action {
		case Unchanged:
		case Delete:
			deletions++
			changes++
		default:
			changes++
		}
	}
	return changes, deletions
}

// Result is what became of a step.
type Result struct {
	Step
	// Password is the one that the server made for a new user. It is shown
	// nowhere else and never again.
	Password string
	// Changed says that the server was changed, if only by the first of
	// several calls.
	Changed bool
	Err     error
}

// Execute takes all steps. A step that fails does not stop the others, except
// that nothing is begun once ctx has ended.
// After each of them progress is told.
func (p *Plan) Execute(ctx context.Context, progress func(done, total int)) []Result {
	results := make([]Result, 0, len(p.Steps))
	for _, s := range p.Steps {
		r := Result{Step: s}
		switch {
		case s.do == nil:
		case ctx.Err() != nil:
			r.Err = ctx.Err()
		default:
			before := p.planner.changes
			r.Password, r.Err = s.do(ctx)
			r.Changed = p.planner.changes > before
		}
		results = append(results, r)
		progress(len(results), len(p.Steps))
	}
	return results
}

// Planner compares a file with the server.
type Planner struct {
	Client *invoke.Client
	Table  []ops.Op
	// Prune plans the deletion of what the file does not name.
	Prune bool
	// SetPasswords plans to set passwords of objects that have one already:
	// they cannot be compared.
	SetPasswords bool
	// ReadFile reads a password file named in the file.
	ReadFile func(name string) ([]byte, error)
	// Progress is told, from several goroutines, how many objects of how many
	// are compared; nil is silent.
	Progress func(done, total int)
	// changes counts the calls that changed something. Steps are taken one
	// after another; planning only reads.
	changes int
}

// op returns the row of an operation.
func (p *Planner) op(id string) (*ops.Op, error) {
	for i := range p.Table {
		if p.Table[i].ID == id {
			return &p.Table[i], nil
		}
	}
	return nil, fmt.Errorf("the contract has no operation %s", id)
}

// request is one call by operation id.
type request struct {
	op     string
	args   []string
	params map[string]string
	body   map[string]any
}

func (p *Planner) call(r request) (invoke.Call, error) {
	op, err := p.op(r.op)
	if err != nil {
		return invoke.Call{}, err
	}
	call := invoke.Call{Op: op, Arguments: r.args, Params: map[string][]string{}}
	for name, text := range r.params {
		if text != "" {
			call.Params[name] = []string{text}
		}
	}
	if op.Body != nil && r.body != nil {
		call.Body, err = invoke.JSONBody(op.Body, r.body, nil)
	}
	return call, err
}

// do makes one call and returns the object that it answers.
func (p *Planner) do(ctx context.Context, r request) (live, error) {
	call, err := p.call(r)
	if err != nil {
		return live{}, err
	}
	answer, err := p.Client.Do(ctx, call)
	if err != nil {
		return live{}, flagless(err)
	}
	if call.Op.Method != http.MethodGet {
		p.changes++
	}
	object, _ := answer.Value.(map[string]any)
	return live{object: object, etag: answer.Header.Get("ETag")}, nil
}

// flagless forgets the flags that would set the refused values: a file has
// none.
func flagless(err error) error {
	var known *failure.Error
	if errors.As(err, &known) {
		for i := range known.Fields {
			known.Fields[i].Flag = ""
		}
	}
	return err
}

// find is do for an object that need not exist.
func (p *Planner) find(ctx context.Context, r request) (live, error) {
	found, err := p.do(ctx, r)
	var known *failure.Error
	if errors.As(err, &known) && known.Code == failure.NotFound {
		return live{}, nil
	}
	return found, err
}

// all follows a list to its end.
func (p *Planner) all(ctx context.Context, r request) ([]map[string]any, error) {
	call, err := p.call(r)
	if err != nil {
		return nil, err
	}
	var objects []map[string]any
	for answer, err := range p.Client.Pages(ctx, call, 0) {
		if err != nil {
			return nil, err
		}
		for _, row := range invoke.Rows(answer.Value, call.Op.Rows) {
			if object, ok := row.(map[string]any); ok {
				objects = append(objects, object)
			}
		}
	}
	return objects, nil
}

// live is an object as the server has it; a nil object is one that it has not.
type live struct {
	object map[string]any
	etag   string
}

func (l live) text(name string) string {
	text, _ := l.object[name].(string)
	return text
}
