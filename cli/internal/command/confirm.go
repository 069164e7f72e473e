package command

import (
	"bufio"
	"fmt"
	"strings"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// confirm asks before a destructive operation. Where nobody can be asked it
// takes --yes for the answer and nothing else.
func (a *app) confirm(op *ops.Op, args []string) error {
	if op.Confirm == "" {
		return nil
	}
	question := op.Confirm
	for i, p := range op.Arguments() {
		question = strings.ReplaceAll(question, "{"+p.Name+"}", args[i])
	}
	return a.ask(question)
}

func (a *app) ask(question string) error {
	if a.flags.yes {
		return nil
	}
	question = failure.Printable(question)
	if !a.StdinTTY {
		return failure.Usagef("%s Nobody can be asked here; say --yes to go ahead", question)
	}
	fmt.Fprintf(a.Stderr, "%s [y/N] ", question)
	line, _ := bufio.NewReader(a.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return &failure.Error{Code: failure.Failed, Title: "Not done"}
}
