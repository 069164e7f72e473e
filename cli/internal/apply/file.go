package apply

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
)

// File is what a file says should be.
type File struct {
	Name    string
	Objects []Object
	// sections are the kinds that the file speaks of, even with an empty list.
	sections map[string]bool
	table    []ops.Op
	// faults are the values that the contract does not allow.
	faults []failure.Field
}

// Object is one object of a file.
type Object struct {
	kind   *kind
	Values map[string]any
	Line   int
}

// Read reads the documents of a file. A document either has lists by section
//
//	partners: [{slug: acme, name: Acme IT}]
//	domains: [{name: example.com, partner: acme, licensed_users: 40}]
//
// or is one object, which says its kind:
//
//	kind: domain
//	name: example.com
//
// A key that the contract does not know is refused with its line and the
// choices: nothing is planned from a file that is misread.
func Read(name string, text []byte, table []ops.Op) (*File, error) {
	f := &File{Name: name, sections: map[string]bool{}, table: table}
	root, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, failure.Unreadable(name, err)
	}
	for _, doc := range root.Docs {
		if doc.Body == nil {
			continue
		}
		members, err := f.members(doc.Body, "the document")
		if err != nil {
			return nil, err
		}
		if err := f.document(doc.Body, members); err != nil {
			return nil, err
		}
	}
	if len(f.sections) == 0 {
		return nil, failure.Usagef("%s names nothing; it may have %s", name, strings.Join(sectionNames(), ", "))
	}
	if err := f.faulty(); err != nil {
		return nil, err
	}
	return f, f.distinct()
}

// check notes a value that the contract does not allow, so that all of them
// are said at once and before anything is planned.
func (f *File) check(k *kind, key string, value any, line int) {
	if wants := k.check(f.table, key, value); wants != "" {
		message := fmt.Sprintf("takes %s, not %s", wants, said(value))
		if k.secret(f.table, key) {
			message = "takes " + wants
		}
		f.faults = append(f.faults, failure.Field{Pointer: fmt.Sprintf("%s:%d: %s", f.Name, line, key), Message: message})
	}
}

func said(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		return fmt.Sprintf("%q", v)
	default:
		return brief(value)
	}
}

func (f *File) faulty() error {
	switch len(f.faults) {
	case 0:
		return nil
	case 1:
		return failure.Usagef("%s %s", f.faults[0].Pointer, f.faults[0].Message)
	default:
		return &failure.Error{
			Code: failure.Usage, Detail: fmt.Sprintf("%s has %d values that cannot be", f.Name, len(f.faults)), Fields: f.faults,
		}
	}
}

func (f *File) document(body ast.Node, members []*ast.MappingValueNode) error {
	for _, member := range members {
		if keyOf(member) == "kind" {
			return f.single(body, member)
		}
	}
	for _, member := range members {
		k := kindBy(func(k *kind) bool { return k.section == keyOf(member) })
		if k == nil {
			return f.unknown(line(member.Key), keyOf(member), append(sectionNames(), "kind"))
		}
		f.sections[k.name] = true
		if err := f.list(k, member.Value); err != nil {
			return err
		}
	}
	return nil
}

// single reads a document that is one object.
func (f *File) single(body ast.Node, member *ast.MappingValueNode) error {
	name := member.Value.GetToken().Value
	k := kindBy(func(k *kind) bool { return k.name == name })
	if k == nil {
		return failure.Usagef("%s:%d: kind takes one of %s, not %q", f.Name, line(member.Value), strings.Join(slices.Sorted(slices.Values(kindNames())), ", "), name)
	}
	f.sections[k.name] = true
	return f.object(k, body)
}

func (f *File) list(k *kind, node ast.Node) error {
	switch n := node.(type) {
	case *ast.NullNode:
		return nil
	case *ast.SequenceNode:
		for _, element := range n.Values {
			if err := f.object(k, element); err != nil {
				return err
			}
		}
		return nil
	default:
		return failure.Usagef("%s:%d: %s must be a list", f.Name, line(node), k.section)
	}
}

func (f *File) object(k *kind, node ast.Node) error {
	members, err := f.members(node, k.name)
	if err != nil {
		return err
	}
	o := Object{kind: k, Values: map[string]any{}, Line: line(node)}
	choices := k.properties(f.table)
	for _, member := range members {
		key := keyOf(member)
		if key == "kind" {
			continue
		}
		if !slices.Contains(choices, key) {
			return f.unknown(line(member.Key), key, choices)
		}
		var value any
		if err := yaml.NodeToValue(member.Value, &value); err != nil {
			return failure.Unreadable(f.Name, err)
		}
		o.Values[key] = invoke.Normal(value)
		f.check(k, key, o.Values[key], line(member.Value))
	}
	for _, key := range k.key {
		if text, _ := o.Values[key].(string); text == "" {
			return failure.Usagef("%s:%d: this %s has no %s", f.Name, o.Line, k.name, key)
		}
	}
	f.Objects = append(f.Objects, o)
	return nil
}

func (f *File) members(node ast.Node, what string) ([]*ast.MappingValueNode, error) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, nil
	case *ast.NullNode:
		return nil, nil
	default:
		return nil, failure.Usagef("%s:%d: %s must be a mapping of names to values", f.Name, line(node), what)
	}
}

// distinct refuses an object that is named twice: which of the two should be?
func (f *File) distinct() error {
	seen := map[string]int{}
	for _, o := range f.Objects {
		id := o.kind.name + " " + o.kind.identity(o.Values)
		if first, twice := seen[id]; twice {
			return failure.Usagef("%s:%d: %s stands in line %d already", f.Name, o.Line, id, first)
		}
		seen[id] = o.Line
	}
	return nil
}

func (f *File) unknown(line int, key string, choices []string) error {
	slices.Sort(choices)
	return failure.Usagef("%s:%d: unknown key %q; choose from %s", f.Name, line, key, strings.Join(choices, ", "))
}

func (f *File) source(o Object) string { return fmt.Sprintf("%s:%d", f.Name, o.Line) }

func keyOf(member *ast.MappingValueNode) string { return member.Key.GetToken().Value }

func line(node ast.Node) int {
	if mapping, ok := node.(*ast.MappingNode); ok && len(mapping.Values) > 0 && !mapping.IsFlowStyle {
		return mapping.Values[0].Key.GetToken().Position.Line
	}
	if member, ok := node.(*ast.MappingValueNode); ok {
		return member.Key.GetToken().Position.Line
	}
	return node.GetToken().Position.Line
}
