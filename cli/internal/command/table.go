package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// operationID is the annotation that ties a command to its row.
const operationID = "operationId"

// addTable adds a command for every row, and a command for every group of them.
func (a *app) addTable() {
	groups := map[string]*cobra.Command{"": a.root}
	for i := range a.Table {
		op := &a.Table[i]
		parent := a.group(groups, op)
		cmd := a.operation(op)
		if parent == a.root {
			cmd.GroupID = "resources"
		}
		parent.AddCommand(cmd)
	}
	for _, group := range groups {
		group.Hidden = group != a.root && !slices.ContainsFunc(group.Commands(), func(c *cobra.Command) bool { return !c.Hidden })
	}
}

// group returns the command that the row hangs under, made when it is new.
func (a *app) group(groups map[string]*cobra.Command, op *ops.Op) *cobra.Command {
	parent := a.root
	for i, word := range op.Group {
		path := strings.Join(op.Group[:i+1], " ")
		group, known := groups[path]
		if !known {
			group = &cobra.Command{Use: word, Short: a.about(op, i), Args: cobra.ArbitraryArgs, RunE: groupRun}
			if parent == a.root {
				group.GroupID = "resources"
			}
			parent.AddCommand(group)
			groups[path] = group
		}
		parent = group
	}
	return parent
}

// about describes a group by the contract's words for its resource, where the
// group is all of the resource; else by what it can do.
func (a *app) about(op *ops.Op, depth int) string {
	group := op.Group[:depth+1]
	var verbs []string
	shared := depth > 0
	for _, other := range a.Table {
		same := len(other.Group) > depth && slices.Equal(other.Group[:depth+1], group)
		switch {
		case same && len(other.Group) == depth+1:
			verbs = append(verbs, other.Verb)
		case !same && other.Resource == op.Resource:
			shared = true
		}
	}
	i := slices.IndexFunc(a.Resources, func(r ops.Resource) bool { return r.Name == op.Resource })
	switch text := groupText(strings.Join(group, " ")); {
	case text != "":
		return text
	case i >= 0 && !shared:
		return a.Resources[i].Text
	case len(verbs) == 1:
		return op.Summary
	default:
		name := strings.ReplaceAll(group[depth], "-", " ")
		return strings.ToUpper(name[:1]) + name[1:] + ": " + strings.Join(verbs, ", ")
	}
}

// groupText describes the groups that the contract has no words for: several
// of them are parts of one resource.
func groupText(words string) string {
	switch words {
	case "edge":
		return "Edges: the servers that take mail and relay it"
	case "join-token":
		return "Tokens with which a new edge joins the platform, once"
	case "edge-api":
		return "What edges ask of the control plane"
	case "token":
		return "API tokens: who may use the API, for what and until when"
	case "report":
		return "Messages, limits and refusals by day and domain"
	case "health":
		return "Whether the control plane is up, and ready"
	case "service":
		return "The API's own description, and metrics"
	case "quota override":
		return "A limit of its own for a domain, for a while"
	case "destination-limit":
		return "How much each edge sends to a destination at once and in a minute"
	case "domain bulk-exception":
		return "Whether a domain may send bulk mail, or is only observed"
	default:
		return ""
	}
}

// groupRun shows what a group has, and refuses a word that it does not have.
func groupRun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	fault := &failure.Error{
		Code:   failure.Usage,
		Detail: fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0]),
		Next:   cmd.CommandPath() + " --help",
	}
	cmd.SuggestionsMinimumDistance = 2
	like := cmd.SuggestionsFor(args[0])
	if len(like) > 0 {
		fault.Next = cmd.CommandPath() + " " + like[0]
	}
	if names := commandNames(cmd); len(like) == 0 || cmd.HasParent() {
		fault.Detail += "; choose from " + strings.Join(names, ", ")
	}
	return fault
}

// commandNames are the commands below one that help shows.
func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			names = append(names, child.Name())
		}
	}
	return names
}

// operation is the command of one row.
func (a *app) operation(op *ops.Op) *cobra.Command {
	use := op.Verb
	for _, p := range op.Arguments() {
		use += " " + p.Argument()
	}
	cmd := &cobra.Command{
		Use:         use,
		Short:       op.Summary,
		Long:        a.long(op),
		Example:     "  " + strings.ReplaceAll(op.Example, "\n", "\n  "),
		Hidden:      op.Hidden,
		Annotations: map[string]string{operationID: op.ID},
		Args:        arguments(op),
	}
	in := addInputs(cmd, op)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.run(cmd, op, in, args) }
	a.completeObjects(cmd, op)
	return cmd
}

// arguments refuses too few and too many, by name.
func arguments(op *ops.Op) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		wanted := op.Arguments()
		fault := &failure.Error{Code: failure.Usage, Next: cmd.CommandPath() + " --help"}
		switch {
		case len(args) < len(wanted):
			fault.Detail = fmt.Sprintf("%s needs %s", op.Command(), wanted[len(args)].Argument())
		case len(args) > len(wanted):
			fault.Detail = fmt.Sprintf("%s does not take %q", op.Command(), args[len(wanted)])
		default:
			return nil
		}
		return fault
	}
}

// long is the description with what else the contract says of the operation.
func (a *app) long(op *ops.Op) string {
	var b strings.Builder
	b.WriteString(wrap(a.asCommands(op, op.Description)))
	if arguments := op.Arguments(); len(arguments) > 0 {
		b.WriteString("\n\nArguments:")
		for _, p := range arguments {
			fmt.Fprintf(&b, "\n  %-14s %s", p.Argument(), help(withoutRequired(p.Field)))
		}
	}
	if op.Body != nil && op.Body.Example != "" && slices.ContainsFunc(op.Body.Properties, ofObjects) {
		b.WriteString("\n\nThe file is like this:\n\n  " + strings.ReplaceAll(op.Body.Example, "\n", "\n  "))
	}
	if flags := selecting(op); len(flags) > 0 {
		b.WriteString("\n\n" + wrap("Say what it is about with one or more of "+strings.Join(flags, ", ")+"."))
	}
	if isBatch(op) {
		b.WriteString("\n\nEntries that failed are said on standard error; the exit code is then 1, and the rest is done.")
	}
	switch {
	case op.Public:
		b.WriteString("\n\nNeeds no token.")
	default:
		fmt.Fprintf(&b, "\n\nFor: %s (scope %s).", strings.Join(op.Roles, ", "), op.Scope)
	}
	return b.String()
}

// asCommands says in the words of the command line what the contract says in
// those of the API: operations in backquotes are commands, inputs are flags.
func (a *app) asCommands(op *ops.Op, text string) string {
	parts := strings.Split(text, "`")
	for i := 1; i < len(parts)-1; i += 2 {
		name := parts[i]
		if n := slices.IndexFunc(a.Table, func(other ops.Op) bool { return other.ID == name }); n >= 0 {
			parts[i] = usageOf(&a.Table[n])
		} else if flag := op.FlagNamed(name); flag != "" {
			parts[i] = "--" + flag
		}
	}
	return strings.Join(parts, "`")
}

// usageOf is the command of a row with its arguments.
func usageOf(op *ops.Op) string {
	words := []string{Program, op.Command()}
	for _, p := range op.Arguments() {
		words = append(words, p.Argument())
	}
	return strings.Join(words, " ")
}

// ofObjects: a list of objects is easier to write in a file than as a flag.
func ofObjects(p ops.Property) bool { return p.Kind == ops.List && p.Item == ops.JSON }

// wrap breaks lines at spaces, as far as terminals are wide.
func wrap(text string) string {
	const width = 116
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

func withoutRequired(f ops.Field) ops.Field {
	f.Required = false
	return f
}
