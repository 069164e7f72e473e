// Package cli is relayctl as a library: Main runs one command line and returns
// the exit code.
//
// The commands come from the contract: opsgen writes a table of its operations
// (internal/ops), internal/command makes a command of each row, internal/invoke
// makes the calls, internal/output prints the answers, internal/profile knows
// servers and tokens, and internal/apply makes the platform be as a file says.
// Standard output is the answer and nothing else; everything said about it goes
// to standard error.
package cli

// The reference in the README is made from the table, so the table comes first.
//go:generate go generate ./internal/ops
//go:generate go test . -run TestTheReadmeHoldsTheReference -update

import (
	"cmp"
	"context"
	"errors"

	"activerelay/cli/internal/command"
	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// Program is relayctl as it was built.
type Program struct {
	// Version is the version of the build; empty is what the toolchain noted.
	Version string
}

// Main runs the command line as a program without a version of its own.
func Main(ctx context.Context, args []string, env Env) int { return Program{}.Main(ctx, args, env) }

// Main runs the command line (without the program's name) and returns the exit
// code. It stops early when ctx ends.
func (p Program) Main(ctx context.Context, args []string, env Env) int {
	root := command.Root(command.Config{
		Stdin: env.Stdin, Stdout: env.Stdout, Stderr: env.Stderr,
		StdinTTY: env.StdinTTY, StdoutTTY: env.StdoutTTY, StderrTTY: env.StderrTTY,
		Getenv: env.Getenv, ReadSecret: env.ReadSecret, Size: env.Size,
		Table: ops.Table(), Resources: ops.Resources(), Version: cmp.Or(p.Version, Version()),
	})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if ctx.Err() != nil && (err != nil && errors.Is(err, context.Canceled)) {
		return int(failure.Interrupted)
	}
	if err != nil {
		failure.Render(env.Stderr, command.Program, err)
	}
	return int(failure.CodeOf(err))
}
