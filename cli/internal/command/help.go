package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/failure"
)

// usage is cobra's template without the flags that every command has, which
// the root shows once.
const usage = `Usage:{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{else}}
  {{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$commands := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $commands}}{{if and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 116 | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command (--output, --columns, --jq, --dry-run, --yes, …): relayctl --help{{end}}{{if not .HasParent}}

Topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  relayctl help {{rpad .Name 12}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableSubCommands}}

Help on one command: {{.CommandPath}} COMMAND --help{{end}}
`

// helpTopics sets the shape of help and adds the topics that belong to no
// command.
func (a *app) helpTopics() {
	a.root.SetUsageTemplate(usage)
	for _, topic := range []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes()},
		{Use: "environment", Short: "Environment variables and the configuration file", Long: environmentHelp},
		{Use: "values", Short: "How lists, objects, secrets and null are written", Long: valuesHelp},
	} {
		a.root.AddCommand(topic)
	}
}

// help is cobra's command, but a topic that is none is an error.
func (a *app) help() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command", GroupID: "local",
		Long:    "Shows the help of a command or of a topic.",
		Example: "  relayctl help domain put\n  relayctl help exit-codes",
		Args:    cobra.ArbitraryArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			found, rest, err := a.root.Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return helpable(found), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := a.root.Find(args)
			if err != nil || len(rest) > 0 && (found == a.root || found.HasSubCommands()) {
				return failure.Usagef("there is no help on %q; choose from %s", strings.Join(args, " "), strings.Join(helpable(found), ", "))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// helpable are the commands and topics below a command.
func helpable(cmd *cobra.Command) []string {
	names := commandNames(cmd)
	for _, child := range cmd.Commands() {
		if child.IsAdditionalHelpTopicCommand() {
			names = append(names, child.Name())
		}
	}
	return names
}

func exitCodes() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, m := range failure.Codes() {
		fmt.Fprintf(&b, "\n  %3d  %s", m.Code, m.Text)
	}
	return b.String()
}

const environmentHelp = `Every flag can be set in three places; the first that has it wins:

  1. the command line;
  2. the environment: RELAYCTL_ and the flag in capitals, RELAYCTL_OUTPUT=json; for a flag of one command with
     the command's words before it, RELAYCTL_DOMAIN_LIST_STATUS=suspended;
  3. the configuration file, $XDG_CONFIG_HOME/relayctl/config.yaml or ~/.config/relayctl/config.yaml, unless
     --config or RELAYCTL_CONFIG names another:

       current-context: demo
       contexts:
         demo:
           url: https://relay.example.com
           token-file: /home/anna/operator.token
       output: yaml
       commands:
         domain list:
           status: suspended

Server and token: --url, --token and --token-file win over the context named by --context, which wins over
RELAYCTL_URL, RELAYCTL_TOKEN and RELAYCTL_TOKEN_FILE, which win over the context in use. The token of a context is
sent to the URL of that context only.`

const valuesHelp = `Lists take one element for each flag, or several with commas between, or a JSON array:

  --contacts anna@example.com --contacts ben@example.com
  --contacts anna@example.com,ben@example.com
  --contacts '["anna@example.com"]'

Lists of objects and free-form values are JSON. Properties of an object are flags with a dot,
--complaint-thresholds.user 3. The word null clears a property that can be cleared. Flags that end in -file and
stand for a secret read it from the file, from standard input with -, or ask for it at a terminal.

-f FILE gives the whole body as JSON or YAML, - reads it from standard input; flags win over it.

Answers: -o table is for eyes, json and yaml are the API's own documents with all pages of a list in one, jsonl has
one item on each line, csv one row. --jq filters the document; strings come out plain. A table has the usual columns,
--columns others, also of lists inside an object (destinations.state); on a terminal its longest texts are cut to fit,
which ends them with an ellipsis. Everything is in the other formats.`
