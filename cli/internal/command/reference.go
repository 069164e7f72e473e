package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"activerelay/cli/internal/failure"
)

// Reference is the command reference in Markdown, for the README: every command
// with its flags, the flags that all of them have, and the exit codes. It is
// made from the same tree that runs.
func Reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("### Flags of every command\n\n| flag | environment | meaning |\n|---|---|---|\n")
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		name, usage := pflag.UnquoteUsage(f)
		variable := "RELAYCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", strings.TrimSpace(dashes(f)+" "+name), variable, escaped(usage))
	})
	for _, group := range topics(root) {
		fmt.Fprintf(&b, "\n### %s\n\n%s.\n\n| command | does | flags of its own |\n|---|---|---|\n",
			strings.TrimPrefix(group.CommandPath(), Program+" "), strings.TrimSuffix(group.Short, "."))
		for _, cmd := range leaves(group) {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.TrimSuffix(cmd.UseLine(), " [flags]"), escaped(cmd.Short), ownFlags(cmd))
		}
	}
	b.WriteString("\n### Exit codes\n\n| code | meaning |\n|---|---|\n")
	for _, m := range failure.Codes() {
		fmt.Fprintf(&b, "| %d | %s |\n", m.Code, m.Text)
	}
	return b.String()
}

func dashes(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return "-" + f.Shorthand + ", --" + f.Name
	}
	return "--" + f.Name
}

func escaped(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// topics are the groups and commands directly under the root that help shows,
// and the hidden ones after them.
func topics(root *cobra.Command) []*cobra.Command {
	var shown, hidden []*cobra.Command
	for _, cmd := range root.Commands() {
		switch {
		case cmd.IsAdditionalHelpTopicCommand(), cmd.Name() == "help", cmd.Name() == "completion":
		case cmd.Hidden:
			hidden = append(hidden, cmd)
		default:
			shown = append(shown, cmd)
		}
	}
	return append(shown, hidden...)
}

// leaves are the commands at or below one that do something.
func leaves(cmd *cobra.Command) []*cobra.Command {
	if !cmd.HasSubCommands() {
		return []*cobra.Command{cmd}
	}
	var found []*cobra.Command
	for _, child := range cmd.Commands() {
		found = append(found, leaves(child)...)
	}
	slices.SortStableFunc(found, func(a, b *cobra.Command) int { return strings.Compare(a.CommandPath(), b.CommandPath()) })
	return found
}

func ownFlags(cmd *cobra.Command) string {
	var names []string
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			names = append(names, "`"+dashes(f)+"`")
		}
	})
	return strings.Join(names, " ")
}
