package output

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Cells are the columns of a row as people read them, without padding.
func Cells(row any, columns []string) []string {
	cells := make([]string, len(columns))
	for i, column := range columns {
		cells[i] = columnCell(column, lookup(row, column))
	}
	return cells
}

// Compact returns a printer that writes each answer as one line of JSON.
func (p *Printer) Compact() *Printer {
	compact := *p
	if compact.Format == "json" {
		compact.Format = "jsonl"
	}
	return &compact
}

// Whole is the shape of an answer that is shown as one object, lists and all.
func (s Shape) Whole() Shape {
	s.Rows = ""
	return s
}

// Line writes one line of the answer.
func (p *Printer) Line(text string) error {
	_, err := fmt.Fprintln(p.Out, text)
	return err
}

// Cut shortens a line to the columns of a terminal. Escapes that colour take no
// room, and end with the line; letters of East Asian scripts take two columns.
func Cut(line string, columns int) string {
	var b strings.Builder
	width, coloured := 0, false
	for rest := line; rest != ""; {
		if end := strings.IndexByte(rest, 'm'); strings.HasPrefix(rest, "\x1b[") && end > 0 {
			b.WriteString(rest[:end+1])
			rest, coloured = rest[end+1:], true
			continue
		}
		r, size := utf8.DecodeRuneInString(rest)
		wide := 1
		if r >= 0x1100 {
			wide = 2
		}
		if width += wide; width > columns {
			if coloured {
				b.WriteString("\x1b[0m")
			}
			break
		}
		b.WriteString(rest[:size])
		rest = rest[size:]
	}
	return b.String()
}
