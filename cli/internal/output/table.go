package output

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
)

// table writes a list as rows, and an object as one line for each property.
func (p *Printer) table(value any, shape Shape) error {
	switch {
	case value == nil:
		return nil
	case shape.Rows != "":
		return p.rows(value, shape)
	default:
		return p.properties(value, shape)
	}
}

func (p *Printer) rows(value any, shape Shape) error {
	rows := invoke.Rows(value, shape.Rows)
	if len(rows) == 0 {
		p.note("Nothing found.")
	} else if err := p.grid(p.Out, rows, p.columns(shape.Columns, rows[0]), ""); err != nil {
		return err
	}
	p.summary(value, shape.Rows)
	return nil
}

// columns are those asked for, else those of the operation, else every
// property of the first row.
func (p *Printer) columns(usual []string, first any) []string {
	switch {
	case len(p.Columns) > 0:
		return p.Columns
	case len(usual) > 0:
		return usual
	}
	object, _ := first.(map[string]any)
	return slices.Sorted(maps.Keys(object))
}

// nextPage is the member that says where a list goes on.
const nextPage = "next_page_token"

// summary notes what an answer says beside its rows: what a batch came to,
// which day a report is about.
func (p *Printer) summary(value any, rows string) {
	object, _ := value.(map[string]any)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if _, list := object[name].([]any); name != rows && name != nextPage && !list {
			parts = append(parts, label(name)+" "+columnCell(name, object[name]))
		}
	}
	if len(parts) > 0 {
		p.note("(%s)", strings.Join(parts, ", "))
	}
	if token, _ := object[nextPage].(string); token != "" {
		p.note("(more: --page-token %s)", failure.Printable(token))
	}
}

// grid writes rows under a header line. Numbers stand at the right.
func (p *Printer) grid(w io.Writer, rows []any, columns []string, indent string) error {
	cells := p.cells(rows, columns)
	if p.Width > 0 {
		fit(cells, rows, columns, p.Width-len(indent))
	}
	for i, column := range columns {
		if numeric(rows, column) {
			alignRight(cells, i)
		}
		if p.Color && stateful(column) {
			paint(cells, i)
		}
	}
	return p.aligned(w, cells, indent)
}

// cells are the rows of a table with its header line.
func (p *Printer) cells(rows []any, columns []string) [][]string {
	cells := make([][]string, 0, len(rows)+1)
	if !p.NoHeaders {
		cells = append(cells, Headers(columns))
	}
	for _, row := range rows {
		cells = append(cells, Cells(row, columns))
	}
	return cells
}

// Headers are the names of columns as the line above a table has them.
func Headers(columns []string) []string {
	names := make([]string, len(columns))
	for i, column := range columns {
		names[i] = strings.ToUpper(label(column))
	}
	return names
}

func numeric(rows []any, column string) bool {
	found := false
	for _, row := range rows {
		switch lookup(row, column).(type) {
		case json.Number:
			found = true
		case nil:
		default:
			return false
		}
	}
	return found
}

func alignRight(cells [][]string, column int) {
	width := 0
	for _, line := range cells {
		width = max(width, utf8.RuneCountInString(line[column]))
	}
	for _, line := range cells {
		line[column] = strings.Repeat(" ", width-utf8.RuneCountInString(line[column])) + line[column]
	}
}

// aligned writes the cells through a tabwriter; the header line is made bold
// after it, because the tabwriter would count the escapes.
func (p *Printer) aligned(w io.Writer, cells [][]string, indent string) error {
	var b bytes.Buffer
	writer := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, line := range cells {
		fmt.Fprintln(writer, indent+strings.Join(line, "\t"))
	}
	if err := writer.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		if i == 0 && p.Color && !p.NoHeaders {
			line = "\x1b[1m" + line + "\x1b[0m"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// properties writes an object: the operation's columns first, then the rest,
// then each list of objects as a table of its own.
func (p *Printer) properties(value any, shape Shape) error {
	object, ok := value.(map[string]any)
	if !ok {
		_, err := fmt.Fprintln(p.Out, cell(value))
		return err
	}
	paths := p.Columns
	var lists []string
	if len(paths) == 0 {
		paths, lists = arrange(object, shape.Columns)
	}
	width := labelWidth(paths)
	for _, path := range paths {
		p.property(path, width, columnCell(path, lookup(object, path)))
	}
	if shape.ETag != "" && len(p.Columns) == 0 {
		p.property("etag", width, failure.Printable(shape.ETag))
	}
	for _, name := range lists {
		rows, _ := object[name].([]any)
		fmt.Fprintf(p.Out, "\n%s\n", label(name))
		if err := p.nested(rows, p.columns(inside(name, shape.Columns), rows[0])); err != nil {
			return err
		}
	}
	if shape.Then != "" && len(p.Columns) == 0 {
		fmt.Fprintf(p.Out, "\n%s\n", shape.Then)
	}
	return nil
}

// nested writes the objects of a list inside an object: as a table where that is
// not too wide, else one below the other.
func (p *Printer) nested(rows []any, columns []string) error {
	const indent = "  "
	if total(widths(p.cells(rows, columns)))+len(indent) <= cmp.Or(p.Width, usualWidth) {
		return p.grid(p.Out, rows, columns, indent)
	}
	width := labelWidth(columns)
	for i, row := range rows {
		if i > 0 {
			fmt.Fprintln(p.Out)
		}
		for _, column := range columns {
			fmt.Fprint(p.Out, indent)
			p.property(column, width, columnCell(column, lookup(row, column)))
		}
	}
	return nil
}

// inside are the paths that reach into the objects of a list, as seen from them.
func inside(list string, paths []string) []string {
	var found []string
	for _, path := range paths {
		if inner, reaches := strings.CutPrefix(path, list+"."); reaches {
			found = append(found, inner)
		}
	}
	return found
}

func labelWidth(paths []string) int {
	width := 0
	for _, path := range paths {
		width = max(width, utf8.RuneCountInString(label(path)))
	}
	return width
}

func (p *Printer) property(path string, width int, text string) {
	if p.NoHeaders {
		fmt.Fprintln(p.Out, text)
		return
	}
	name := label(path)
	name += strings.Repeat(" ", width-min(width, utf8.RuneCountInString(name)))
	if p.Color {
		name = "\x1b[1m" + name + "\x1b[0m"
		if stateful(path) {
			text = colour(text) + text + colourOff
		}
	}
	fmt.Fprintf(p.Out, "%s  %s\n", name, text)
}

// label is a path in words. That an age is in seconds is said by its value.
func label(path string) string {
	if strings.HasSuffix(path, ageSuffix) {
		path = strings.TrimSuffix(path, "_seconds")
	}
	return strings.NewReplacer("_", " ", ".", " ").Replace(path)
}

// arrange splits an object's members into lines and lists of objects. Members
// that a column reaches into are not shown again.
func arrange(object map[string]any, first []string) (paths, lists []string) {
	shown := map[string]bool{}
	for _, path := range first {
		name, inner, _ := strings.Cut(path, ".")
		list, isList := object[name].([]any)
		switch {
		case objects(list), isList && shown[name]:
			continue
		case isList && inner != "":
			path = name // there is nothing to reach into
		}
		shown[name] = true
		paths = append(paths, path)
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		list, _ := object[name].([]any)
		switch {
		case shown[name]:
		case objects(list):
			lists = append(lists, name)
		default:
			paths = append(paths, members(name, object[name])...)
		}
	}
	return paths, lists
}

// members are the paths of an object inside an object; anything else is one.
func members(path string, value any) []string {
	inner, ok := value.(map[string]any)
	if !ok || len(inner) == 0 {
		return []string{path}
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(inner)) {
		if strings.Contains(name, ".") {
			return []string{path}
		}
		paths = append(paths, members(path+"."+name, inner[name])...)
	}
	return paths
}

func objects(list []any) bool {
	if len(list) == 0 {
		return false
	}
	_, ok := list[0].(map[string]any)
	return ok
}
