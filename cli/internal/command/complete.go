package command

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
)

// completionTimeout bounds what a press of the tab key may wait for.
const completionTimeout = 2 * time.Second

// maxOffered is how many objects are asked for.
const maxOffered = 1000

// completeObjects completes arguments and flags that name an object of the
// platform with the names of those that the server lists.
func (a *app) completeObjects(cmd *cobra.Command, op *ops.Op) {
	arguments := op.Arguments()
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(arguments) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.names(cmd, arguments[len(args)].Name, prefix)
	}
	for flag, parameter := range map[string]string{"partner": "partner", "domain": "domain", "edge": "edge_id", "message-ids": "message_id"} {
		if cmd.Flags().Lookup(flag) == nil {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
			last := strings.LastIndexByte(text, ',') + 1 // of a flag that takes several, the last one is being typed
			found, directive := a.names(cmd, parameter, text[last:])
			for i := range found {
				found[i] = text[:last] + found[i]
			}
			return found, directive
		})
	}
}

// names lists the keys of the objects that a path parameter names. What goes
// wrong is not said, and what had come is offered: completion has no place for a
// complaint.
func (a *app) names(cmd *cobra.Command, parameter, prefix string) ([]string, cobra.ShellCompDirective) {
	const nothing = cobra.ShellCompDirectiveNoFileComp
	list := a.lister(parameter)
	if list == nil {
		return nil, nothing
	}
	a.flags.retries = 0
	s, err := a.open(cmd)
	if err != nil {
		return nil, nothing
	}
	defer s.client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	call := invoke.Call{Op: list, Params: map[string][]string{}}
	if _, takes := list.Param(ops.Query, "prefix"); takes && prefix != "" {
		call.Params["prefix"] = []string{prefix}
	}
	var found []string
	for answer, err := range s.client.Pages(ctx, call, maxOffered) {
		if err != nil {
			break
		}
		for _, row := range invoke.Rows(answer.Value, list.Rows) {
			object, _ := row.(map[string]any)
			if key, _ := object[list.Columns[0]].(string); key != "" && strings.HasPrefix(key, prefix) {
				found = append(found, key)
			}
		}
	}
	return slices.Compact(found), nothing
}

// lister is the list of the objects that the path parameter names; the first of
// its columns is their key.
func (a *app) lister(parameter string) *ops.Op {
	i := slices.IndexFunc(a.Table, func(op ops.Op) bool { return strings.HasSuffix(op.Path, "/{"+parameter+"}") })
	if i < 0 {
		return nil
	}
	path := strings.TrimSuffix(a.Table[i].Path, "/{"+parameter+"}")
	i = slices.IndexFunc(a.Table, func(op ops.Op) bool {
		return op.Method == "GET" && op.Path == path && op.Rows != "" && len(op.Columns) > 0
	})
	if i < 0 {
		return nil
	}
	return &a.Table[i]
}
