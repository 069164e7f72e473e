package output

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"activerelay/cli/internal/failure"
)

// lookup follows a dotted path into a decoded JSON value. What it finds in the
// objects of a list is a list.
func lookup(value any, path string) any {
	switch v := value.(type) {
	case map[string]any:
		name, rest, further := strings.Cut(path, ".")
		if !further {
			return v[name]
		}
		return lookup(v[name], rest)
	case []any:
		found := make([]any, len(v))
		for i, element := range v {
			found[i] = lookup(element, path)
		}
		return found
	default:
		return nil
	}
}

// plainCell writes a value on one line for programs: nothing for null.
func plainCell(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return string(v)
	case bool:
		return fmt.Sprint(v)
	case []any:
		parts := make([]string, len(v))
		for i, element := range v {
			parts[i] = plainCell(element)
		}
		return strings.Join(parts, " ")
	case map[string]any:
		return pairs(v)
	default:
		return fmt.Sprint(v)
	}
}

// pairs writes an object as name=value. A name with its count, such as
// {"reason": "quota-reached", "messages": 3}, is quota-reached=3.
func pairs(object map[string]any) string {
	if len(object) == 2 {
		var name, count string
		for _, v := range object {
			switch v := v.(type) {
			case string:
				name = v
			case json.Number:
				count = string(v)
			}
		}
		if name != "" && count != "" {
			return name + "=" + count
		}
	}
	parts := make([]string, 0, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		parts = append(parts, name+"="+plainCell(object[name]))
	}
	return strings.Join(parts, ",")
}

// toTheSecond cuts the fraction off an instant: eyes have no use for it.
func toTheSecond(text string) string {
	whole := len("2006-01-02T15:04:05")
	if len(text) <= whole || text[whole] != '.' {
		return text
	}
	if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
		return text
	}
	return text[:whole] + strings.TrimLeft(text[whole:], ".0123456789")
}

// ageSuffix ends the names of ages, which people read in hours and minutes.
const ageSuffix = "_age_seconds"

// columnCell writes the value of a column on one line for people.
func columnCell(column string, value any) string {
	if number, ok := value.(json.Number); ok && strings.HasSuffix(column, ageSuffix) {
		if seconds, err := number.Int64(); err == nil {
			return age(seconds)
		}
	}
	return cell(value)
}

// age writes seconds as the two largest units that they have: 3d4h, 5m0s.
func age(seconds int64) string {
	switch {
	case seconds < 60:
		return fmt.Sprintf("%ds", seconds)
	case seconds < 3600:
		return fmt.Sprintf("%dm%ds", seconds/60, seconds%60)
	case seconds < 86400:
		return fmt.Sprintf("%dh%dm", seconds/3600, seconds%3600/60)
	default:
		return fmt.Sprintf("%dd%dh", seconds/86400, seconds%86400/3600)
	}
}

// cell writes a value on one line for people: a dash for nothing, and no
// control characters, whoever put them there.
func cell(value any) string {
	switch v := value.(type) {
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case []any:
		parts := make([]string, len(v))
		for i, element := range v {
			parts[i] = cell(element)
		}
		value = strings.Join(parts, ", ")
	case string:
		value = toTheSecond(v)
	}
	text := failure.Printable(plainCell(value))
	if text == "" {
		return "-"
	}
	return text
}
