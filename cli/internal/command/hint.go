package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
	"activerelay/cli/internal/profile"
)

// hint names the next command where one helps.
func (a *app) hint(cmd *cobra.Command, s *session, op *ops.Op, args []string, err error) error {
	var known *failure.Error
	err = blamed(s.target, err)
	if !errors.As(err, &known) || known.Next != "" {
		return err
	}
	switch {
	case known.Code == failure.Auth:
		known.Next = Program + " whoami"
	case known.Reason == "precondition-failed":
		known.Next = a.sibling(op, "GET", op.Path, args)
	case known.Reason == "quota-reached" && len(args) > 0:
		known.Next = Program + " quota show " + args[0]
	case known.Code == failure.NotFound:
		known.Next = a.instead(op, args, known.Detail)
	case known.Code == failure.Usage:
		known.Next = cmd.CommandPath() + " --help"
	}
	return err
}

// blamed says of a URL where no server was, and of a token that the server did
// not take, where it came from.
func blamed(target profile.Target, err error) error {
	var known *failure.Error
	switch {
	case !errors.As(err, &known) || known.Next != "":
		return err
	case known.Title == invoke.NotReached || known.Title == invoke.NotOurs:
		known.Next = fmt.Sprintf("%s health ready --url URL, with the right one; this one is from %s", Program, target.URLFrom)
		if target.URLFrom == "" {
			known.Next = fmt.Sprintf("%s login --url URL; nothing says where the server is, so the usual place was tried", Program)
		}
		return err
	case known.Reason != "unauthenticated" || target.TokenFrom == "":
		return err
	}
	known.Detail = strings.TrimPrefix(strings.TrimSuffix(known.Detail, ".")+"; the token from "+target.TokenFrom+" was refused", "; ")
	switch {
	case strings.HasPrefix(target.TokenFrom, "RELAYCTL_"):
		known.Next = fmt.Sprintf("set %s to a token that is valid, or unset it and pass --context NAME", target.TokenFrom)
	case strings.HasPrefix(target.TokenFrom, "context "):
		known.Next = fmt.Sprintf("%s login --url %s --context %s", Program, target.URL, target.Context)
	default:
		known.Next = fmt.Sprintf("%s login --url %s", Program, target.URL)
	}
	return err
}

// instead names what helps where something does not exist: the list of what was
// named, the command that makes it, or the list that the path is about.
func (a *app) instead(op *ops.Op, args []string, detail string) string {
	_, kind, _ := strings.Cut(strings.ToLower(detail), "no such ")
	kind = strings.ReplaceAll(strings.Trim(kind, ". "), " ", "-")
	i := slices.IndexFunc(a.Table, func(other ops.Op) bool {
		return other.Verb == "list" && slices.Equal(other.Group, []string{kind})
	})
	if i >= 0 {
		return Program + " " + a.Table[i].Command()
	}
	if op.Absent != "" {
		return filled(op.Absent, op, args)
	}
	i = slices.IndexFunc(a.Table, func(other ops.Op) bool { return other.Method == "PUT" && other.Path == op.Path })
	if i >= 0 && len(op.Group) > 1 && op.Method != "PUT" {
		return strings.Join(append([]string{Program, a.Table[i].Command()}, args...), " ") + required(a.Table[i].Body)
	}
	if len(args) == 0 {
		return ""
	}
	return a.sibling(op, "GET", collection(op.Path), nil)
}

// filled puts the arguments where a text of the contract names them.
func filled(text string, op *ops.Op, args []string) string {
	for i, p := range op.Arguments() {
		text = strings.ReplaceAll(text, "{"+p.Name+"}", args[i])
	}
	return text
}

// required are the flags that a body needs, as a command line to fill in.
func required(body *ops.Body) string {
	var b strings.Builder
	for _, p := range body.Properties {
		if p.Required {
			fmt.Fprintf(&b, " --%s %s", p.Input(), (&input{field: p.Field}).Type())
		}
	}
	return b.String()
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
