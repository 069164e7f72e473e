package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"golang.org/x/term"
)

// Env is the world that a command runs in: what a test gives in place of the
// process's own.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// StdinTTY, StdoutTTY and StderrTTY say whether a person is at the other
	// end; without one nothing is asked, coloured or shown of progress.
	StdinTTY  bool
	StdoutTTY bool
	StderrTTY bool
	Getenv    func(string) string
	// Size tells the columns and rows of the terminal that Stdout is. Nil
	// where it is none.
	Size func() (columns, rows int)
	// ReadSecret asks for a secret without showing it, until ctx ends. Nil
	// where nobody can be asked.
	ReadSecret func(ctx context.Context, prompt string) (string, error)
}

// OSEnv is the process's own world.
func OSEnv() Env {
	stdin := int(os.Stdin.Fd())
	return Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		StdinTTY: term.IsTerminal(stdin), StdoutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		StderrTTY: term.IsTerminal(int(os.Stderr.Fd())),
		Size: func() (columns, rows int) {
			columns, rows, _ = term.GetSize(int(os.Stdout.Fd())) // 0 where it does not tell
			return columns, rows
		},
		ReadSecret: func(ctx context.Context, prompt string) (string, error) { return readSecret(ctx, stdin, prompt) },
	}
}

// readSecret reads a line with the echo off. Interrupted, it puts the terminal
// back as it was; the abandoned read ends with the process.
func readSecret(ctx context.Context, terminal int, prompt string) (string, error) {
	before, err := term.GetState(terminal)
	if err != nil {
		return "", fmt.Errorf("reading the state of the terminal: %w", err)
	}
	fmt.Fprint(os.Stderr, prompt)
	defer fmt.Fprintln(os.Stderr)
	type line struct {
		secret []byte
		err    error
	}
	read := make(chan line, 1)
	go func() {
		secret, err := term.ReadPassword(terminal)
		read <- line{secret, err}
	}()
	select {
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(terminal, before))
	case l := <-read:
		return string(l.secret), l.err
	}
}

// Version is the version that the toolchain noted in the program, "devel"
// outside a release.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
