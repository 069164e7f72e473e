package invoke

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// clear is the word that sets a nullable value to null. A string of that very
// text has to come from a file.
const clearWord = "null"

// Value turns the texts given to one flag, in order, into a JSON value: the
// last text wins, except that lists and maps collect all of them.
func Value(f ops.Field, texts []string) (any, error) {
	last := texts[len(texts)-1]
	if f.Nullable && last == clearWord {
		return nil, nil
	}
	switch f.Kind {
	case ops.List:
		return list(f, texts)
	case ops.Map:
		return mapping(f, texts)
	default:
		return scalar(f, f.Kind, last)
	}
}

// scalar parses one text, and refuses here what the contract would refuse
// there: the message then names the flag.
func scalar(f ops.Field, kind ops.Kind, text string) (any, error) {
	switch kind {
	case ops.Integer:
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return nil, invalid(f, text, "a whole number")
		}
		return json.Number(text), nil
	case ops.Number:
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return nil, invalid(f, text, "a number")
		}
		return json.Number(text), nil
	case ops.Boolean:
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1":
			return true, nil
		case "false", "no", "off", "0":
			return false, nil
		}
		return nil, invalid(f, text, "true or false")
	case ops.JSON:
		value, err := decodeJSON([]byte(text))
		if err != nil {
			return nil, invalid(f, text, "a JSON value")
		}
		return value, nil
	default:
		return word(f, text)
	}
}

func word(f ops.Field, text string) (any, error) {
	if len(f.Enum) > 0 && !slices.Contains(f.Enum, text) {
		return nil, invalid(f, text, "one of "+strings.Join(f.Enum, ", "))
	}
	if f.Format == "date-time" {
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			return nil, invalid(f, text, "an instant such as 2026-11-22T15:04:05Z")
		}
	}
	if f.Format == "date" {
		if _, err := time.Parse(time.DateOnly, text); err != nil {
			return nil, invalid(f, text, "a day as YYYY-MM-DD")
		}
	}
	return text, nil
}

// list takes repeated flags, texts with commas, and JSON arrays. Elements that
// are objects are JSON documents, one for each flag.
func list(f ops.Field, texts []string) (any, error) {
	elements := []any{}
	for _, text := range texts {
		if strings.HasPrefix(strings.TrimSpace(text), "[") {
			value, err := decodeJSON([]byte(text))
			many, ok := value.([]any)
			if err != nil || !ok {
				return nil, invalid(f, text, "a JSON array")
			}
			elements = append(elements, many...)
			continue
		}
		parts := []string{text}
		if f.Item != ops.JSON {
			parts = strings.Split(text, ",")
		}
		for _, part := range parts {
			element, err := scalar(f, f.Item, strings.TrimSpace(part))
			if err != nil {
				return nil, err
			}
			elements = append(elements, element)
		}
	}
	return elements, nil
}

// mapping takes key=value pairs, repeated or with commas, or one JSON object.
func mapping(f ops.Field, texts []string) (any, error) {
	pairs := map[string]any{}
	for _, text := range texts {
		if strings.HasPrefix(strings.TrimSpace(text), "{") {
			value, err := decodeJSON([]byte(text))
			object, ok := value.(map[string]any)
			if err != nil || !ok {
				return nil, invalid(f, text, "a JSON object")
			}
			for key, v := range object {
				pairs[key] = v
			}
			continue
		}
		for part := range strings.SplitSeq(text, ",") {
			key, rest, ok := strings.Cut(part, "=")
			if !ok || key == "" {
				return nil, invalid(f, part, "key=value")
			}
			value, err := scalar(f, f.Item, rest)
			if err != nil {
				return nil, err
			}
			pairs[key] = value
		}
	}
	return pairs, nil
}

func invalid(f ops.Field, text, want string) error {
	if f.Secret {
		return failure.Usagef("--%s takes %s", f.Flag, want)
	}
	return failure.Usagef("--%s takes %s, not %q", f.Flag, want, text)
}
