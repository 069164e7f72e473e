package command

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/output"
)

// takes refuses too few and too many arguments by name; one in brackets may be
// left out.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		fault := &failure.Error{Code: failure.Usage, Next: cmd.CommandPath() + " --help"}
		switch {
		case len(given) < len(names) && !strings.HasPrefix(names[len(given)], "["):
			fault.Detail = fmt.Sprintf("%s needs %s", commandWords(cmd), names[len(given)])
		case len(given) > len(names):
			fault.Detail = fmt.Sprintf("%s does not take %q", commandWords(cmd), given[len(names)])
		default:
			return nil
		}
		return fault
	}
}

// man writes the manual pages, the same bytes from the same program.
func (a *app) man() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Write manual pages, one for each command",
		Long:    "Writes the manual page of every command into the directory, which is made if need be.",
		Example: "  relayctl man /usr/local/share/man/man1",
		Args:    takes("DIRECTORY"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("making the directory: %w", err)
			}
			a.root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "Active Relay", Manual: "Active Relay manual", Date: &time.Time{}}
			if err := doc.GenManTree(a.root, header, args[0]); err != nil {
				return fmt.Errorf("writing the manual: %w", err)
			}
			return exitStatus(filepath.Join(args[0], Program+".1"))
		},
	}
}

// exitStatus adds the exit codes to the program's own page.
func exitStatus(page string) error {
	file, err := os.OpenFile(page, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("writing the manual: %w", err)
	}
	fmt.Fprint(file, "\n.SH EXIT STATUS\n")
	for _, m := range failure.Codes() {
		fmt.Fprintf(file, ".TP\n\\fB%d\\fP\n%s\n", m.Code, m.Text)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("writing the manual: %w", err)
	}
	return nil
}

// version says which program this is.
func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program",
		Long:    "Shows the version of this program. `relayctl health ready` shows the server's.",
		Example: "  relayctl version",
		Args:    takes(),
		RunE: func(*cobra.Command, []string) error {
			return a.show(map[string]any{
				"version": a.Version, "go": strings.TrimPrefix(runtime.Version(), "go"), "platform": runtime.GOOS + "/" + runtime.GOARCH,
			}, output.Shape{Columns: []string{"version", "go", "platform"}})
		},
	}
}
