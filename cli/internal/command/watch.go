package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

const (
	// usualInterval is the wait before each further look, shortestInterval the
	// least that may be asked for.
	usualInterval    = 2 * time.Second
	shortestInterval = 100 * time.Millisecond
	// watchedRows is how many rows of a list are watched where no screen says.
	watchedRows = 1000
)

// watchFlags are the flags of a command whose answer can be watched.
type watchFlags struct {
	on       bool
	interval time.Duration
}

func addWatch(cmd *cobra.Command, op *ops.Op) *watchFlags {
	w := &watchFlags{}
	if len(op.Watch) == 0 {
		return w
	}
	cmd.Flags().BoolVar(&w.on, "watch", false, "look again and again until Ctrl-C: on a terminal the table stays in place, elsewhere each change is a line")
	cmd.Flags().DurationVar(&w.interval, "interval", usualInterval, "how `LONG` to wait before looking again, with --watch")
	return w
}

func (w *watchFlags) check(cmd *cobra.Command) error {
	switch {
	case !w.on && cmd.Flags().Changed("interval"):
		return failure.Usagef("--interval goes with --watch")
	case w.on && w.interval < shortestInterval:
		return failure.Usagef("--interval takes %s or more, not %s", shortestInterval, w.interval)
	}
	return nil
}

// look is one look at what is watched.
type look struct {
	value any
	// at is when, by the server's clock; more says that there is more than was
	// looked at.
	at   string
	more bool
}

// view shows what is watched.
type view interface {
	// rows is how many rows of a list it can show.
	rows() int
	show(look) error
	// trouble says that a look did not come about; the last one stands.
	trouble(error) error
	end()
}

// watch looks until ctx ends, which is no failure. Only a first look that
// fails, and a refusal that time does not mend, end it otherwise: a server that
// is asked too often is asked again when it says.
func (a *app) watch(cmd *cobra.Command, s *session, call invoke.Call, w *watchFlags) error {
	v, err := a.view(s, call.Op, w.interval)
	if err != nil {
		return err
	}
	defer v.end()
	ctx := cmd.Context()
	for first := true; ; first = false {
		seen, err := a.look(ctx, s, call, v.rows())
		var refused *invoke.Refusal
		wait := w.interval
		if errors.As(err, &refused) {
			wait = max(wait, refused.RetryAfter)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			err = v.show(seen)
		case refused != nil && refused.Status == http.StatusTooManyRequests, !first && failure.CodeOf(err) == failure.Unavailable:
			err = v.trouble(fmt.Errorf("%w; looking again in %s", err, wait))
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// look makes the call, with as many of its pages as rows need.
func (a *app) look(ctx context.Context, s *session, call invoke.Call, rows int) (look, error) {
	var seen look
	pages := func(yield func(any, error) bool) {
		for answer, err := range s.client.Pages(ctx, call, rows) {
			if err != nil {
				yield(nil, err)
				return
			}
			seen.at = answer.Header.Get("Date")
			if !yield(answer.Value, nil) {
				return
			}
		}
	}
	value, err := output.Merge(pages, call.Op.Rows)
	if err != nil {
		return look{}, err
	}
	if at, err := http.ParseTime(seen.at); err == nil {
		seen.at = at.UTC().Format(time.RFC3339)
	}
	seen.value = value
	if object, ok := value.(map[string]any); ok {
		_, seen.more = object["next_page_token"]
		delete(object, "next_page_token")
		if list := invoke.Rows(value, call.Op.Rows); len(list) > rows {
			object[call.Op.Rows], seen.more = list[:rows], true
		}
	}
	return seen, nil
}

// view chooses how to show: in place on a terminal that can, else by lines.
func (a *app) view(s *session, op *ops.Op, interval time.Duration) (view, error) {
	shape := output.Shape{Rows: op.Rows, Columns: op.Columns}
	most := a.flags.maxItems
	if most == 0 {
		most = watchedRows
	}
	switch format := s.printer.Format; {
	case s.printer.JQ != "" || format == "json":
		return &snapshots{printer: s.printer.Compact(), most: most, shape: shape.Whole(), note: a.note}, nil
	case format != "" && format != "table":
		return nil, failure.Usagef("--watch shows a table or, with --output json, one line of JSON for each look; not %s", format)
	case a.StdoutTTY && a.Getenv("TERM") != "dumb":
		title := fmt.Sprintf("%s %s, every %s, %s", Program, op.Command(), interval, s.target.URL)
		return &screen{out: a.Stdout, size: a.size, printer: s.printer, shape: shape, title: title, most: a.flags.maxItems}, nil
	default:
		return &changes{printer: s.printer, shape: shape, key: op.Watch, most: most, note: a.note}, nil
	}
}

// size is that of the terminal, 80 by 24 where it does not tell.
func (a *app) size() (columns, rows int) {
	if a.Size != nil {
		if columns, rows = a.Size(); columns > 0 && rows > 0 {
			return columns, rows
		}
	}
	return 80, 24
}

// snapshots writes each look as a line of JSON.
type snapshots struct {
	printer *output.Printer
	shape   output.Shape
	most    int
	note    func(string)
}

func (s *snapshots) rows() int             { return s.most }
func (s *snapshots) show(l look) error     { return s.printer.Print(l.value, s.shape) }
func (s *snapshots) trouble(e error) error { s.note(e.Error()); return nil }
func (s *snapshots) end()                  {}

// changes writes a line for each row that is new, changed or gone.
type changes struct {
	printer *output.Printer
	shape   output.Shape
	key     []string
	most    int
	note    func(string)
	// known are the lines of the last look by their keys, in the order of it.
	known map[string]string
	order []string
	begun bool
}

func (c *changes) rows() int             { return c.most }
func (c *changes) trouble(e error) error { c.note(e.Error()); return nil }
func (c *changes) end()                  {}

func (c *changes) show(l look) error {
	columns := c.printer.Columns
	if len(columns) == 0 {
		columns = c.shape.Columns
	}
	if !c.begun && !c.printer.NoHeaders {
		if err := c.line("TIME", "CHANGE", strings.Join(output.Headers(columns), "\t")); err != nil {
			return err
		}
	}
	if !c.begun && l.more {
		c.note(fmt.Sprintf("(there is more; the first %d are watched, see --max-items)", c.most))
	}
	c.begun = true
	rows := []any{l.value}
	if c.shape.Rows != "" {
		rows = invoke.Rows(l.value, c.shape.Rows)
	}
	now, order := map[string]string{}, make([]string, 0, len(rows))
	for _, row := range rows {
		key := strings.Join(output.Cells(row, c.key), "\t")
		now[key] = strings.Join(output.Cells(row, columns), "\t")
		order = append(order, key)
	}
	before, gone := c.known, c.order
	c.known, c.order = now, order
	for _, key := range gone {
		if _, still := now[key]; !still {
			if err := c.line(l.at, "gone", before[key]); err != nil {
				return err
			}
		}
	}
	for _, key := range order {
		change := "new"
		if line, known := before[key]; known {
			change = "changed"
			if line == now[key] {
				continue
			}
		}
		if err := c.line(l.at, change, now[key]); err != nil {
			return err
		}
	}
	return nil
}

func (c *changes) line(cells ...string) error { return c.printer.Line(strings.Join(cells, "\t")) }

// screen keeps the table in place on a terminal: on the alternate screen, so
// that a frame always begins in the corner, whatever size the window is given
// meanwhile. The last frame stays when it ends.
type screen struct {
	out     io.Writer
	size    func() (columns, rows int)
	printer *output.Printer
	shape   output.Shape
	title   string
	most    int
	begun   bool
	last    look
	lines   []string
}

// frameLines are the lines of a frame that are not rows: the title, what is said
// beside the rows, the header and the line that there is more.
const frameLines = 4

func (s *screen) rows() int {
	_, rows := s.size()
	fit := max(1, rows-frameLines)
	if s.most > 0 {
		fit = min(fit, s.most)
	}
	return fit
}

func (s *screen) show(l look) error {
	var table, notes bytes.Buffer
	printer := *s.printer
	printer.Out, printer.Notes = &table, &notes
	printer.Width, _ = s.size()
	if err := printer.Print(l.value, s.shape); err != nil {
		return err
	}
	s.last = l
	s.lines = append(split(notes.String()), split(table.String())...)
	if l.more {
		s.lines = append(s.lines, "(there is more)")
	}
	return s.draw(s.title + ", " + l.at)
}

func (s *screen) trouble(err error) error {
	if s.last.at == "" {
		return s.draw("NOTHING SEEN yet: " + err.Error())
	}
	return s.draw("OUT OF DATE since " + s.last.at + ": " + err.Error())
}

func (s *screen) draw(title string) error {
	var b strings.Builder
	if !s.begun {
		s.begun = true
		b.WriteString("\x1b[?1049h\x1b[?25l") // alternate screen, no cursor
	}
	b.WriteString("\x1b[H")
	for i, line := range s.fit(title) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(s.out, b.String())
	return err
}

// fit is what of the frame the terminal has room for.
func (s *screen) fit(title string) []string {
	columns, rows := s.size()
	lines := slices.Concat([]string{failure.Printable(title)}, s.lines)
	lines = lines[:min(rows, len(lines))]
	for i, line := range lines {
		lines[i] = output.Cut(line, columns)
	}
	return lines
}

func (s *screen) end() {
	if !s.begun {
		return
	}
	_, _ = io.WriteString(s.out, "\x1b[?25h\x1b[?1049l"+strings.Join(s.fit(s.title+", "+s.last.at), "\r\n")+"\r\n")
}

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
