package output

import "strings"

const colourOff = "\x1b[39m"

// stateful says whether a column holds states, which are worth a colour.
func stateful(column string) bool {
	name := column[strings.LastIndexByte(column, '.')+1:]
	switch name {
	case "state", "status", "outcome", "action":
		return true
	default:
		return false
	}
}

// colour returns the escape for a state. All of them are of one length, and
// every cell of a column gets one, so that a tabwriter aligns them all the same.
func colour(state string) string {
	switch state {
	case "active", "enabled", "ok", "created", "granted", "create":
		return "\x1b[32m"
	case "suspended", "disabled", "rejected", "failed", "retired", "reached", "delete":
		return "\x1b[31m"
	case "requested", "pending", "updated", "unavailable", "update":
		return "\x1b[33m"
	default:
		return colourOff
	}
}

func paint(cells [][]string, column int) {
	for _, line := range cells {
		line[column] = colour(line[column]) + line[column] + colourOff
	}
}
