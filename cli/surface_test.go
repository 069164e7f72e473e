package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/spf13/cobra"

	"activerelay/cli/internal/command"
	"activerelay/cli/internal/ops"
	"activerelay/cli/internal/output"
)

const contract = "../openapi.yaml"

// everyCommand walks the tree, hidden commands too.
func everyCommand(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, child := range cmd.Commands() {
		everyCommand(child, visit)
	}
}

func TestTheCommandTreeIsAsTheGoldenSays(t *testing.T) {
	root := tree()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var b strings.Builder
	everyCommand(root, func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		cmd.SetOut(&b)
		fmt.Fprintf(&b, "=== %s\n", cmd.CommandPath())
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		b.WriteString("\n")
	})
	golden(t, "testdata/commands.golden", b.String())
}

func TestTheReadmeHoldsTheReference(t *testing.T) {
	const begin, end = "<!-- generated: go generate ./cli -->\n", "<!-- end -->"
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(readme), begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatal("README.md has lost the marks of the generated part")
	}
	golden(t, "README.md", before+begin+"\n"+command.Reference(tree())+"\n"+end+after)
}

func TestEveryOperationOfTheContractHasACommandWithAllItsInputs(t *testing.T) {
	commands := map[string]*cobra.Command{}
	everyCommand(tree(), func(cmd *cobra.Command) {
		if id := cmd.Annotations["operationId"]; id != "" {
			commands[id] = cmd
		}
	})
	operations := 0
	for path, item := range load(t).Paths.Map() {
		for method, operation := range item.Operations() {
			operations++
			t.Run(operation.OperationID, func(t *testing.T) {
				cmd := commands[operation.OperationID]
				if cmd == nil {
					t.Fatalf("%s %s has no command", method, path)
				}
				checkInputs(t, cmd, item, operation)
				if cmd.Example == "" || cmd.Short == "" || cmd.Long == "" {
					t.Errorf("help lacks summary, description or example")
				}
			})
		}
	}
	if operations != len(commands) {
		t.Errorf("%d operations but %d commands: one of them is of no operation", operations, len(commands))
	}
}

func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// checkInputs reads the contract by itself, not through opsgen.
func checkInputs(t *testing.T, cmd *cobra.Command, item *openapi3.PathItem, operation *openapi3.Operation) {
	t.Helper()
	for _, ref := range slices.Concat(item.Parameters, operation.Parameters) {
		name := strings.ReplaceAll(strings.ToLower(ref.Value.Name), "_", "-")
		if ref.Value.In == openapi3.ParameterInPath {
			if !strings.Contains(cmd.Use, " "+strings.ToUpper(name)) {
				t.Errorf("no argument for path parameter %s in %q", ref.Value.Name, cmd.Use)
			}
			continue
		}
		if cmd.Flags().Lookup(name) == nil {
			t.Errorf("no flag for parameter %s", ref.Value.Name)
		}
	}
	if operation.RequestBody == nil {
		return
	}
	if cmd.Flags().Lookup("file") == nil {
		t.Errorf("no --file for the body")
	}
	for mediaType, media := range operation.RequestBody.Value.Content {
		if strings.HasSuffix(mediaType, "json") {
			checkProperties(t, cmd, media.Schema.Value, "")
		}
	}
}

func checkProperties(t *testing.T, cmd *cobra.Command, schema *openapi3.Schema, prefix string) {
	t.Helper()
	if len(schema.Properties) == 0 {
		t.Errorf("the contract's body has no properties to check")
	}
	for name, ref := range schema.Properties {
		if ref.Value.ReadOnly {
			continue
		}
		flag := prefix + strings.ReplaceAll(name, "_", "-")
		switch {
		case len(ref.Value.Properties) > 0:
			checkProperties(t, cmd, ref.Value, flag+".")
			continue
		case ref.Value.WriteOnly || ref.Value.Format == "password":
			flag += "-file"
		}
		if cmd.Flags().Lookup(flag) == nil && cmd.Flags().Lookup("body-"+flag) == nil {
			t.Errorf("no flag --%s for property %s", flag, name)
		}
	}
}

// Who types commands knows neither the API's names of operations nor its
// parameters and properties.
func TestHelpSpeaksOfCommandsAndFlagsOnly(t *testing.T) {
	operations := map[string]bool{}
	inputs := map[string]map[string]bool{}
	for _, op := range ops.Table() {
		operations[op.ID] = true
		inputs[op.ID] = map[string]bool{}
		for _, p := range op.Params {
			inputs[op.ID]["`"+p.Name+"`"] = true
		}
		if op.Body != nil {
			for _, p := range op.Body.Properties {
				inputs[op.ID]["`"+strings.Join(p.Path, ".")+"`"] = true
			}
		}
	}
	everyCommand(tree(), func(cmd *cobra.Command) {
		var help strings.Builder
		cmd.SetOut(&help)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		wordEnd := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' }
		for _, word := range strings.FieldsFunc(help.String(), wordEnd) {
			if operations[word] {
				t.Errorf("the help of %q speaks of the operation %s", cmd.CommandPath(), word)
			}
		}
		before, _, _ := strings.Cut(cmd.Long, "The file is like this:")
		for _, word := range strings.Fields(before) {
			if inputs[cmd.Annotations["operationId"]][strings.Trim(word, ".,;:()")] {
				t.Errorf("the help of %q calls an input %s, not by its flag", cmd.CommandPath(), word)
			}
		}
	})
}

func TestWhatHelpSaysOfAnotherOperationIsItsCommand(t *testing.T) {
	got := newDesk(t).run(t, "queue", "cancel", "--help").expect(t, 0)
	if !strings.Contains(strings.Join(strings.Fields(got.stdout), " "), "`relayctl queue operation show OPERATION-ID` shows what they made of it") {
		t.Errorf("the help is\n%s", got.stdout)
	}
	got = newDesk(t).run(t, "token", "rotate", "--help").expect(t, 0)
	if !strings.Contains(got.stdout, "`--overlap-seconds`") {
		t.Errorf("the help is\n%s", got.stdout)
	}
}

// An example that does not parse is worse than none.
func TestEveryExampleIsACommandThatParses(t *testing.T) {
	everyCommand(tree(), func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " > ")
			line, _, _ = strings.Cut(line, " < ")
			t.Run(line, func(t *testing.T) { checkExample(t, cmd, line) })
		}
	})
}

func checkExample(t *testing.T, cmd *cobra.Command, line string) {
	words := shellWords(line)
	if words[0] != command.Program {
		t.Fatalf("the example does not begin with %s", command.Program)
	}
	root := tree()
	found, rest, err := root.Find(words[1:])
	if err != nil {
		t.Fatal(err)
	}
	if cmd != cmd.Root() && found.CommandPath() != cmd.CommandPath() {
		t.Errorf("the example of %q is of %q", cmd.CommandPath(), found.CommandPath())
	}
	if err := found.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	if err := found.ValidateArgs(found.Flags().Args()); err != nil {
		t.Error(err)
	}
	if strings.Contains(line, "…") {
		t.Error("the example has a gap")
	}
}

// shellWords splits as a shell does, as far as examples need it.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	quote, open := rune(0), false
	for _, r := range line {
		switch {
		case r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, open = r, true
		case quote == 0 && r == ' ':
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	return append(words, word.String())
}

// A flag whose help is its own name in other letters helps nobody.
func TestEveryFlagThatHelpShowsIsExplainedByTheContract(t *testing.T) {
	for _, op := range ops.Table() {
		if op.Hidden {
			continue
		}
		for _, p := range op.Params {
			if p.Help == "" {
				t.Errorf("%s: parameter %s has no description", op.ID, p.Name)
			}
		}
		if op.Body == nil {
			continue
		}
		for _, p := range op.Body.Properties {
			if p.Help == "" {
				t.Errorf("%s: property %s has no description", op.ID, p.Pointer())
			}
		}
	}
}

func TestEveryUsualColumnIsAPathOfTheAnswer(t *testing.T) {
	for _, op := range ops.Table() {
		if err := output.Check(op.Columns, op.Paths); err != nil {
			t.Errorf("%s: %v", op.ID, err)
		}
		if len(op.Paths) == 0 && len(op.Columns) > 0 {
			t.Errorf("%s has columns, but nothing is known of its answer", op.ID)
		}
	}
}

func TestReservedFlagsAreThoseThatEveryCommandHas(t *testing.T) {
	have := []string{"content-type", "file", "help", "interval", "version", "watch"} // of some commands, or cobra's
	root := tree()
	for _, name := range ops.Reserved() {
		if root.PersistentFlags().Lookup(name) != nil {
			have = append(have, name)
		}
	}
	slices.Sort(have)
	if !slices.Equal(have, ops.Reserved()) {
		t.Errorf("reserved and not a flag: %v", ops.Reserved())
	}
	for _, op := range ops.Table() {
		for _, p := range op.Params {
			if slices.Contains(ops.Reserved(), p.Flag) {
				t.Errorf("%s has a parameter --%s, which every command has", op.ID, p.Flag)
			}
		}
	}
}

func TestWhatIsBegunCanBeAskedAfter(t *testing.T) {
	table := ops.Table()
	awaited := 0
	for _, op := range table {
		if op.Await == "" {
			continue
		}
		awaited++
		i := slices.IndexFunc(table, func(other ops.Op) bool { return other.ID == op.Await })
		if i < 0 || len(table[i].Arguments()) != 1 || !slices.Contains(table[i].Paths, op.Until) || !slices.Contains(op.Paths, "id") {
			t.Errorf("%s cannot be asked after by %q until %q", op.ID, op.Await, op.Until)
		}
	}
	if awaited < 4 {
		t.Errorf("only %d operations can be waited for", awaited)
	}
}
