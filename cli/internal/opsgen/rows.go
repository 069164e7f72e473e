package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"activerelay/cli/internal/ops"
)

// hints is the x-cli extension of an operation.
type hints struct {
	Group   []string `json:"group"`
	Verb    string   `json:"verb"`
	Columns []string `json:"columns"`
	Confirm string   `json:"confirm"`
	Hidden  bool     `json:"hidden"`
	Example string   `json:"example"`
	Stream  bool     `json:"stream"`
	Rows    string   `json:"rows"`
	Raw     bool     `json:"raw"`
	Watch   []string `json:"watch"`
	Select  []string `json:"select"`
	Absent  string   `json:"absent"`
	Then    string   `json:"then"`
	Await   struct {
		Operation string `json:"operation"`
		Until     string `json:"until"`
	} `json:"await"`
}

// rows returns a row for every operation of the contract, sorted by command.
// It reports every operation at fault, not only the first.
func rows(doc *openapi3.T) ([]ops.Op, error) {
	var table []ops.Op
	var faults []error
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			row, err := rowOf(doc, operationAt{path: path, method: method, item: item, Operation: operation})
			if err != nil {
				faults = append(faults, fmt.Errorf("%s %s: %w", method, path, err))
				continue
			}
			table = append(table, row)
		}
	}
	slices.SortFunc(table, func(a, b ops.Op) int {
		return cmp.Or(cmp.Compare(a.Command(), b.Command()), cmp.Compare(a.ID, b.ID))
	})
	for i := 1; i < len(table); i++ {
		if table[i].Command() == table[i-1].Command() {
			faults = append(faults, fmt.Errorf("%s and %s are both %q", table[i-1].ID, table[i].ID, table[i].Command()))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return table, errors.Join(faults...)
}

// resources returns the tags of the contract.
func resources(doc *openapi3.T) []ops.Resource {
	var found []ops.Resource
	for _, tag := range doc.Tags {
		found = append(found, ops.Resource{Name: tag.Name, Text: oneLine(tag.Description)})
	}
	return found
}

// operationAt is an operation with where the contract has it.
type operationAt struct {
	path   string
	method string
	item   *openapi3.PathItem
	*openapi3.Operation
}

func rowOf(doc *openapi3.T, o operationAt) (ops.Op, error) {
	h, err := extension[hints](o.Extensions, "x-cli")
	if err != nil {
		return ops.Op{}, err
	}
	if err := complete(o, h); err != nil {
		return ops.Op{}, err
	}
	scope, err := extension[string](o.Extensions, "x-scope")
	if err != nil {
		return ops.Op{}, err
	}
	roles, err := extension[[]string](o.Extensions, "x-roles")
	if err != nil {
		return ops.Op{}, err
	}
	row := ops.Op{
		ID: o.OperationID, Method: o.method, Path: o.path,
		Group: h.Group, Verb: h.Verb, Resource: o.Tags[0],
		Summary: strings.TrimSpace(o.Summary), Description: strings.TrimSpace(o.Description),
		Example: strings.TrimSpace(h.Example), Scope: scope, Roles: roles,
		Columns: h.Columns, Confirm: h.Confirm, Hidden: h.Hidden, Stream: h.Stream, Raw: h.Raw, Watch: h.Watch, Await: h.Await.Operation, Until: h.Await.Until,
		Select: h.Select, Absent: h.Absent, Then: strings.TrimSpace(h.Then),
		Public: public(doc, o.Operation), PageMax: pageMax(o),
	}
	row.Params = params(o)
	if row.Body, err = body(o.RequestBody); err != nil {
		return ops.Op{}, err
	}
	var items bool
	row.Produces, items, row.Paged = produces(o.Responses)
	if row.Rows = h.Rows; items && h.Rows == "" {
		row.Rows = "items"
	}
	row.Paths = paths(o.Responses, row.Rows)
	return row, errors.Join(distinct(&row), askable(&row), selectable(&row))
}

func complete(o operationAt, h hints) error {
	missing := []string{}
	for _, want := range []struct {
		name string
		has  bool
	}{
		{"operationId", o.OperationID != ""},
		{"summary", o.Summary != ""},
		{"description", o.Description != ""},
		{"tags", len(o.Tags) > 0},
		{"x-cli.group", h.Group != nil},
		{"x-cli.verb", h.Verb != ""},
		{"x-cli.example", h.Example != ""},
	} {
		if !want.has {
			missing = append(missing, want.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing %s", strings.Join(missing, ", "))
	}
	return nil
}

// extension decodes one x- member; an absent one is the zero value. An unknown
// key inside it is a fault: a mistyped hint would otherwise be ignored.
func extension[T any](members map[string]any, name string) (T, error) {
	var value T
	raw, ok := members[name]
	if !ok {
		return value, nil
	}
	text, err := json.Marshal(raw)
	if err != nil {
		return value, fmt.Errorf("%s: %w", name, err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil {
		return value, fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

// public says whether the operation may be called without a token: its own
// security, else the contract's, is empty or holds an empty alternative.
func public(doc *openapi3.T, o *openapi3.Operation) bool {
	requirements := doc.Security
	if o.Security != nil {
		requirements = *o.Security
	}
	if len(requirements) == 0 {
		return true
	}
	return slices.ContainsFunc(requirements, func(r openapi3.SecurityRequirement) bool { return len(r) == 0 })
}

// params returns the path parameters in the order of the template, then the
// others in the order of the contract. X-Request-Id is left out: the client
// makes one for every request.
func params(o operationAt) []ops.Param {
	var found []ops.Param
	for _, list := range []openapi3.Parameters{o.item.Parameters, o.Parameters} {
		for _, ref := range list {
			p := ref.Value
			if p.In == openapi3.ParameterInCookie || strings.EqualFold(p.Name, "X-Request-Id") {
				continue
			}
			f := field(p.Schema)
			f.Flag = flagName("param", p.Name)
			f.Help = oneLine(cmp.Or(p.Description, f.Help))
			f.Required = p.Required
			found = append(found, ops.Param{Name: p.Name, In: ops.In(p.In), Field: f})
		}
	}
	slices.SortStableFunc(found, func(a, b ops.Param) int { return cmp.Compare(place(o.path, a), place(o.path, b)) })
	return found
}

func place(path string, p ops.Param) int {
	if p.In != ops.Path {
		return len(path)
	}
	return strings.Index(path, "{"+p.Name+"}")
}

func pageMax(o operationAt) int {
	p := o.Parameters.GetByInAndName(openapi3.ParameterInQuery, "page_size")
	if p == nil || p.Schema == nil || p.Schema.Value.Max == nil {
		return 0
	}
	return int(*p.Schema.Value.Max)
}

// produces returns the media types of the good answers, whether they hold
// items, and whether they are pages of a list.
func produces(responses *openapi3.Responses) (types []string, items, paged bool) {
	for status, ref := range responses.Map() {
		if !strings.HasPrefix(status, "2") || ref.Value == nil {
			continue
		}
		types = append(types, slices.Collect(maps.Keys(ref.Value.Content))...)
		if media := ref.Value.Content.Get("application/json"); media != nil && media.Schema != nil {
			_, hasItems := media.Schema.Value.Properties["items"]
			_, hasNext := media.Schema.Value.Properties["next_page_token"]
			items = items || hasItems
			paged = paged || hasItems && hasNext
		}
	}
	return jsonFirst(types), items, paged
}

func jsonFirst(types []string) []string {
	slices.SortFunc(types, func(a, b string) int {
		return cmp.Or(cmp.Compare(jsonRank(a), jsonRank(b)), cmp.Compare(a, b))
	})
	return slices.Compact(types)
}

func jsonRank(mediaType string) int {
	switch {
	case mediaType == "application/json":
		return 0
	case strings.HasSuffix(mediaType, "json"):
		return 1
	default:
		return 2
	}
}

// askable refuses a question that names what is no argument.
func askable(row *ops.Op) error {
	question := row.Confirm
	for _, p := range row.Arguments() {
		question = strings.ReplaceAll(question, "{"+p.Name+"}", "")
	}
	if strings.ContainsAny(question, "{}") {
		return fmt.Errorf("x-cli.confirm names what is no path parameter: %q", row.Confirm)
	}
	return nil
}

// selectable refuses a selection by what no flag sets.
func selectable(row *ops.Op) error {
	for _, name := range row.Select {
		if row.FlagNamed(name) == "" {
			return fmt.Errorf("x-cli.select names what is no property: %q", name)
		}
	}
	return nil
}

// distinct refuses two inputs of one flag name.
func distinct(row *ops.Op) error {
	seen := map[string]bool{}
	add := func(f ops.Field) error {
		if seen[f.Flag] {
			return fmt.Errorf("two inputs are called --%s", f.Flag)
		}
		seen[f.Flag] = true
		return nil
	}
	for _, p := range row.Params {
		if err := add(p.Field); err != nil {
			return err
		}
	}
	if row.Body == nil {
		return nil
	}
	for _, p := range row.Body.Properties {
		if err := add(p.Field); err != nil {
			return err
		}
	}
	return nil
}
