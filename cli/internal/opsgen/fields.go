package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"activerelay/cli/internal/ops"
)

// body returns the description of the request body, nil where there is none.
func body(ref *openapi3.RequestBodyRef) (*ops.Body, error) {
	if ref == nil || ref.Value == nil {
		return nil, nil
	}
	types := jsonFirst(slices.Collect(maps.Keys(ref.Value.Content)))
	if len(types) == 0 {
		return nil, fmt.Errorf("the request body has no media type")
	}
	described := &ops.Body{Types: types, Required: ref.Value.Required}
	if media := ref.Value.Content[types[0]]; jsonRank(types[0]) < 2 && media.Schema != nil {
		described.Properties = properties(media.Schema, nil, ref.Value.Required)
		var err error
		if described.Example, err = example(media.Schema); err != nil {
			return nil, err
		}
	}
	return described, nil
}

// properties flattens an object into one property for each leaf. A nullable
// object stays reachable as a whole too, so that it can be cleared.
func properties(ref *openapi3.SchemaRef, path []string, required bool) []ops.Property {
	merged := merge(ref)
	var found []ops.Property
	for _, name := range slices.Sorted(maps.Keys(merged.properties)) {
		member := merged.properties[name]
		if member.Value == nil || member.Value.ReadOnly {
			continue
		}
		at := append(slices.Clone(path), name)
		must := required && merged.required[name]
		nested := merge(member)
		if len(nested.properties) > 0 && isObject(member.Value) {
			if nested.nullable {
				found = append(found, property(member, at, false))
			}
			found = append(found, properties(member, at, must)...)
			continue
		}
		found = append(found, property(member, at, must))
	}
	return found
}

func property(ref *openapi3.SchemaRef, path []string, required bool) ops.Property {
	f := field(ref)
	f.Flag = flagName("body", strings.Join(path, "."))
	f.Required = required
	return ops.Property{Path: path, Field: f}
}

// merged is what a schema and its alternatives say together about an object.
type merged struct {
	properties openapi3.Schemas
	required   map[string]bool
	nullable   bool
}

// merge folds allOf into one object, and offers the properties of every
// alternative of oneOf and anyOf, none of them required: which alternative
// applies is the server's to judge.
func merge(ref *openapi3.SchemaRef) merged {
	m := merged{properties: openapi3.Schemas{}, required: map[string]bool{}}
	if ref == nil || ref.Value == nil {
		return m
	}
	s := ref.Value
	m.nullable = s.Nullable
	maps.Copy(m.properties, s.Properties)
	for _, name := range s.Required {
		m.required[name] = true
	}
	for _, part := range s.AllOf {
		inner := merge(part)
		maps.Copy(m.properties, inner.properties)
		maps.Copy(m.required, inner.required)
		m.nullable = m.nullable || inner.nullable
	}
	for _, alternative := range slices.Concat(s.OneOf, s.AnyOf) {
		for name, member := range merge(alternative).properties {
			m.properties[name] = either(m.properties[name], member)
		}
	}
	return m
}

// either describes a property that two alternatives have: with the choices of
// both, as a discriminator needs.
func either(a, b *openapi3.SchemaRef) *openapi3.SchemaRef {
	if a == nil || a.Value == nil {
		return b
	}
	if b.Value == nil || len(a.Value.Enum) == 0 || len(b.Value.Enum) == 0 {
		return a
	}
	both := *a.Value
	both.Enum = slices.Clone(a.Value.Enum)
	for _, value := range b.Value.Enum {
		if !slices.Contains(both.Enum, value) {
			both.Enum = append(both.Enum, value)
		}
	}
	return &openapi3.SchemaRef{Value: &both}
}

func isObject(s *openapi3.Schema) bool {
	return s.Type == nil || s.Type.Is(openapi3.TypeObject)
}

// field describes the values of a schema; name and requiredness are the
// caller's to fill in.
func field(ref *openapi3.SchemaRef) ops.Field {
	if ref == nil || ref.Value == nil {
		return ops.Field{Kind: ops.String}
	}
	s := plain(ref.Value)
	f := ops.Field{
		Help: oneLine(ref.Value.Description), Kind: kindOf(s), Format: s.Format, Enum: enum(s),
		Default:  text(s.Default),
		Nullable: ref.Value.Nullable || s.Nullable,
		Minimum:  bound(s.Min), Maximum: bound(s.Max),
		Secret: s.WriteOnly || ref.Value.WriteOnly || s.Format == "password",
	}
	if f.Help == "" {
		f.Help = oneLine(s.Description)
	}
	var element *openapi3.SchemaRef
	switch f.Kind {
	case ops.List:
		element = s.Items
	case ops.Map:
		element = s.AdditionalProperties.Schema
	}
	if element != nil && element.Value != nil {
		inner := plain(element.Value)
		f.Item, f.Enum, f.Format = kindOf(inner), enum(inner), inner.Format
	}
	return f
}

func bound(limit *float64) string {
	if limit == nil {
		return ""
	}
	return strconv.FormatFloat(*limit, 'f', -1, 64)
}

// plain sees through the allOf of one part that a reference with a description
// of its own needs in OpenAPI 3.0.
func plain(s *openapi3.Schema) *openapi3.Schema {
	if s.Type == nil && len(s.AllOf) == 1 && len(s.Properties) == 0 && s.AllOf[0].Value != nil {
		return plain(s.AllOf[0].Value)
	}
	return s
}

func kindOf(s *openapi3.Schema) ops.Kind {
	switch {
	case s.Type.Is(openapi3.TypeString):
		return ops.String
	case s.Type.Is(openapi3.TypeInteger):
		return ops.Integer
	case s.Type.Is(openapi3.TypeNumber):
		return ops.Number
	case s.Type.Is(openapi3.TypeBoolean):
		return ops.Boolean
	case s.Type.Is(openapi3.TypeArray):
		return ops.List
	case s.Type.Is(openapi3.TypeObject) && s.AdditionalProperties.Schema != nil && len(s.Properties) == 0:
		return ops.Map
	default:
		return ops.JSON
	}
}

func enum(s *openapi3.Schema) []string {
	var values []string
	for _, v := range s.Enum {
		if v != nil {
			values = append(values, text(v))
		}
	}
	return values
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// flagName turns a wire name into a flag: licensed_users is --licensed-users.
// prefix tells it from a flag that every command has.
func flagName(prefix, name string) string {
	flag := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	if slices.Contains(ops.Reserved(), flag) {
		return prefix + "-" + flag
	}
	return flag
}

// oneLine keeps the first paragraph of a description, on one line.
func oneLine(description string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(description), "\n\n")
	return strings.TrimSuffix(strings.Join(strings.Fields(first), " "), ".")
}
