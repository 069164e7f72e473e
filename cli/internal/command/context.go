package command

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/output"
	"activerelay/cli/internal/profile"
)

// contexts manages the contexts of the configuration file. Tokens are never
// shown.
func (a *app) contexts() *cobra.Command {
	group := &cobra.Command{
		Use: "context", Short: "Servers and tokens that are stored on this machine", Args: cobra.ArbitraryArgs, RunE: groupRun,
	}
	group.AddCommand(
		a.contextCommand("list", "List contexts", "relayctl context list", a.listContexts),
		a.contextCommand("show [NAME]", "Show a context, the one in use if none is named", "relayctl context show", a.showContext),
		a.contextCommand("use NAME", "Use a context from now on", "relayctl context use acme", a.useContext),
		a.contextCommand("delete NAME", "Delete a context from this machine; its token stays valid", "relayctl context delete acme", a.deleteContext),
	)
	return group
}

func (a *app) contextCommand(use, short, example string, do func(context.Context, *profile.File, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: short + ".", Example: "  " + example,
		Args: takes(strings.Fields(use)[1:]...),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			file, err := a.settle(cmd)
			if err != nil || len(args) > 0 || use == "list" {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return slices.Sorted(maps.Keys(file.Contexts)), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := a.settle(cmd)
			if err != nil {
				return err
			}
			return do(cmd.Context(), file, args)
		},
	}
}

func (a *app) listContexts(_ context.Context, file *profile.File, _ []string) error {
	rows := []any{}
	for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
		rows = append(rows, describe(file, name))
	}
	return a.show(map[string]any{"items": rows}, output.Shape{Rows: "items", Columns: []string{"name", "url", "in_use", "token"}})
}

func (a *app) showContext(_ context.Context, file *profile.File, args []string) error {
	name := firstOf(append(slices.Clone(args), a.flags.context, a.Getenv("RELAYCTL_CONTEXT"), file.Current)...)
	if _, err := file.Context(name); err != nil {
		return err
	}
	return a.show(describe(file, name), output.Shape{Columns: []string{"name", "url", "in_use", "token"}})
}

func (a *app) useContext(_ context.Context, file *profile.File, args []string) error {
	if _, err := file.Context(args[0]); err != nil {
		return err
	}
	file.Current = args[0]
	if err := a.save(file, fmt.Sprintf("Context %s is in use.", args[0])); err != nil {
		return err
	}
	a.warnOfEnvironment(args[0])
	return nil
}

// warnOfEnvironment says which variables win over the context now in use.
func (a *app) warnOfEnvironment(context string) {
	for _, variable := range []string{"RELAYCTL_URL", "RELAYCTL_TOKEN", "RELAYCTL_TOKEN_FILE", "RELAYCTL_CONTEXT"} {
		if value := a.Getenv(variable); value != "" && value != context {
			a.note(fmt.Sprintf("%s is set and wins over the context in use: unset it, or pass --context %s.", variable, context))
		}
	}
}

func (a *app) deleteContext(ctx context.Context, file *profile.File, args []string) error {
	if _, err := file.Context(args[0]); err != nil {
		return err
	}
	if err := a.ask(ctx, fmt.Sprintf("Delete context %s from %s?", args[0], file.Path)); err != nil {
		return err
	}
	delete(file.Contexts, args[0])
	if file.Current == args[0] {
		file.Current = ""
	}
	return a.save(file, fmt.Sprintf("Context %s deleted.", args[0]))
}

// save writes the configuration, unless this is a dry run, and says so.
func (a *app) save(file *profile.File, done string) error {
	if a.flags.dryRun {
		a.note("Dry run: " + file.Path + " is left as it is.")
		return nil
	}
	if err := file.Save(); err != nil {
		return err
	}
	a.note(done)
	return nil
}

// describe is a context without its token.
func describe(file *profile.File, name string) map[string]any {
	stored := file.Contexts[name]
	token := "none"
	switch {
	case stored.Token != "":
		token = "stored"
	case stored.TokenFile != "":
		token = "in " + stored.TokenFile
	}
	return map[string]any{"name": name, "url": stored.URL, "in_use": name == file.Current, "token": token}
}

// printer is the one that the flags ask for.
func (a *app) printer() (*output.Printer, error) {
	color, err := a.colored()
	if err != nil {
		return nil, err
	}
	width := 0
	if a.StdoutTTY {
		width, _ = a.size()
	}
	return output.New(output.Config{
		Out: a.Stdout, Notes: a.Stderr, Format: a.flags.output, Columns: a.flags.columns,
		NoHeaders: a.flags.noHeaders, JQ: a.flags.jq, Color: color, Width: width,
	})
}

// show prints a value of our own making.
func (a *app) show(value any, shape output.Shape) error {
	printer, err := a.printer()
	if err != nil {
		return err
	}
	if err := output.Check(a.flags.columns, shape.Columns); err != nil {
		return err
	}
	return printer.Print(value, shape)
}
