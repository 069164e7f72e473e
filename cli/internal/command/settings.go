package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"activerelay/api/reason"
	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/output"
	"activerelay/cli/internal/profile"
)

// sourced are the flags whose environment variables and keys are read by
// package profile, which knows how they belong together.
func sourced() []string {
	return []string{"config", "context", "url", "token", "token-file", "ca-file", "help", "version"}
}

// makesConfig is the annotation of a command that writes a configuration file
// where there is none.
const makesConfig = "makesConfig"

// settle loads the configuration file and gives every flag that was not on the
// command line its value from the environment, else from the file.
func (a *app) settle(cmd *cobra.Command) (*profile.File, error) {
	path, err := profile.Path(a.flags.config, a.Getenv)
	if err != nil {
		return nil, err
	}
	file, err := profile.Load(path)
	if err != nil {
		return nil, err
	}
	if file.Missing && cmd.Annotations[makesConfig] == "" {
		for _, asked := range [][2]string{{"--config", a.flags.config}, {"RELAYCTL_CONFIG", a.Getenv("RELAYCTL_CONFIG")}} {
			if asked[1] == path {
				return nil, failure.Usagef("%s: there is no file %s", asked[0], path)
			}
		}
	}
	if err := a.checkFile(file); err != nil {
		return nil, err
	}
	var fault error
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if fault != nil || flag.Changed || slices.Contains(sourced(), flag.Name) {
			return
		}
		fault = a.fill(cmd, flag, file)
	})
	return file, fault
}

// fill sets one flag from the environment or the file.
func (a *app) fill(cmd *cobra.Command, flag *pflag.Flag, file *profile.File) error {
	variable := a.variable(cmd, flag.Name)
	text, place := a.Getenv(variable), variable
	if text == "" {
		words, name := commandWords(cmd), flag.Name
		line := file.Lines[words+"."+name]
		if text = file.Commands[words][name]; a.global(name) {
			text, line = file.Settings[name], file.Lines[name]
		}
		place = fmt.Sprintf("%s:%d: %s", file.Path, line, name)
	}
	if text == "" {
		return nil
	}
	if err := cmd.Flags().Set(flag.Name, text); err != nil {
		return failure.Usagef("%s: %v", place, err)
	}
	a.origins[flag.Name] = place
	return nil
}

// blameOrigins makes every command say of a bad value where it was given: who
// never typed --output is not helped by an error about it.
func (a *app) blameOrigins(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return helped(cmd, a.blame(run(cmd, args))) }
	}
	for _, child := range cmd.Commands() {
		a.blameOrigins(child)
	}
}

func (a *app) blame(err error) error {
	var known *failure.Error
	if !errors.As(err, &known) || known.Code != failure.Usage {
		return err
	}
	for flag, place := range a.origins {
		if rest, found := strings.CutPrefix(known.Detail, "--"+flag); found && strings.ContainsAny(rest[:min(1, len(rest))], " :") {
			known.Detail = place + rest
			return err
		}
	}
	return err
}

// helped names the next command where nobody knew a better one: the help after a
// mistake in the command line or in a file, else who it is that may not.
func helped(cmd *cobra.Command, err error) error {
	var known *failure.Error
	switch {
	case !errors.As(err, &known) || known.Next != "":
	case known.Code == failure.Usage && known.Title == "":
		known.Next = cmd.CommandPath() + " --help"
	case known.Reason == string(reason.Forbidden):
		known.Next = Program + " whoami"
	}
	return err
}

// variable is the environment variable of a flag: RELAYCTL_OUTPUT for one that
// every command has, RELAYCTL_DOMAIN_LIST_STATUS for one of a single command.
func (a *app) variable(cmd *cobra.Command, flag string) string {
	words := []string{Program}
	if !a.global(flag) {
		words = append(words, strings.Fields(commandWords(cmd))...)
	}
	name := strings.Join(append(words, flag), "_")
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
}

func (a *app) global(flag string) bool { return a.root.PersistentFlags().Lookup(flag) != nil }

// commandWords are the words after the program's name.
func commandWords(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), Program), " ")
}

// checkFile refuses keys that no flag reads.
func (a *app) checkFile(file *profile.File) error {
	for _, key := range slices.Sorted(maps.Keys(file.Settings)) {
		if !a.global(key) || key == "config" || key == "context" {
			choices := append(flagNames(a.root.PersistentFlags(), "config", "context"), "commands", "contexts", "current-context")
			return file.Unknown(file.Lines[key], key, choices)
		}
	}
	for _, words := range slices.Sorted(maps.Keys(file.Commands)) {
		cmd, rest, err := a.root.Find(strings.Fields(words))
		if err != nil || len(rest) > 0 || !cmd.Runnable() || cmd == a.root {
			return failure.Usagef("%s:%d: no command %q", file.Path, file.Lines[words], words)
		}
		for _, key := range slices.Sorted(maps.Keys(file.Commands[words])) {
			if cmd.LocalNonPersistentFlags().Lookup(key) == nil {
				return file.Unknown(file.Lines[words+"."+key], key, flagNames(cmd.LocalNonPersistentFlags()))
			}
		}
	}
	return nil
}

func flagNames(flags *pflag.FlagSet, without ...string) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !slices.Contains(without, f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}

// session is what a command needs to talk to the server and to the person.
type session struct {
	target  profile.Target
	client  *invoke.Client
	printer *output.Printer
}

// open settles the flags and builds the session; it does not call the server.
func (a *app) open(cmd *cobra.Command) (*session, error) {
	file, err := a.settle(cmd)
	if err != nil {
		return nil, err
	}
	g := a.flags
	if g.token != "" && g.tokenFile != "" {
		return nil, failure.Usagef("--token and --token-file cannot both be given")
	}
	s := &session{}
	s.target, err = file.Resolve(
		profile.Source{URL: g.url, Token: g.token, TokenFile: g.tokenFile, CAFile: g.ca, Context: g.context},
		a.environment(), a.Stdin)
	if err != nil {
		return nil, err
	}
	if s.client, err = a.client(s.target); err != nil {
		return nil, err
	}
	s.printer, err = a.printer()
	return s, err
}

// environment is where the environment says the server and the token are.
func (a *app) environment() profile.Source {
	return profile.Source{
		URL: a.Getenv("RELAYCTL_URL"), Token: a.Getenv("RELAYCTL_TOKEN"), TokenFile: a.Getenv("RELAYCTL_TOKEN_FILE"),
		CAFile: a.Getenv("RELAYCTL_CA_FILE"), Context: a.Getenv("RELAYCTL_CONTEXT"),
	}
}

func (a *app) client(target profile.Target) (*invoke.Client, error) {
	g := a.flags
	switch {
	case g.timeout <= 0:
		return nil, failure.Usagef("--timeout takes a positive duration such as 30s, not %s", g.timeout)
	case g.retries < 0:
		return nil, failure.Usagef("--retries takes 0 or more, not %d", g.retries)
	case g.maxItems < 0:
		return nil, failure.Usagef("--max-items takes 0 or more, not %d", g.maxItems)
	}
	config := invoke.Config{
		URL: target.URL, Token: target.Token, CAFile: target.CAFile, AllowHTTP: g.allowHTTP,
		Timeout: g.timeout, Retries: g.retries, UserAgent: Program + "/" + a.Version,
		Note: a.note,
	}
	if g.verbose {
		config.Trace = a.note
	}
	return invoke.New(config)
}

// note says something beside the answer.
func (a *app) note(line string) {
	a.line.clear()
	_, _ = a.Stderr.Write([]byte(failure.Printable(line) + "\n"))
}

// colored: on a terminal, unless NO_COLOR is set (no-color.org) or the terminal
// cannot.
func (a *app) colored() (bool, error) {
	switch a.flags.color {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		return a.StdoutTTY && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb", nil
	default:
		return false, failure.Usagef("--color takes auto, always or never, not %q", a.flags.color)
	}
}

// readFile reads a file named on the command line; "-" is standard input.
func (a *app) readFile(ctx context.Context, flag, name string) ([]byte, error) {
	if name == "-" {
		return a.readInput(ctx, flag)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, failure.Usagef("--%s: %v", flag, err)
	}
	return text, nil
}
