package output

import (
	"encoding/csv"
	"fmt"
	"iter"

	"activerelay/cli/internal/invoke"
)

// csvRows writes RFC 4180 lines, page by page, under a header line. Lists in a
// cell are separated by spaces.
func (p *Printer) csvRows(pages iter.Seq2[any, error], shape Shape) error {
	columns := p.columns(shape.Columns, nil)
	s := &sheet{w: csv.NewWriter(p.Out), columns: columns, headed: p.NoHeaders || len(columns) == 0}
	for page, err := range pages {
		if err != nil {
			return err
		}
		rows := invoke.Rows(page, shape.Rows)
		if len(s.columns) == 0 && len(rows) > 0 {
			s.columns, s.headed = p.columns(nil, rows[0]), p.NoHeaders
		}
		if err := s.write(rows); err != nil {
			return err
		}
	}
	return s.write(nil)
}

func (p *Printer) csvObject(value any, shape Shape) error {
	if value == nil {
		return nil
	}
	s := &sheet{w: csv.NewWriter(p.Out), columns: p.columns(shape.Columns, value), headed: p.NoHeaders}
	return s.write([]any{value})
}

// sheet writes the lines of one CSV document.
type sheet struct {
	w       *csv.Writer
	columns []string
	// headed says that the header line is written, or not wanted.
	headed bool
}

func (s *sheet) write(rows []any) error {
	var lines [][]string
	if !s.headed {
		lines, s.headed = append(lines, s.columns), true
	}
	for _, row := range rows {
		line := make([]string, len(s.columns))
		for i, column := range s.columns {
			line[i] = plainCell(lookup(row, column))
		}
		lines = append(lines, line)
	}
	if err := s.w.WriteAll(lines); err != nil {
		return fmt.Errorf("writing CSV: %w", err)
	}
	return nil
}
