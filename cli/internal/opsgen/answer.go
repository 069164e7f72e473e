package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/goccy/go-yaml"
)

// deepest is how many names a path may have: schemas may hold themselves.
const deepest = 4

// paths are the dotted paths of what a table shows of the good answer: of one
// row where the answer has rows, else of the answer. "changes.*" stands for
// whatever a free-form object holds.
func paths(responses *openapi3.Responses, rows string) []string {
	var found []string
	for status, ref := range responses.Map() {
		if !strings.HasPrefix(status, "2") || ref.Value == nil {
			continue
		}
		media := ref.Value.Content.Get("application/json")
		if media == nil {
			continue
		}
		schema := media.Schema
		if rows != "" {
			schema = element(schema, rows)
		}
		found = append(found, below(schema, nil)...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// element is the schema of the elements of the list at a dotted path.
func element(schema *openapi3.SchemaRef, path string) *openapi3.SchemaRef {
	for name := range strings.SplitSeq(path, ".") {
		schema = merge(schema).properties[name]
	}
	if schema == nil || schema.Value == nil {
		return nil
	}
	return schema.Value.Items
}

func below(schema *openapi3.SchemaRef, at []string) []string {
	if schema == nil || schema.Value == nil || len(at) == deepest {
		return nil
	}
	members := merge(schema).properties
	if items := plain(schema.Value).Items; items != nil {
		members = merge(items).properties
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		member := members[name]
		if member.Value == nil || member.Value.WriteOnly {
			continue
		}
		path := append(slices.Clone(at), name)
		found = append(found, strings.Join(path, "."))
		inner := below(member, path)
		if s := plain(member.Value); len(inner) == 0 && s.Items == nil && isObject(s) && len(s.Enum) == 0 {
			found = append(found, strings.Join(path, ".")+".*")
		}
		found = append(found, inner...)
	}
	return found
}

// example is the contract's example of a body, as the file that --file reads.
func example(ref *openapi3.SchemaRef) (string, error) {
	if ref == nil || ref.Value == nil || ref.Value.Example == nil {
		return "", nil
	}
	// By way of JSON, which writes whole numbers as such.
	encoded, err := json.Marshal(ref.Value.Example)
	if err != nil {
		return "", fmt.Errorf("the example of the body: %w", err)
	}
	text, err := yaml.JSONToYAML(encoded)
	if err != nil {
		return "", fmt.Errorf("the example of the body: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
