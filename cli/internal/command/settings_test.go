package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"activerelay/cli/internal/ops"
)

func TestEveryFlagHasAnEnvironmentVariableOfItsOwn(t *testing.T) {
	config := Config{
		Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{},
		Getenv: func(string) string { return "" }, Table: ops.Table(), Resources: ops.Resources(),
	}
	a := &app{Config: config, root: Root(config)}
	owners := map[string]string{}
	own := func(cmd *cobra.Command) func(*pflag.Flag) {
		return func(f *pflag.Flag) {
			variable, owner := a.variable(cmd, f.Name), cmd.CommandPath()+" --"+f.Name
			if other, taken := owners[variable]; taken {
				t.Errorf("%s is the variable of %s and of %s", variable, other, owner)
			}
			owners[variable] = owner
		}
	}
	a.root.PersistentFlags().VisitAll(own(a.root))
	for _, cmd := range leaves(a.root) {
		cmd.LocalNonPersistentFlags().VisitAll(own(cmd))
	}
	if owners["RELAYCTL_OUTPUT"] != "relayctl --output" || owners["RELAYCTL_DOMAIN_LIST_STATUS"] != "relayctl domain list --status" {
		t.Errorf("among %d variables the documented ones are missing", len(owners))
	}
}
