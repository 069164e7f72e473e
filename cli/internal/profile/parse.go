package profile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"activerelay/cli/internal/failure"
)

// parse reads the text of a configuration file. The names of flags are checked
// by the caller, who knows them; Lines lets it name the place.
func parse(path string, text []byte) (*File, error) {
	f := &File{
		Path: path, Contexts: map[string]Context{}, Settings: map[string]string{},
		Commands: map[string]map[string]string{}, Lines: map[string]int{},
	}
	root, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, failure.Unreadable(path, err)
	}
	for _, doc := range root.Docs {
		if doc.Body == nil {
			continue
		}
		if err := f.document(doc.Body); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *File) document(body ast.Node) error {
	return f.each(body, "the file", func(key string, value ast.Node) error {
		switch key {
		case "current-context":
			text, err := f.scalar(key, value)
			f.Current = text
			return err
		case "contexts":
			return f.each(value, key, f.context)
		case "commands":
			return f.each(value, key, f.command)
		default:
			text, err := f.scalar(key, value)
			f.Settings[key], f.Lines[key] = text, line(value)
			return err
		}
	})
}

func (f *File) context(name string, body ast.Node) error {
	var context Context
	members := map[string]*string{
		"url": &context.URL, "token": &context.Token, "token-file": &context.TokenFile, "ca-file": &context.CAFile,
	}
	err := f.each(body, "context "+name, func(key string, value ast.Node) error {
		member, known := members[key]
		if !known {
			return f.Unknown(line(value), key, []string{"url", "token", "token-file", "ca-file"})
		}
		text, err := f.scalar(key, value)
		*member = text
		return err
	})
	f.Contexts[name] = context
	return err
}

func (f *File) command(words string, body ast.Node) error {
	f.Commands[words] = map[string]string{}
	f.Lines[words] = line(body)
	return f.each(body, words, func(key string, value ast.Node) error {
		text, err := f.scalar(key, value)
		f.Commands[words][key], f.Lines[words+"."+key] = text, line(value)
		return err
	})
}

// each calls do for every member of a mapping.
func (f *File) each(node ast.Node, what string, do func(key string, value ast.Node) error) error {
	var members []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		members = n.Values
	case *ast.MappingValueNode:
		members = []*ast.MappingValueNode{n}
	case *ast.NullNode:
		return nil
	default:
		return failure.Usagef("%s:%d: %s must be a mapping of names to values", f.Path, line(node), what)
	}
	seen := []string{}
	for _, member := range members {
		key := member.Key.GetToken().Value
		if slices.Contains(seen, key) {
			return failure.Usagef("%s:%d: %s stands twice in %s", f.Path, line(member.Key), key, what)
		}
		seen = append(seen, key)
		if err := do(key, member.Value); err != nil {
			return err
		}
	}
	return nil
}

// scalar returns a value as a flag would take it; a list is one with commas.
func (f *File) scalar(key string, node ast.Node) (string, error) {
	var value any
	if err := yaml.NodeToValue(node, &value); err != nil {
		return "", failure.Usagef("%s:%d: %s: %v", f.Path, line(node), key, err)
	}
	switch v := value.(type) {
	case nil:
		return "", nil
	case []any:
		parts := make([]string, len(v))
		for i, element := range v {
			parts[i] = fmt.Sprint(element)
		}
		return strings.Join(parts, ","), nil
	case map[string]any:
		return "", failure.Usagef("%s:%d: %s takes one value, not a mapping", f.Path, line(node), key)
	default:
		return fmt.Sprint(v), nil
	}
}

func line(node ast.Node) int { return node.GetToken().Position.Line }

// Unknown is the error for a key that nothing reads.
func (f *File) Unknown(line int, key string, choices []string) error {
	return failure.Usagef("%s:%d: unknown key %q; choose from %s", f.Path, line, key, strings.Join(choices, ", "))
}
