package cli

import (
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
	// StdinTTY and StdoutTTY say whether a person is at the other end; without
	// one nothing is asked and nothing is coloured.
	StdinTTY  bool
	StdoutTTY bool
	Getenv    func(string) string
	// ReadSecret asks for a secret without showing it. Nil where nobody can
	// be asked.
	ReadSecret func(prompt string) (string, error)
}

// OSEnv is the process's own world.
func OSEnv() Env {
	stdin := int(os.Stdin.Fd())
	return Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		StdinTTY: term.IsTerminal(stdin), StdoutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		ReadSecret: func(prompt string) (string, error) {
			fmt.Fprint(os.Stderr, prompt)
			secret, err := term.ReadPassword(stdin)
			fmt.Fprintln(os.Stderr)
			return string(secret), err
		},
	}
}

// Version is the version that the program was built as, "devel" outside a
// release.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
