// Package command turns the command table into the commands of relayctl, and
// holds the few that are written by hand.
//
// Root builds the tree: one command for every row of the table, with an
// argument for each path parameter, a flag for each other parameter and each
// property of the body, help from the contract's own words, and completion from
// its choices; then login, context, apply, man, completion and version. Running
// one is the same for all rows: find the settings (settings.go), gather the
// values (inputs.go, body.go), ask where it destroys something (confirm.go),
// call (package invoke) and print (package output).
//
// Nothing here writes to the process's own streams or reads its environment:
// both come in Config.
package command

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/ops"
)

// Program is the name of the program, as help and errors say it.
const Program = "relayctl"

// Config is the world that the commands run in.
type Config struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// StdinTTY and its like say whether a person is at the other end.
	StdinTTY  bool
	StdoutTTY bool
	StderrTTY bool
	Getenv    func(string) string
	// Size tells the columns and rows of the terminal; nil where none does.
	Size func() (columns, rows int)
	// ReadSecret asks for a secret without showing it; nil where nobody can be
	// asked.
	ReadSecret func(ctx context.Context, prompt string) (string, error)
	// Table and Resources are the contract's operations and their subjects.
	Table     []ops.Op
	Resources []ops.Resource
	// Version is what version prints and the server is told.
	Version string
}

// app is the tree's shared state: the world, and the flags that every command
// has.
type app struct {
	Config
	flags globalFlags
	root  *cobra.Command
	// origins say where the value of a flag is from that was not on the
	// command line, by the flag's name.
	origins map[string]string
	line    progress
}

// globalFlags are the flags that every command has.
type globalFlags struct {
	config, context           string
	url, token, tokenFile, ca string
	allowHTTP                 bool
	timeout                   time.Duration
	retries                   int
	output, jq, color         string
	columns                   []string
	noHeaders                 bool
	maxItems                  int
	dryRun, yes, verbose      bool
}

// Root returns the command tree.
func Root(config Config) *cobra.Command {
	a := &app{Config: config, origins: map[string]string{}}
	if config.StderrTTY {
		a.line.out = config.Stderr
	}
	a.root = &cobra.Command{
		Use:   Program,
		Short: "Manage an Active Relay platform",
		Long: "relayctl manages an Active Relay platform: partners, domains, relay IPs, routes, users, limits and reports.\n" +
			"Its commands follow the API; `relayctl login` stores a server and a token to use.",
		Example:       "  relayctl login --url https://relay.example.com --token-file operator.token\n  relayctl domain list\n  relayctl quota show example.com\n  relayctl apply -f customers.yaml",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: groupRun,
	}
	a.root.SetIn(config.Stdin)
	a.root.SetOut(config.Stdout)
	a.root.SetErr(config.Stderr)
	a.root.SetFlagErrorFunc(flagFault)
	a.root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	a.globalFlags()
	a.root.AddGroup(
		&cobra.Group{ID: "resources", Title: "What the platform holds:"},
		&cobra.Group{ID: "local", Title: "This program:"},
	)
	a.addTable()
	a.addLocal(a.login(), a.contexts(), a.apply(), a.man(), a.version())
	a.root.SetHelpCommandGroupID("local")
	a.root.SetCompletionCommandGroupID("local")
	a.helpTopics()
	a.root.SetHelpCommand(a.help())
	a.completion()
	a.blameOrigins(a.root)
	return a.root
}

// completion makes cobra's command refuse a shell that it does not know.
func (a *app) completion() {
	a.root.InitDefaultCompletionCmd()
	for _, cmd := range a.root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args, cmd.RunE = cobra.ArbitraryArgs, groupRun
		}
	}
}

func (a *app) addLocal(commands ...*cobra.Command) {
	for _, cmd := range commands {
		cmd.GroupID = "local"
		a.root.AddCommand(cmd)
	}
}

func (a *app) globalFlags() {
	f, g := a.root.PersistentFlags(), &a.flags
	f.StringVar(&g.config, "config", "", "configuration `FILE` (default $XDG_CONFIG_HOME/relayctl/config.yaml)")
	f.StringVar(&g.context, "context", "", "`NAME` of the context to use")
	f.StringVar(&g.url, "url", "", "`URL` of the server (default http://127.0.0.1:8080)")
	f.StringVar(&g.token, "token", "", "API `TOKEN`, or - to read it from standard input; other users can see arguments, so prefer --token-file")
	f.StringVar(&g.tokenFile, "token-file", "", "`FILE` that holds the API token")
	f.StringVar(&g.ca, "ca-file", "", "PEM `FILE` with the certificates to trust instead of the system's")
	f.BoolVar(&g.allowHTTP, "allow-http", false, "send the token without TLS to another host")
	f.DurationVar(&g.timeout, "timeout", time.Minute, "how `LONG` to wait for an answer, retries included")
	f.IntVar(&g.retries, "retries", 3, "how `OFTEN` to try again when the server is busy or away")
	f.StringVarP(&g.output, "output", "o", "", "`FORMAT` of the answer: table, json, yaml, jsonl or csv (default table)")
	f.StringSliceVar(&g.columns, "columns", nil, "columns of table and csv, as dotted `PATHS` with commas between")
	f.BoolVar(&g.noHeaders, "no-headers", false, "leave out the header line of table and csv")
	f.StringVar(&g.jq, "jq", "", "jq `FILTER` for the answer")
	f.IntVar(&g.maxItems, "max-items", 0, "stop after this `NUMBER` of items of a list; 0 lists all")
	f.BoolVar(&g.dryRun, "dry-run", false, "show what would be sent, without secrets, and send nothing")
	f.BoolVarP(&g.yes, "yes", "y", false, "do not ask before destroying something")
	f.StringVar(&g.color, "color", "auto", "`WHEN` to colour: auto, always or never")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "say on standard error which requests are made")
	a.complete("output", "table", "json", "yaml", "jsonl", "csv")
	a.complete("color", "auto", "always", "never")
}

func (a *app) complete(flag string, choices ...string) {
	// The flag was made a few lines above, so this cannot fail.
	_ = a.root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
}
