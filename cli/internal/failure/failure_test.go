package failure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"activerelay/api/reason"
)

func TestEveryErrorHasAnExitCode(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want Code
	}{
		{"none", nil, OK},
		{"one of ours", Usagef("x"), Usage},
		{"one of ours, wrapped", fmt.Errorf("apply: %w", &Error{Code: Conflict}), Conflict},
		{"an interrupt", fmt.Errorf("call: %w", context.Canceled), Interrupted},
		{"any other", errors.New("x"), Failed},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// The reason registry gives exit codes too; both lists are documented.
func TestTheCodesAreThoseOfTheReasonRegistry(t *testing.T) {
	documented := map[Code]bool{}
	for _, m := range Codes() {
		if documented[m.Code] || m.Text == "" {
			t.Errorf("code %d stands twice or means nothing", m.Code)
		}
		documented[m.Code] = true
	}
	for _, r := range reason.All() {
		if !documented[Code(r.Exit)] || r.Exit == 0 {
			t.Errorf("reason %s ends with %d, which is not documented", r.Slug, r.Exit)
		}
	}
	for code, exit := range map[Code]reason.Exit{
		Failed: reason.ExitFailure, Usage: reason.ExitUsage, NotFound: reason.ExitNotFound, Auth: reason.ExitAuth,
		Conflict: reason.ExitConflict, Limit: reason.ExitLimit, Unavailable: reason.ExitUnavailable, Pending: reason.ExitPending,
	} {
		if int(code) != int(exit) {
			t.Errorf("code %d is %d in the registry", code, exit)
		}
	}
}

func TestAnErrorIsRenderedOnePieceToALine(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"any", errors.New("x\ny"), "relayctl: x y\n"},
		{"title only", &Error{Title: "Not ready"}, "relayctl: Not ready\n"},
		{"all", &Error{
			Title: "Invalid", Detail: "two fields",
			Fields: []Field{
				{Pointer: "/a", Flag: "a", Rule: "enum", Message: "is odd", Choices: []string{"x", "y"}},
				{Pointer: "query/b", Message: "is odd too"},
			},
			Reason: "invalid-request", Reference: "ref1", RequestID: "req1", Next: "relayctl x --help",
		}, `relayctl: Invalid: two fields
  field      /a (--a): is odd [enum]
  choices    x, y
  field      query/b: is odd too
  reason     invalid-request
  reference  ref1
  request    req1
  try        relayctl x --help
`},
	} {
		var b bytes.Buffer
		Render(&b, "relayctl", c.err)
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
	}
}

func TestPrintableLeavesOnlyWhatCannotActOnATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain é 中": "plain é 中", "a\x1b[2Jb": "a\uFFFD[2Jb", "a\r\nb\tc": "a  b c", "\u009b\u202e\u2066\x00": "\uFFFD\uFFFD\uFFFD\uFFFD",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
