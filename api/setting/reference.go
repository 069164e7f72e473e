package setting

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Usage answers the help of the program: every flag with its variable.
func (s *Set) Usage() string {
	return s.Flags.FlagUsagesWrapped(110) + fmt.Sprintf("\nEach flag is also an environment variable (--data-dir: %s) and a key of the --config file.\n", s.Variable("data-dir"))
}

// Markdown answers the reference of all settings as a table, in the order in which they were defined.
func (s *Set) Markdown() string {
	var b strings.Builder
	b.WriteString("| flag and key | variable | default | meaning |\n|---|---|---|---|\n")
	s.Flags.VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		value := ""
		if f.DefValue != "" && f.DefValue != "[]" {
			value = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", f.Name, s.Variable(f.Name), value, strings.ReplaceAll(usage, "|", `\|`))
	})
	return b.String()
}
