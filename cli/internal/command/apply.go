package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/apply"
	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/output"
)

const applyLong = `Makes partners, domains, relay IPs, routes and users be as the file says. The plan is shown first; on a terminal
it is asked for. Applying a file again changes nothing. Only properties that the file names are changed; null
clears one. Nothing is deleted without --prune, and then only what the file could have named: objects of a section
that the file has, of domains and partners that it names.

The file is YAML, with lists by section, or with one document for each object that says its kind:

  partners:
    - {slug: acme, name: Acme IT, support_contact: support@acme.example}
  domains:
    - {name: example.com, partner: acme, licensed_users: 40, contacts: [admin@example.com]}
  relay_ips:
    - {domain: example.com, address: 192.0.2.10, state: active, comment: head office}
  routes:
    - {domain: example.com, host: smarthost.example.net, port: 587, tls: required, username: relay, password_file: smarthost.secret}
  users:
    - {address: anna@example.com, aliases: [sales@example.com]}
  ---
  kind: domain
  name: example.net
  partner: acme

A user without a password gets one, which is shown once. Passwords of objects that have one cannot be compared and
are left alone without --set-passwords. partners, domains and users may say status (active or suspended) and
status_reason; relay IPs state (requested, active or disabled) and reason.

What cannot be done is reported and the rest goes on. The exit code is then 1 where anything was changed, and that of
the first failure where nothing was.`

// apply makes the platform be as a file says.
func (a *app) apply() *cobra.Command {
	var file string
	var planner apply.Planner
	cmd := &cobra.Command{
		Use:     "apply -f FILE",
		Short:   "Make partners, domains, relay IPs, routes and users be as a file says",
		Long:    applyLong,
		Example: "  relayctl apply -f customers.yaml --dry-run\n  relayctl apply -f customers.yaml --yes",
		Args:    takes(),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` that says what should be, or - for standard input (required)")
	cmd.Flags().BoolVar(&planner.Prune, "prune", false, "delete what the file does not name")
	cmd.Flags().BoolVar(&planner.SetPasswords, "set-passwords", false, "set passwords of users and routes that have one already")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.runApply(cmd, planner, &file) }
	return cmd
}

func (a *app) runApply(cmd *cobra.Command, planner apply.Planner, file *string) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.client.Close()
	if *file == "" {
		return &failure.Error{Code: failure.Usage, Detail: "apply needs -f FILE", Next: "relayctl apply --help"}
	}
	if err := output.Check(a.flags.columns, []string{"action", "changes", "kind", "name", "password", "source"}); err != nil {
		return err
	}
	text, err := a.readFile(cmd.Context(), "file", *file)
	if err != nil {
		return err
	}
	wanted, err := apply.Read(*file, text, a.Table)
	if err != nil {
		return err
	}
	if err := s.needToken(false); err != nil {
		return err
	}
	planner.Client, planner.Table, planner.ReadFile = s.client, a.Table, os.ReadFile
	planner.Progress = a.line.counting("Comparing with the server")
	plan, err := planner.Plan(cmd.Context(), wanted)
	a.line.clear()
	if err != nil {
		return blamed(s.target, err)
	}
	if a.flags.dryRun {
		return s.printer.Print(planned(plan), output.Shape{Rows: "items", Columns: []string{"action", "kind", "name", "changes"}})
	}
	if err := a.approve(cmd.Context(), s, plan); err != nil {
		return err
	}
	results := plan.Execute(cmd.Context(), a.line.counting("Applying"))
	a.line.clear()
	return a.report(s, results)
}

// approve shows the plan beside the answer and asks. Where nobody can be asked,
// only deletions need --yes.
func (a *app) approve(ctx context.Context, s *session, plan *apply.Plan) error {
	changes, deletions := plan.Pending()
	if changes == 0 {
		return nil
	}
	shown := planned(plan)
	rows, _ := shown["items"].([]any)
	shown["items"] = slices.DeleteFunc(slices.Clone(rows), func(row any) bool {
		return row.(map[string]any)["action"] == string(apply.Unchanged)
	})
	if err := s.printer.Plain().Print(shown, output.Shape{Rows: "items", Columns: []string{"action", "kind", "name", "changes"}}); err != nil {
		return err
	}
	if deletions == 0 && !a.StdinTTY {
		return nil
	}
	question := "Make " + count(changes, "change")
	switch {
	case deletions == 1 && changes == 1:
		question += ", a deletion"
	case deletions == 1:
		question += ", one of them a deletion"
	case deletions > 1:
		question += fmt.Sprintf(", %d of them deletions", deletions)
	}
	return a.ask(ctx, question+"?")
}

func planned(plan *apply.Plan) map[string]any {
	rows := []any{}
	counts := map[apply.Action]int{}
	for _, step := range plan.Steps {
		counts[step.Action]++
		rows = append(rows, row(step, string(step.Action)))
	}
	return map[string]any{
		"items": rows, "create": number(counts[apply.Create]), "update": number(counts[apply.Update]),
		"unchanged": number(counts[apply.Unchanged]), "delete": number(counts[apply.Delete]),
	}
}

func row(step apply.Step, action string) map[string]any {
	return map[string]any{"action": action, "kind": step.Kind, "name": step.Name, "changes": step.Changes, "source": step.Source}
}

// report prints what became of every step, then the failures.
func (a *app) report(s *session, results []apply.Result) error {
	done := map[apply.Action]string{apply.Create: "created", apply.Update: "updated", apply.Unchanged: "unchanged", apply.Delete: "deleted"}
	columns := []string{"action", "kind", "name", "changes"}
	rows := []any{}
	counts := map[string]int{}
	var failed []apply.Result
	changed := false
	for _, r := range results {
		changed = changed || r.Changed
		outcome := done[r.Action]
		if r.Err != nil {
			outcome = "failed"
			failed = append(failed, r)
		}
		counts[outcome]++
		shown := row(r.Step, outcome)
		if r.Password != "" {
			shown["password"] = r.Password
			if !slices.Contains(columns, "password") {
				columns = append(columns, "password")
			}
		}
		rows = append(rows, shown)
	}
	answer := map[string]any{"items": rows}
	for _, outcome := range []string{"created", "updated", "unchanged", "deleted", "failed"} {
		answer[outcome] = number(counts[outcome])
	}
	if err := s.printer.Print(answer, output.Shape{Rows: "items", Columns: columns}); err != nil {
		return err
	}
	return a.failures(failed, changed)
}

// failures renders every failure and returns what they come to: the code of the
// first where nothing was changed, since that code may promise it.
func (a *app) failures(failed []apply.Result, changed bool) error {
	if len(failed) == 0 {
		return nil
	}
	for _, r := range failed {
		failure.Render(a.Stderr, fmt.Sprintf("%s %s (%s)", r.Kind, r.Name, r.Source), r.Err)
	}
	first := failed[0].Err
	if errors.Is(first, context.Canceled) {
		return first
	}
	total := &failure.Error{
		Code: failure.CodeOf(first), Cause: first,
		Title: count(len(failed), "object") + " failed", Detail: "the others are as the file says; mend and apply again",
	}
	if changed {
		total.Code = failure.Failed
	}
	return total
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func number(n int) json.Number { return json.Number(fmt.Sprint(n)) }
