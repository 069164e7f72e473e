package command

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
	"activerelay/cli/internal/output"
)

// The first wait before it is asked what became of something, and the longest:
// the wait doubles.
const (
	firstAwait = 50 * time.Millisecond
	lastAwait  = 2 * time.Second
)

// await begins something, waits until it is finished or wait is over, and
// prints how it stands then. What was begun goes on, whatever becomes of asking
// after it: a failure to ask is not one of the command.
func (a *app) await(ctx context.Context, s *session, call invoke.Call, wait time.Duration) error {
	begun, err := s.client.Do(ctx, call)
	if err != nil {
		return err
	}
	id, show := field(begun.Value, "id"), a.operationNamed(call.Op.Await)
	seen, stopped := a.follow(ctx, s, call.Op, begun.Value, invoke.Call{Op: show, Arguments: []string{id}}, wait)
	a.line.clear()
	if err := s.printer.Print(seen, output.Shape{Rows: call.Op.Rows, Columns: call.Op.Columns}); err != nil {
		return err
	}
	unable := edgesUnable(call.Op, seen)
	if stopped == nil {
		return unable
	}
	unfinished := &failure.Error{
		Code: failure.Pending, Title: "Not finished", Detail: stopped.Error() + "; it goes on",
		Next: strings.Join([]string{Program, show.Command(), id}, " "),
	}
	if ctx.Err() != nil {
		unfinished.Code, unfinished.Title, unfinished.Detail = failure.Interrupted, "Interrupted", "not finished; it goes on"
	}
	if unable != nil {
		unfinished.Detail += ", but " + unable.Error()
	}
	return unfinished
}

// follow asks what became of an operation until it is finished, and returns the
// last answer, with why that is not the end. It asks a last time when wait is over.
func (a *app) follow(ctx context.Context, s *session, op *ops.Op, seen any, ask invoke.Call, wait time.Duration) (any, error) {
	over := time.Now().Add(wait)
	for pause, last := firstAwait, false; field(seen, op.Until) == ""; pause = min(2*pause, lastAwait) {
		if last {
			return seen, fmt.Errorf("not finished after %s", wait)
		}
		a.line.say("%s: waiting for the end", op.Summary)
		left := time.Until(over)
		last = left <= pause
		select {
		case <-ctx.Done():
			return seen, ctx.Err()
		case <-time.After(min(pause, left)):
		}
		answer, err := s.client.Do(ctx, ask)
		if err != nil {
			return seen, err
		}
		seen = answer.Value
	}
	return seen, nil
}

// edgesUnable is the error of an operation that some edges could not carry out,
// so that what waits there is as it was; nil where there is none.
func edgesUnable(op *ops.Op, value any) error {
	object, _ := value.(map[string]any)
	edges, counted := object["edges_unable"].(json.Number)
	if !counted || edges == "0" {
		return nil
	}
	return &failure.Error{
		Code: failure.Failed, Title: fmt.Sprintf("%s of %v edges could not", edges, object["edges"]),
		Detail: fmt.Sprintf("relayd there does not understand this and changed nothing; upgrade it there, then say %s %s again",
			Program, op.Command()),
		Next: Program + " edge list",
	}
}

func (a *app) operationNamed(id string) *ops.Op {
	return &a.Table[slices.IndexFunc(a.Table, func(op ops.Op) bool { return op.ID == id })]
}

// field is a property of an object that is a text, empty where there is none.
func field(value any, name string) string {
	object, _ := value.(map[string]any)
	text, _ := object[name].(string)
	return text
}
