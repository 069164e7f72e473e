package command

import (
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
	"activerelay/cli/internal/output"
)

// run executes one row.
func (a *app) run(cmd *cobra.Command, op *ops.Op, in *inputs, args []string) error {
	if err := in.watch.check(cmd); err != nil {
		return err
	}
	if in.wait < 0 {
		return failure.Usagef("--wait takes a positive duration such as 30s, not %s", in.wait)
	}
	if in.watch.on {
		a.flags.retries = 0 // the next look is the retry
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.client.Close()
	call := invoke.Call{Op: op, Arguments: pasted(op, args)}
	if call.Params, err = in.parameters(op); err != nil {
		return a.hint(cmd, s, op, args, err)
	}
	if call.Body, err = a.body(cmd.Context(), op, in); err != nil {
		return a.hint(cmd, s, op, args, err)
	}
	if err := output.Check(a.flags.columns, op.Paths); err != nil {
		return err
	}
	if a.flags.dryRun {
		return s.client.Show(cmd.Context(), a.Stdout, call)
	}
	if err := s.needToken(op.Public); err != nil {
		return err
	}
	if err := a.confirm(cmd.Context(), op, args); err != nil {
		return err
	}
	if in.watch.on {
		return a.hint(cmd, s, op, args, a.watch(cmd, s, call, in.watch))
	}
	a.line.waiting(call)
	defer a.line.clear()
	return a.hint(cmd, s, op, args, a.perform(cmd, s, call, in.wait))
}

// pasted takes a reference as replies to mail show it, "(ref=01K…)", for the
// reference itself.
func pasted(op *ops.Op, args []string) []string {
	cleaned := slices.Clone(args)
	for i, p := range op.Arguments() {
		if p.Name == "ref" {
			cleaned[i] = strings.TrimPrefix(strings.Trim(args[i], " ()[]<>.,;"), "ref=")
		}
	}
	return cleaned
}

// needToken refuses a call that can only end in 401.
func (s *session) needToken(public bool) error {
	if public || s.target.Token != "" {
		return nil
	}
	return &failure.Error{
		Code: failure.Auth, Title: "No token", Detail: "there is no token for " + s.target.URL,
		Next: "relayctl login --url " + s.target.URL,
	}
}

// perform makes the call and prints the answer.
func (a *app) perform(cmd *cobra.Command, s *session, call invoke.Call, wait time.Duration) error {
	if call.Op.Raw || call.Op.Stream {
		return a.copy(cmd, s, call)
	}
	if wait > 0 {
		return a.await(cmd.Context(), s, call, wait)
	}
	shape := output.Shape{Rows: call.Op.Rows, Columns: call.Op.Columns}
	var last *invoke.Answer
	pages := func(yield func(any, error) bool) {
		for answer, err := range s.client.Pages(cmd.Context(), call, a.flags.maxItems) {
			if err != nil {
				yield(nil, err)
				return
			}
			last = answer
			if !yield(answer.Value, nil) {
				return
			}
		}
	}
	first, rest, err := peek(pages)
	a.line.clear()
	if err != nil {
		return err
	}
	shape.ETag, shape.Then = last.Header.Get("ETag"), then(call.Op, first, s.target.URL)
	if err := s.printer.Pages(a.cut(rest, call.Op.Rows), shape); err != nil {
		return err
	}
	if first == nil {
		a.note(call.Op.Summary + ": done.")
	}
	return a.verdict(call.Op, last)
}

// then is what to do with the answer.
func then(op *ops.Op, answer any, url string) string {
	text := strings.ReplaceAll(op.Then, "{url}", url)
	object, _ := answer.(map[string]any)
	for name := range object {
		text = strings.ReplaceAll(text, "{"+name+"}", field(answer, name))
	}
	return text
}

// peek takes the first page of a sequence, so that its answer is known before
// anything is printed, and returns the sequence with it back in front.
func peek(pages iter.Seq2[any, error]) (any, iter.Seq2[any, error], error) {
	next, stop := iter.Pull2(pages)
	first, err, _ := next()
	if err != nil {
		stop()
		return nil, nil, err
	}
	return first, func(yield func(any, error) bool) {
		defer stop()
		for value, err, more := first, error(nil), true; more && yield(value, err); {
			value, err, more = next()
		}
	}, nil
}

// cut drops what a page holds beyond --max-items.
func (a *app) cut(pages iter.Seq2[any, error], rows string) iter.Seq2[any, error] {
	most := a.flags.maxItems
	if most == 0 || rows == "" {
		return pages
	}
	return func(yield func(any, error) bool) {
		left := most
		for page, err := range pages {
			list := invoke.Rows(page, rows)
			if object, ok := page.(map[string]any); ok && len(list) > left {
				object[rows] = list[:left]
			}
			left -= min(left, len(list))
			if !yield(page, err) || left == 0 {
				return
			}
		}
	}
}

// copy writes an answer that is not ours to format as it comes.
func (a *app) copy(cmd *cobra.Command, s *session, call invoke.Call) error {
	answer, err := s.client.Do(cmd.Context(), call)
	if err != nil {
		return err
	}
	if answer.Body == nil {
		return s.printer.Print(answer.Value, output.Shape{Rows: call.Op.Rows, Columns: call.Op.Columns})
	}
	defer answer.Body.Close()
	if _, err := io.Copy(a.Stdout, answer.Body); err != nil {
		if cmd.Context().Err() != nil {
			return cmd.Context().Err()
		}
		return fmt.Errorf("copying the answer: %w", err)
	}
	return nil
}

// verdict turns an answer that was shown, and that is not good news, into an
// exit code: a service that is not ready, a batch of which a part failed. What
// is wrong with each entry of the batch is said beside the answer.
func (a *app) verdict(op *ops.Op, answer *invoke.Answer) error {
	if answer.Status == http.StatusServiceUnavailable {
		return &failure.Error{Code: failure.Unavailable, Title: "Not ready"}
	}
	object, _ := answer.Value.(map[string]any)
	failed := fmt.Sprint(object["failed"])
	if _, counted := object["failed"]; counted && failed != "0" {
		for _, entry := range invoke.Rows(answer.Value, op.Rows) {
			if err := invoke.Entry(entry); err != nil {
				object, _ := entry.(map[string]any)
				failure.Render(a.Stderr, fmt.Sprint(object["name"]), err)
			}
		}
		return &failure.Error{Code: failure.Failed, Title: failed + " failed", Detail: "the others went through"}
	}
	return nil
}
