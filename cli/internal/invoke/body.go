package invoke

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/goccy/go-yaml"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// Body is a request body with the copy of it that may be shown.
type Body struct {
	Type    string
	Content []byte
	// Shown is Content with every secret replaced. It is what --dry-run and
	// --verbose print.
	Shown []byte
}

const mask = "********"

// JSONBody returns the body made of a document, nil where there is none, and
// of values for single properties, keyed by the property's flag, which win
// over the document's.
func JSONBody(b *ops.Body, document any, values map[string]any) (*Body, error) {
	content := document
	if content == nil || len(values) > 0 {
		object, ok := content.(map[string]any)
		if content != nil && !ok {
			return nil, failure.Usagef("flags for single properties need a file that holds an object")
		}
		content = overlay(b, object, values)
	}
	encoded, err := encodeJSON(content)
	if err != nil {
		return nil, fmt.Errorf("encoding the request body: %w", err)
	}
	shown, err := encodeJSON(masked(b, content))
	if err != nil {
		return nil, fmt.Errorf("encoding the request body: %w", err)
	}
	return &Body{Type: b.Types[0], Content: encoded, Shown: shown}, nil
}

// overlay sets the values in a copy of the object. Properties are taken in the
// order of the table, so an object given whole comes before its members.
func overlay(b *ops.Body, object map[string]any, values map[string]any) map[string]any {
	merged, _ := copied(object).(map[string]any)
	if merged == nil {
		merged = map[string]any{}
	}
	for _, p := range b.Properties {
		if value, given := values[p.Flag]; given {
			set(merged, p.Path, copied(value))
		}
	}
	return merged
}

func set(object map[string]any, path []string, value any) {
	for _, name := range path[:len(path)-1] {
		inner, ok := object[name].(map[string]any)
		if !ok {
			inner = map[string]any{}
			object[name] = inner
		}
		object = inner
	}
	object[path[len(path)-1]] = value
}

// masked returns a copy of the body in which every secret property that holds
// something is covered, at the top and in every element of a batch.
func masked(b *ops.Body, content any) any {
	shown := copied(content)
	for _, p := range b.Properties {
		if p.Secret {
			cover(shown, p.Path)
		}
	}
	coverByName(shown)
	return shown
}

func cover(content any, path []string) {
	object, ok := content.(map[string]any)
	if !ok {
		return
	}
	value, present := object[path[0]]
	switch {
	case !present || value == nil:
	case len(path) > 1:
		cover(value, path[1:])
	default:
		object[path[0]] = mask
	}
}

// coverByName is the net below the contract's own marks: in lists of objects,
// whose members have no row in the table, and in free-form JSON.
func coverByName(content any) {
	switch v := content.(type) {
	case map[string]any:
		for name, inner := range v {
			text, isText := inner.(string)
			if isText && text != "" && SecretName(name) {
				v[name] = mask
				continue
			}
			coverByName(inner)
		}
	case []any:
		for _, inner := range v {
			coverByName(inner)
		}
	}
}

// SecretName says whether a property of that name holds a secret.
func SecretName(name string) bool {
	return slices.Contains([]string{"password", "secret", "token", "join_token", "credential", "private_key"}, name)
}

func copied(value any) any {
	switch v := value.(type) {
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, inner := range v {
			object[name] = copied(inner)
		}
		return object
	case []any:
		elements := make([]any, len(v))
		for i, inner := range v {
			elements[i] = copied(inner)
		}
		return elements
	default:
		return value
	}
}

// Document reads a JSON or YAML document. JSON numbers keep every digit.
func Document(name string, text []byte) (any, error) {
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		if value, err := decodeJSON(text); err == nil {
			return value, nil
		}
	}
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		return nil, failure.Unreadable(name, err)
	}
	return Normal(value), nil
}

// Normal turns what the YAML decoder makes into what the JSON decoder makes.
func Normal(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			v[name] = Normal(inner)
		}
		return v
	case map[any]any:
		object := make(map[string]any, len(v))
		for name, inner := range v {
			object[fmt.Sprint(name)] = Normal(inner)
		}
		return object
	case []any:
		for i, inner := range v {
			v[i] = Normal(inner)
		}
		return v
	case int, int64, uint64:
		return json.Number(fmt.Sprint(v))
	case float64:
		text, err := json.Marshal(v)
		if err != nil { // NaN and infinities have no JSON; the server refuses the text
			return fmt.Sprint(v)
		}
		return json.Number(text)
	default:
		return value
	}
}

func decodeJSON(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return value, nil
}

func encodeJSON(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
