package command

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// hint names the next command where one helps.
func (a *app) hint(cmd *cobra.Command, op *ops.Op, args []string, err error) error {
	var known *failure.Error
	if !errors.As(err, &known) || known.Next != "" {
		return err
	}
	switch {
	case known.Reason == "unauthenticated":
		known.Next = Program + " login"
	case known.Code == failure.Auth:
		known.Next = Program + " whoami"
	case known.Reason == "precondition-failed":
		known.Next = a.sibling(op, "GET", op.Path, args)
	case known.Reason == "quota-reached" && len(args) > 0:
		known.Next = Program + " quota show " + args[0]
	case known.Code == failure.NotFound && len(args) > 0:
		known.Next = a.sibling(op, "GET", collection(op.Path), nil)
	case known.Code == failure.Usage:
		known.Next = cmd.CommandPath() + " --help"
	}
	return err
}

// sibling is the command line of the operation with that method and path.
func (a *app) sibling(op *ops.Op, method, path string, args []string) string {
	for i := range a.Table {
		other := &a.Table[i]
		if other.Method == method && other.Path == path && other.ID != op.ID {
			return strings.Join(append([]string{Program, other.Command()}, args...), " ")
		}
	}
	return ""
}

// collection is the path of the list that an object is in:
// /v1/domains/{domain}/quota is about one of /v1/domains.
func collection(path string) string {
	before, _, _ := strings.Cut(path, "/{")
	return before
}
