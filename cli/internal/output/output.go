// Package output writes answers of the API for people and for programs.
//
// Standard output is an interface: json, yaml and jsonl are the API's own
// documents with every page of a list in one, csv has one line for each row,
// and the table is for eyes. Whatever is not the answer (that nothing was
// found, what a batch came to) goes to the other writer. The package knows
// decoded JSON only; where it came from, and whether a person is looking, its
// caller says.
package output

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/itchyny/gojq"

	"activerelay/cli/internal/failure"
)

// Formats lists the values of --output.
func Formats() []string { return []string{"table", "json", "yaml", "jsonl", "csv"} }

// Config says how to write.
type Config struct {
	// Out takes the answer, Notes the remarks about it.
	Out   io.Writer
	Notes io.Writer
	// Format is one of Formats; empty means table, or JSON after a jq filter.
	Format string
	// Columns replaces the columns of table and csv, as dotted paths.
	Columns   []string
	NoHeaders bool
	// JQ is a jq filter for the whole answer.
	JQ string
	// Color marks states and headers for a terminal.
	Color bool
	// Width is how many columns the terminal has, to which the longest texts of a
	// list are cut; 0 where it is none, and nothing is cut.
	Width int
}

// Printer writes answers.
type Printer struct {
	Config
	filter *gojq.Code
}

// New checks the configuration and compiles the filter.
func New(config Config) (*Printer, error) {
	p := &Printer{Config: config}
	if config.Format != "" && !slices.Contains(Formats(), config.Format) {
		return nil, failure.Usagef("--output takes one of %s, not %q", strings.Join(Formats(), ", "), config.Format)
	}
	if config.JQ == "" {
		return p, nil
	}
	if config.Format == "table" || config.Format == "csv" {
		return nil, failure.Usagef("--jq makes JSON, which --output %s cannot show; use json, jsonl or yaml", config.Format)
	}
	query, err := gojq.Parse(config.JQ)
	if err != nil {
		return nil, failure.Usagef("--jq: %v", err)
	}
	if p.filter, err = gojq.Compile(query); err != nil {
		return nil, failure.Usagef("--jq: %v", err)
	}
	return p, nil
}

// Shape says what an answer looks like.
type Shape struct {
	// Rows is the dotted path to the list of the answer, empty for an object.
	Rows string
	// Columns are the columns that a table shows when nobody chose others.
	Columns []string
	// ETag is shown after the properties of an object, where there is one, and
	// Then, what to do with it, after all of it.
	ETag, Then string
}

// Print writes one answer.
func (p *Printer) Print(value any, shape Shape) error {
	return p.Pages(func(yield func(any, error) bool) { yield(value, nil) }, shape)
}

// Pages writes an answer that comes in pages, as one. What can be written page
// by page is, so that a list of any length needs no memory; for the other
// formats an error leaves nothing written.
func (p *Printer) Pages(pages iter.Seq2[any, error], shape Shape) error {
	if shape.Rows != "" && p.filter == nil {
		switch p.Format {
		case "jsonl":
			return p.lines(pages, shape)
		case "csv":
			return p.csvRows(pages, shape)
		}
	}
	merged, err := Merge(pages, shape.Rows)
	if err != nil {
		return err
	}
	if p.filter != nil {
		return p.filtered(merged)
	}
	switch p.Format {
	case "json":
		return p.json(merged)
	case "jsonl":
		return p.line(merged)
	case "yaml":
		return p.yaml(merged)
	case "csv":
		return p.csvObject(merged, shape)
	default:
		return p.table(merged, shape)
	}
}

// Merge puts the rows of all pages into the first page. The cursor of a list
// that was followed to its end is gone with it.
func Merge(pages iter.Seq2[any, error], rows string) (any, error) {
	var first any
	count := 0
	for page, err := range pages {
		if err != nil {
			return nil, err
		}
		if count++; count == 1 {
			first = page
			continue
		}
		into, _ := first.(map[string]any)
		from, _ := page.(map[string]any)
		all, _ := into[rows].([]any)
		more, _ := from[rows].([]any)
		into[rows] = append(all, more...)
		if token, has := from["next_page_token"]; has {
			into["next_page_token"] = token
		} else {
			delete(into, "next_page_token")
		}
	}
	return first, nil
}

// Check refuses columns that no answer of these dotted paths can have. Nothing
// known refuses nothing.
func Check(columns, known []string) error {
	for _, column := range columns {
		if len(known) > 0 && !reachable(column, known) {
			shown := slices.DeleteFunc(slices.Clone(known), func(path string) bool { return strings.HasSuffix(path, ".*") })
			return failure.Usagef("--columns: there is no %q here; choose from %s", column, strings.Join(shown, ", "))
		}
	}
	return nil
}

func reachable(column string, known []string) bool {
	return slices.ContainsFunc(known, func(path string) bool {
		free, isFree := strings.CutSuffix(path, "*")
		return column == path || isFree && strings.HasPrefix(column, free)
	})
}

func (p *Printer) note(format string, args ...any) {
	fmt.Fprintf(p.Notes, format+"\n", args...)
}

// Plain returns a printer of tables for remarks: to the notes, without colour,
// filter or chosen columns.
func (p *Printer) Plain() *Printer {
	return &Printer{Config: Config{Out: p.Notes, Notes: p.Notes}}
}
