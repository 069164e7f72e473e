package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"

	"activerelay/api/cgroup"

	"github.com/spf13/pflag"
)

// Exit codes of relay-server.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

const synopsis = `relay-server is the control plane of Active Relay.

Usage:
  relay-server [flags]                 serve until SIGTERM or SIGINT, then drain
  relay-server migrate up [flags]      bring the database to the schema of this program
  relay-server migrate status [flags]  list the migrations and when each was applied

Flags:
`

// Program is relay-server as it was built.
type Program struct {
	// Version is what --version prints and health replies say. Empty means what Go knows of the build.
	Version string
}

// Main runs relay-server of an unnamed version, see [Program.Main].
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	return Program{}.Main(ctx, args, getenv, stdout, stderr)
}

// Main runs relay-server until ctx ends and answers its exit code: 0 when it ended as it was told, 1 when it could not go
// on, 2 when its settings are wrong.
func (p Program) Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var config Config
	set := newSettings(&config)
	err := set.Load(args, getenv)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprint(stdout, synopsis+set.Usage())
		return exitOK
	}
	if err != nil {
		return usageError(stderr, err)
	}
	config.Version = p.version()
	if config.ShowVersion {
		fmt.Fprintln(stdout, "relay-server", config.Version)
		return exitOK
	}
	run, err := commandOf(set.Flags.Args(), stdout)
	err = errors.Join(err, config.check())
	if set.Flags.NArg() == 0 {
		err = errors.Join(err, config.checkFiles())
	}
	if err != nil {
		return usageError(stderr, err)
	}
	if config.CheckConfig {
		fmt.Fprintln(stdout, "the settings are good")
		return exitOK
	}
	config.Log = newLog(config, stderr)
	fitHeap(getenv)
	if err := run(ctx, config); err != nil {
		fmt.Fprintln(stderr, "relay-server:", err)
		return exitFailure
	}
	return exitOK
}

// GCPercent is GOGC where the environment has none. What a control plane holds is little beside what a call makes and drops: at Go's
// own 100 it would collect garbage at every other batch of events.
const GCPercent = 400

// fitHeap trades memory for processor time, below the limit of the control group. GOGC and GOMEMLIMIT win.
func fitHeap(getenv func(string) string) {
	cgroup.FitMemory(getenv)
	if getenv("GOGC") == "" {
		debug.SetGCPercent(GCPercent)
	}
}

func commandOf(args []string, stdout io.Writer) (func(context.Context, Config) error, error) {
	switch strings.Join(args, " ") {
	case "":
		return Run, nil
	case "migrate up":
		return func(ctx context.Context, c Config) error { return migrateUp(ctx, c, stdout) }, nil
	case "migrate status":
		return func(ctx context.Context, c Config) error { return migrateStatus(ctx, c, stdout) }, nil
	default:
		return nil, fmt.Errorf("unknown command %q; want none, \"migrate up\" or \"migrate status\"", strings.Join(args, " "))
	}
}

// usageError prints one line for each mistake.
func usageError(stderr io.Writer, err error) int {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(stderr, "relay-server:", line)
	}
	fmt.Fprintln(stderr, "relay-server --help lists the settings.")
	return exitUsage
}

func newLog(config Config, out io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(config.LogLevel)) // one of the choices, which slog all knows
	options := &slog.HandlerOptions{Level: level}
	if config.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}

func (p Program) version() string {
	if p.Version != "" {
		return p.Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unversioned"
}
