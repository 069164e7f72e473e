package relayd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"

	"activerelay/relayd/internal/maillog"

	"github.com/spf13/pflag"
)

// Exit codes of relayd.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

const synopsis = `relayd is an edge of Active Relay: it accepts mail, decides by policy and relays it.

Usage:
  relayd [flags]       relay until SIGTERM or SIGINT, then drain; joins first where it has not yet
  relayd join [flags]  join the control plane by a join token, and end

Flags:
`

// Program is relayd as it was built.
type Program struct {
	// Version is what --version prints and the control plane is told. Empty means what Go knows of the build.
	Version string
}

// Main runs relayd of an unnamed version, see [Program.Main].
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	return Program{}.Main(ctx, args, getenv, stdout, stderr)
}

// Main runs relayd until ctx ends and answers its exit code: 0 when it ended as it was told, 1 when it could not go on, 2
// when its settings are wrong.
func (p Program) Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var c Config
	set := newSettings(&c)
	err := set.Load(args, getenv)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprint(stdout, synopsis+set.Usage())
		return exitOK
	}
	if err != nil {
		return usageError(stderr, err)
	}
	c.Version = p.version()
	if c.ShowVersion {
		fmt.Fprintln(stdout, "relayd", c.Version)
		return exitOK
	}
	run, err := commandOf(set.Flags.Args())
	if err := errors.Join(err, c.complete()); err != nil {
		return usageError(stderr, err)
	}
	if c.CheckConfig {
		fmt.Fprintln(stdout, "the settings are good")
		return exitOK
	}
	fitProcessors(getenv)
	if err := logged(ctx, c, stderr, run); err != nil {
		fmt.Fprintln(stderr, "relayd:", err)
		return exitFailure
	}
	return exitOK
}

// SpareProcessors is how many of Go's processors relayd has beyond those of the machine or of its control group, where GOMAXPROCS
// says nothing. A goroutine in a sync keeps its processor until the runtime takes it away, and the network is only looked at by a
// processor that has nothing else to do: with none to spare, a message waits for both at each of its steps while another customer
// floods. Measured where a flood takes two processors: the 95th percentile of the others' latency grows by 16 % with four, 23 % with
// two and 43 to 62 % with none; more than four gain nothing.
const SpareProcessors = 4

func fitProcessors(getenv func(string) string) {
	if getenv("GOMAXPROCS") != "" {
		return
	}
	runtime.SetDefaultGOMAXPROCS()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + SpareProcessors)
}

// logged runs a command with its logs on stderr. Lines of the mail log are written many at once, those of the process at
// once; both through one buffer, so that they stand in the order in which things happened. It is emptied when the command
// ends, by a panic too.
func logged(ctx context.Context, c Config, stderr io.Writer, run func(context.Context, Config) error) error {
	lost := func(lines int) []byte {
		var line bytes.Buffer
		newLog(c, &line).Warn("lines of the log are lost: nobody read them", "lines", lines)
		return line.Bytes()
	}
	buffer := maillog.NewBuffer(stderr, lost)
	defer func() { _ = buffer.Close() }()
	c.Log, c.MailLog = newLog(c, buffer.Immediate()), buffer
	return run(ctx, c)
}

func commandOf(args []string) (func(context.Context, Config) error, error) {
	switch strings.Join(args, " ") {
	case "":
		return Run, nil
	case "join":
		return Join, nil
	default:
		return nil, fmt.Errorf("unknown command %q; want none, or \"join\"", strings.Join(args, " "))
	}
}

// usageError prints one line for each mistake.
func usageError(stderr io.Writer, err error) int {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(stderr, "relayd:", line)
	}
	fmt.Fprintln(stderr, "relayd --help lists the settings.")
	return exitUsage
}

func (c *Config) logLevel() (level slog.Level) {
	_ = level.UnmarshalText([]byte(c.LogLevel)) // one of the choices, which slog all knows
	return level
}

// newMailLog is the mail log in the format of the log.
func (c *Config) newMailLog() *maillog.Log {
	return maillog.New(maillog.Config{Out: c.MailLog, JSON: c.LogFormat == "json", Level: c.logLevel()})
}

func newLog(c Config, out io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.logLevel()}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}

func (p Program) version() string {
	if p.Version != "" {
		return p.Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "unversioned"
}
