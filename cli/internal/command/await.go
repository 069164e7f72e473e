package command

import (
	"context"
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
// prints how it stands then.
func (a *app) await(ctx context.Context, s *session, call invoke.Call, wait time.Duration) error {
	answer, err := s.client.Do(ctx, call)
	if err != nil {
		return err
	}
	over := time.After(wait)
	id := field(answer.Value, "id")
	asked := invoke.Call{Op: a.operationNamed(call.Op.Await), Arguments: []string{id}}
	for pause := firstAwait; field(answer.Value, call.Op.Until) == ""; pause = min(2*pause, lastAwait) {
		a.line.say("%s: waiting for the end", call.Op.Summary)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			a.line.clear()
			return a.pending(s, call, answer, fmt.Sprintf("not finished after %s", wait), id)
		case <-time.After(pause):
		}
		next, err := s.client.Do(ctx, asked)
		switch {
		case err == nil:
			answer = next
		case slices.Contains([]failure.Code{failure.Unavailable, failure.Limit}, failure.CodeOf(err)) && ctx.Err() == nil:
			a.line.clear()
			return a.pending(s, call, answer, err.Error(), id)
		default:
			return err
		}
	}
	a.line.clear()
	return s.printer.Print(answer.Value, output.Shape{Rows: call.Op.Rows, Columns: call.Op.Columns})
}

// pending shows how it stands, and says that it goes on.
func (a *app) pending(s *session, call invoke.Call, answer *invoke.Answer, why, id string) error {
	if err := s.printer.Print(answer.Value, output.Shape{Rows: call.Op.Rows, Columns: call.Op.Columns}); err != nil {
		return err
	}
	return &failure.Error{
		Code: failure.Pending, Title: "Not finished", Detail: why + "; it goes on",
		Next: strings.Join([]string{Program, a.operationNamed(call.Op.Await).Command(), id}, " "),
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
