package output

import (
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// usualWidth is how wide a table may be inside an object where no terminal says.
	usualWidth = 120
	// shortProse is what prose is cut to before anything else is, leastText what no
	// text is cut below.
	shortProse = 24
	leastText  = 10
	// gap is the room between two columns.
	gap = 2
)

// fit cuts the longest texts of a table until its lines are no longer than that,
// or nothing is left to cut: prose first, then all texts alike. What tells one
// object from another, secrets, numbers, instants and single words such as states
// stay whole: half of one is of no use.
func fit(cells [][]string, rows []any, columns []string, width int) {
	prose, names := cuttable(cells, rows, columns)
	to := widths(cells)
	shrink(to, prose, shortProse, width, columns)
	shrink(to, append(prose, names...), leastText, width, columns)
	for _, line := range cells {
		for i := range line {
			if utf8.RuneCountInString(line[i]) > to[i] {
				line[i] = Cut(line[i], to[i]-1) + "…"
			}
		}
	}
}

// shrink takes from the widest of some columns until all fit, or none of them is
// wider than its label and least.
func shrink(to, some []int, least, width int, columns []string) {
	for total(to) > width {
		widest := -1
		for _, i := range some {
			if to[i] > max(least, len(label(columns[i]))) && (widest < 0 || to[i] > to[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		to[widest]--
	}
}

// cuttable are the columns whose texts may be cut: those of prose, which has
// spaces, and those of addresses and other names with signs in them.
func cuttable(cells [][]string, rows []any, columns []string) (prose, names []int) {
	body := cells[len(cells)-len(rows):]
	for i, column := range columns {
		has := func(signs string) bool {
			return slices.ContainsFunc(body, func(line []string) bool { return strings.ContainsAny(line[i], signs) })
		}
		name := column[strings.LastIndexByte(column, '.')+1:]
		switch {
		case i == 0, slices.Contains([]string{"id", "password", "token"}, name), strings.HasSuffix(name, "_id"), strings.HasSuffix(name, "_at"):
		case has(" "):
			prose = append(prose, i)
		case has("@.:/"):
			names = append(names, i)
		}
	}
	return prose, names
}

func widths(cells [][]string) []int {
	found := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, text := range line {
			found[i] = max(found[i], utf8.RuneCountInString(text))
		}
	}
	return found
}

// total is how wide columns of these widths are together.
func total(widths []int) int {
	sum := gap * (len(widths) - 1)
	for _, width := range widths {
		sum += width
	}
	return sum
}
