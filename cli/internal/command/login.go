package command

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
	"activerelay/cli/internal/output"
	"activerelay/cli/internal/profile"
)

// login stores a server and a token as a context, once the server has taken the
// token.
func (a *app) login() *cobra.Command {
	return &cobra.Command{
		Use:   "login",
		Short: "Store a server and a token as a context",
		Long: "Checks the token against the server and stores both as a context, which later commands use.\n" +
			"The token comes from --token-file FILE, from standard input with --token -, from RELAYCTL_TOKEN,\n" +
			"or is asked for. The file is readable by you only. --context names the context (\"default\" otherwise).",
		Example: "  relayctl login --url https://relay.example.com --token-file operator.token\n" +
			"  relayctl login --url https://relay.example.com --context acme --token - < acme.token",
		Args:        takes(),
		Annotations: map[string]string{makesConfig: "yes"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.runLogin(cmd) },
	}
}

func (a *app) runLogin(cmd *cobra.Command) error {
	file, err := a.settle(cmd)
	if err != nil {
		return err
	}
	whoAmI, err := a.whoAmI()
	if err != nil {
		return err
	}
	if err := output.Check(a.flags.columns, whoAmI.Paths); err != nil {
		return err
	}
	name, target, err := a.credentials(cmd.Context(), file)
	if err != nil {
		return err
	}
	identity, err := a.identity(cmd, whoAmI, target)
	if err != nil {
		return err
	}
	if target.CAFile != "" {
		if target.CAFile, err = filepath.Abs(target.CAFile); err != nil {
			return fmt.Errorf("finding the file of certificates: %w", err)
		}
	}
	file.Contexts[name] = profile.Context{URL: target.URL, Token: target.Token, CAFile: target.CAFile}
	file.Current = name
	if err := a.save(file, fmt.Sprintf("Context %s stored in %s and in use.", name, file.Path)); err != nil {
		return err
	}
	a.warnOfEnvironment(name)
	printer, err := a.printer()
	if err != nil {
		return err
	}
	return printer.Print(identity, output.Shape{Columns: []string{"name", "role"}})
}

// credentials finds what to store. The context that is logged in to need not
// exist yet, so it is no source of anything but its URL.
func (a *app) credentials(ctx context.Context, file *profile.File) (string, profile.Target, error) {
	env := a.environment()
	name := firstOf(a.flags.context, env.Context, file.Current, "default")
	env.Context = ""
	flags := profile.Source{URL: a.flags.url, Token: a.flags.token, TokenFile: a.flags.tokenFile, CAFile: a.flags.ca}
	if flags.URL == "" && env.URL == "" {
		flags.URL, flags.CAFile = file.Contexts[name].URL, firstOf(flags.CAFile, file.Contexts[name].CAFile)
	}
	anonymous := *file
	anonymous.Current = ""
	target, err := anonymous.Resolve(flags, env, a.Stdin)
	if err != nil || target.Token != "" {
		return name, target, err
	}
	if !a.StdinTTY || a.ReadSecret == nil {
		return "", target, failure.Usagef("no token: say --token-file FILE, or --token - to read it from standard input")
	}
	target.TokenFrom = "the prompt"
	target.Token, err = a.askSecret(ctx, "token")
	return name, target, err
}

func firstOf(texts ...string) string {
	i := slices.IndexFunc(texts, func(text string) bool { return text != "" })
	if i < 0 {
		return ""
	}
	return texts[i]
}

// whoAmI is the operation that says whose token it is.
func (a *app) whoAmI() (*ops.Op, error) {
	i := slices.IndexFunc(a.Table, func(op ops.Op) bool { return op.ID == "whoAmI" })
	if i < 0 {
		return nil, fmt.Errorf("the contract has no operation whoAmI")
	}
	return &a.Table[i], nil
}

// identity asks the server whose token it is.
func (a *app) identity(cmd *cobra.Command, whoAmI *ops.Op, target profile.Target) (any, error) {
	client, err := a.client(target)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	answer, err := client.Do(cmd.Context(), invoke.Call{Op: whoAmI})
	if err != nil {
		return nil, blamed(target, err)
	}
	return answer.Value, nil
}
