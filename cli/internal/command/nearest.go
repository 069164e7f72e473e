package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"activerelay/cli/internal/failure"
)

// flagFault words what pflag says of the flags of a command line, and names
// the flag that was meant where one is near.
func flagFault(cmd *cobra.Command, err error) error {
	fault := &failure.Error{Code: failure.Usage, Detail: err.Error(), Next: cmd.CommandPath() + " --help"}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
		if like := nearest(unknown.GetSpecifiedName(), flagNames(cmd.Flags())); like != "" {
			fault.Detail += fmt.Sprintf("; did you mean --%s?", like)
		}
	}
	return fault
}

// nearest is the name that a misspelt one is likely to be, empty where none is:
// one that begins or ends so, or one that a few strokes make of it.
func nearest(word string, names []string) string {
	best, fewest := "", 1+min(2, len(word)/3)
	for _, name := range names {
		strokes := distance(word, name)
		if len(word) > 2 && (strings.HasPrefix(name, word+"-") || strings.HasSuffix(name, "-"+word)) {
			strokes = min(strokes, 1)
		}
		if strokes < fewest {
			best, fewest = name, strokes
		}
	}
	return best
}

// distance is how many letters have to be put, taken or changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
