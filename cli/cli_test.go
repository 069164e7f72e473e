package cli

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"activerelay/cli/internal/command"
	"activerelay/cli/internal/ops"
)

var update = flag.Bool("update", false, "write goldens and the README's reference anew")

// desk is where a command is typed: its environment and what came of it.
type desk struct {
	env   map[string]string
	stdin string
	tty   bool
	// watched says that standard error is a terminal.
	watched bool
	// secret is what the person types when asked for one.
	secret string
}

// newDesk has an empty home of its own.
func newDesk(t *testing.T) *desk {
	t.Helper()
	return &desk{env: map[string]string{"XDG_CONFIG_HOME": t.TempDir()}}
}

func (d *desk) config() string {
	return filepath.Join(d.env["XDG_CONFIG_HOME"], "relayctl", "config.yaml")
}

// outcome is what a command left behind.
type outcome struct {
	code           int
	stdout, stderr string
}

func (d *desk) run(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := Env{
		Stdin: strings.NewReader(d.stdin), Stdout: &stdout, Stderr: &stderr, StdinTTY: d.tty, StderrTTY: d.watched,
		Getenv: func(name string) string { return d.env[name] },
	}
	if d.tty {
		env.ReadSecret = func(context.Context, string) (string, error) { return d.secret, nil }
	}
	code := Main(t.Context(), args, env)
	return outcome{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

func (o outcome) expect(t *testing.T, code int, inStderr ...string) outcome {
	t.Helper()
	if o.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", o.code, code, o.stdout, o.stderr)
	}
	for _, want := range inStderr {
		if !strings.Contains(o.stderr, want) {
			t.Errorf("standard error does not say %q:\n%s", want, o.stderr)
		}
	}
	return o
}

func tree() *cobra.Command {
	return command.Root(command.Config{
		Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{},
		Getenv: func(string) string { return "" },
		Table:  ops.Table(), Resources: ops.Resources(), Version: "test",
	})
}

// golden compares with a file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); run with -update and look at the change:\n%s", file, diff)
	}
}

func TestAnInterruptedCommandEndsWith130(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	env := Env{
		Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &stderr,
		Getenv: func(name string) string { return map[string]string{"HOME": t.TempDir()}[name] },
	}
	code := Main(ctx, []string{"health", "live", "--url", "http://127.0.0.1:1"}, env)
	if code != 130 {
		t.Errorf("exit code %d, want 130; stderr: %s", code, stderr.String())
	}
}
