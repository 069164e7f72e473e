package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
)

// input is the flag of one field. It keeps the texts as they were given;
// package invoke makes values of them when all are known, so that every
// complaint about a value reads the same.
type input struct {
	field ops.Field
	texts []string
}

func (i *input) Set(text string) error {
	i.texts = append(i.texts, text)
	return nil
}

func (i *input) String() string { return strings.Join(i.texts, ",") }

// Type is the placeholder in help.
func (i *input) Type() string {
	f := i.field
	switch {
	case f.Secret:
		return "FILE"
	case f.Kind == ops.Boolean:
		return "bool"
	case f.Kind == ops.List && f.Item == ops.JSON:
		return "JSON..."
	case f.Kind == ops.List:
		return placeholder(f.Item, f.Format) + ",..."
	case f.Kind == ops.Map:
		return "KEY=VALUE,..."
	default:
		return placeholder(f.Kind, f.Format)
	}
}

func placeholder(kind ops.Kind, format string) string {
	switch {
	case kind == ops.Integer, kind == ops.Number:
		return "NUMBER"
	case kind == ops.JSON:
		return "JSON"
	case format == "date-time":
		return "INSTANT"
	case format == "date":
		return "YYYY-MM-DD"
	default:
		return "TEXT"
	}
}

// addInput gives the command a flag for a field.
func addInput(cmd *cobra.Command, f ops.Field) *input {
	i := &input{field: f}
	flag := cmd.Flags().VarPF(i, f.Input(), "", help(f))
	if f.Kind == ops.Boolean {
		flag.NoOptDefVal = "true"
	}
	if len(f.Enum) > 0 {
		// The flag was made on the line above, so this cannot fail.
		_ = cmd.RegisterFlagCompletionFunc(flag.Name, cobra.FixedCompletions(f.Enum, cobra.ShellCompDirectiveNoFileComp))
	}
	return i
}

// help is the line of a flag: the contract's words, then what they leave out.
func help(f ops.Field) string {
	text := strings.ReplaceAll(f.Help, "`", "'")
	if text == "" {
		words := strings.NewReplacer("-", " ", ".", " ").Replace(f.Flag)
		text = strings.ToUpper(words[:1]) + words[1:]
	}
	if f.Secret {
		text += "; read from FILE, or with - from standard input or a prompt"
	}
	if len(f.Enum) > 0 {
		text += "; one of " + strings.Join(f.Enum, ", ")
	}
	if f.Kind == ops.Boolean {
		text += "; --" + f.Flag + "=false says no"
	}
	if f.Nullable {
		text += "; null clears it"
	}
	if f.Required {
		text += " (required)"
	}
	return text
}

// inputs are the flags of one operation, by the wire name of the parameter and
// by the property's flag.
type inputs struct {
	params     map[string]*input
	properties map[string]*input
	// file and contentType are nil where the operation takes no body, or only
	// one type of it.
	file        *string
	contentType *string
	watch       *watchFlags
	// wait is how long to wait for the end of what was begun; 0 = not at all.
	wait time.Duration
}

func addInputs(cmd *cobra.Command, op *ops.Op) *inputs {
	in := &inputs{params: map[string]*input{}, properties: map[string]*input{}, watch: addWatch(cmd, op)}
	for _, p := range op.Params {
		if p.In != ops.Path {
			in.params[p.Name] = addInput(cmd, p.Field)
		}
	}
	if op.Await != "" {
		cmd.Flags().DurationVar(&in.wait, "wait", 0, "how `LONG` to wait until it is finished; the exit code is 8 when the time is over, 1 where an edge could not (default: not at all)")
	}
	if op.Body == nil {
		return in
	}
	for _, p := range op.Body.Properties {
		in.properties[p.Flag] = addInput(cmd, p.Field)
	}
	in.file = cmd.Flags().StringP("file", "f", "", "`FILE` with the whole body as JSON or YAML, or - for standard input; flags win over it")
	if len(op.Body.Types) > 1 {
		in.contentType = cmd.Flags().String("content-type", op.Body.Types[0],
			"`TYPE` of the body in FILE; one of "+strings.Join(op.Body.Types, ", "))
		_ = cmd.RegisterFlagCompletionFunc("content-type", cobra.FixedCompletions(op.Body.Types, cobra.ShellCompDirectiveNoFileComp))
	}
	return in
}

// parameters returns the texts of the parameters that were given, checked.
func (in *inputs) parameters(op *ops.Op) (map[string][]string, error) {
	texts := map[string][]string{}
	var missing []string
	for _, p := range op.Params {
		given := in.params[p.Name]
		switch {
		case p.In == ops.Path:
		case len(given.texts) > 0:
			if _, err := invoke.Value(p.Field, given.texts); err != nil {
				return nil, err
			}
			texts[p.Name] = given.texts
		case p.Required:
			missing = append(missing, "--"+p.Flag)
		}
	}
	if len(missing) > 0 {
		return nil, failure.Usagef("missing %s", strings.Join(missing, ", "))
	}
	return texts, nil
}

// readInput reads standard input, which only one flag can have.
func (a *app) readInput(ctx context.Context, flag string) ([]byte, error) {
	if a.flags.token == "-" || a.flags.tokenFile == "-" {
		return nil, failure.Usagef("--%s - and the token cannot both come from standard input", flag)
	}
	text, err := await(ctx, func() ([]byte, error) { return io.ReadAll(a.Stdin) })
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return text, nil
}

// readSecret reads a secret from a file, from standard input, or from the
// person at the terminal.
func (a *app) readSecret(ctx context.Context, flag, name string) (string, error) {
	if name == "-" && a.StdinTTY && a.ReadSecret != nil {
		return a.askSecret(ctx, flag)
	}
	text, err := a.readFile(ctx, flag, name)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", failure.Usagef("--%s: %s is empty", flag, name)
	}
	return secret, nil
}

func (a *app) askSecret(ctx context.Context, flag string) (string, error) {
	prompt := strings.ReplaceAll(strings.TrimSuffix(flag, "-file"), "-", " ")
	secret, err := a.ReadSecret(ctx, strings.ToUpper(prompt[:1])+prompt[1:]+": ")
	if err != nil {
		return "", fmt.Errorf("asking for the %s: %w", prompt, err)
	}
	if secret == "" {
		return "", failure.Usagef("no %s was given", prompt)
	}
	return secret, nil
}

// stdinUsers lists the flags of the command that want standard input.
func (in *inputs) stdinUsers() []string {
	var users []string
	if in.file != nil && *in.file == "-" {
		users = append(users, "--file")
	}
	for _, given := range in.properties {
		if given.field.Secret && slices.Contains(given.texts, "-") {
			users = append(users, "--"+given.field.Input())
		}
	}
	slices.Sort(users)
	return users
}
