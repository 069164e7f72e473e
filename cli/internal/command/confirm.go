package command

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// confirm asks before a destructive operation. Where nobody can be asked it
// takes --yes for the answer and nothing else.
func (a *app) confirm(ctx context.Context, op *ops.Op, args []string) error {
	if op.Confirm == "" {
		return nil
	}
	return a.ask(ctx, filled(op.Confirm, op, args))
}

func (a *app) ask(ctx context.Context, question string) error {
	if a.flags.yes {
		return nil
	}
	question = failure.Printable(question)
	if !a.StdinTTY {
		return failure.Usagef("%s Nobody can be asked here; say --yes to go ahead", question)
	}
	fmt.Fprintf(a.Stderr, "%s [y/N] ", question)
	line, err := await(ctx, func() (string, error) { return bufio.NewReader(a.Stdin).ReadString('\n') })
	if ctx.Err() != nil {
		fmt.Fprintln(a.Stderr)
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) { // the end of input is no
	case "y", "yes":
		return nil
	}
	return &failure.Error{Code: failure.Failed, Title: "Not done"}
}

// await lets an interrupt end a read that nothing else would: the read is
// abandoned and ends with the process.
func await[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	case r := <-done:
		return r.value, r.err
	}
}
