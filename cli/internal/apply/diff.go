package apply

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// change is what must be different of one object.
type change struct {
	// body holds the properties to send.
	body map[string]any
	// notes says it for people, one entry for each property.
	notes []string
}

// diff compares the named properties. Secrets are not among them.
func diff(wanted, has map[string]any, names []string) change {
	c := change{body: map[string]any{}}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if !slices.Contains(names, name) || same(wanted[name], has[name]) {
			continue
		}
		c.body[name] = wanted[name]
		c.notes = append(c.notes, fmt.Sprintf("%s %s → %s", name, brief(has[name]), brief(wanted[name])))
	}
	return c
}

// same compares two JSON values. Lists of the API are sets of names and
// addresses, so their order and the case of domains do not count; an empty list
// and null are nothing, as is a property that is not there.
func same(a, b any) bool {
	if empty(a) || empty(b) {
		return empty(a) && empty(b)
	}
	listA, okA := a.([]any)
	listB, okB := b.([]any)
	if okA && okB {
		return slices.Equal(canonical(listA), canonical(listB))
	}
	textA, errA := json.Marshal(a)
	textB, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(textA) == string(textB)
}

func empty(value any) bool {
	list, isList := value.([]any)
	return value == nil || isList && len(list) == 0
}

func canonical(list []any) []string {
	var texts []string
	for _, element := range list {
		text, err := json.Marshal(element)
		if err != nil {
			text = []byte(fmt.Sprint(element))
		}
		s := string(text)
		if at := strings.LastIndexByte(s, '@'); at >= 0 {
			s = s[:at] + strings.ToLower(s[at:])
		}
		texts = append(texts, s)
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

func brief(value any) string {
	switch v := value.(type) {
	case nil:
		return "none"
	case []any:
		parts := make([]string, len(v))
		for i, element := range v {
			parts[i] = brief(element)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case map[string]any:
		text, _ := json.Marshal(v)
		return string(text)
	default:
		return fmt.Sprint(v)
	}
}

// only returns the named members that hold something: what a new object is
// made with.
func only(values map[string]any, names []string) map[string]any {
	body := map[string]any{}
	for name, value := range values {
		if slices.Contains(names, name) && value != nil {
			body[name] = value
		}
	}
	return body
}
