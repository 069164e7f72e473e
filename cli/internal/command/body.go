package command

import (
	"context"
	"slices"
	"strings"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/invoke"
	"activerelay/cli/internal/ops"
)

// body makes the request body from the file and the flags.
func (a *app) body(ctx context.Context, op *ops.Op, in *inputs) (*invoke.Body, error) {
	if op.Body == nil {
		return nil, nil
	}
	if users := in.stdinUsers(); len(users) > 1 && !a.StdinTTY {
		return nil, failure.Usagef("%s cannot all read standard input", strings.Join(users, " and "))
	}
	values, err := a.values(ctx, op, in)
	if err != nil {
		return nil, err
	}
	if in.contentType != nil && *in.contentType != op.Body.Types[0] {
		return a.verbatim(ctx, op, in, values)
	}
	var document any
	if *in.file != "" {
		text, err := a.readFile(ctx, "file", *in.file)
		if err != nil {
			return nil, err
		}
		if document, err = invoke.Document(*in.file, text); err != nil {
			return nil, err
		}
	}
	if document == nil && len(values) == 0 {
		switch {
		case !op.Body.Required:
			return nil, nil
		case op.Method == "PATCH":
			return nil, failure.Usagef("nothing to change: give a flag for each property to change, or --file")
		}
	}
	if err := a.require(ctx, op, document, values); err != nil {
		return nil, err
	}
	return invoke.JSONBody(op.Body, document, values)
}

// verbatim sends the file as it is, under a type that is not JSON.
func (a *app) verbatim(ctx context.Context, op *ops.Op, in *inputs, values map[string]any) (*invoke.Body, error) {
	switch {
	case !slices.Contains(op.Body.Types, *in.contentType):
		return nil, failure.Usagef("--content-type takes one of %s, not %q", strings.Join(op.Body.Types, ", "), *in.contentType)
	case *in.file == "":
		return nil, failure.Usagef("--content-type %s needs --file", *in.contentType)
	case len(values) > 0:
		return nil, failure.Usagef("flags for single properties need a JSON body, not %s", *in.contentType)
	}
	text, err := a.readFile(ctx, "file", *in.file)
	if err != nil {
		return nil, err
	}
	return &invoke.Body{Type: *in.contentType, Content: text, Shown: text}, nil
}

// values are the properties that were given by flags.
func (a *app) values(ctx context.Context, op *ops.Op, in *inputs) (map[string]any, error) {
	values := map[string]any{}
	for _, p := range op.Body.Properties {
		given := in.properties[p.Flag]
		if len(given.texts) == 0 {
			continue
		}
		texts := given.texts
		if p.Secret && !(p.Nullable && texts[len(texts)-1] == "null") {
			secret, err := a.readSecret(ctx, p.Input(), texts[len(texts)-1])
			if err != nil {
				return nil, err
			}
			values[p.Flag] = secret
			continue
		}
		value, err := invoke.Value(p.Field, texts)
		if err != nil {
			return nil, err
		}
		values[p.Flag] = value
	}
	return values, nil
}

// require asks for a secret that is missing, and refuses a body that lacks
// something else which the contract requires. Deeper rules are the server's.
func (a *app) require(ctx context.Context, op *ops.Op, document any, values map[string]any) error {
	object, isObject := document.(map[string]any)
	if document != nil && !isObject {
		return nil
	}
	var missing []string
	for _, p := range op.Body.Properties {
		_, inFlags := values[p.Flag]
		if !p.Required || inFlags || present(object, p.Path) {
			continue
		}
		if p.Secret && a.StdinTTY && a.ReadSecret != nil {
			secret, err := a.askSecret(ctx, p.Input())
			if err != nil {
				return err
			}
			values[p.Flag] = secret
			continue
		}
		missing = append(missing, "--"+p.Input())
	}
	if len(missing) > 0 {
		return failure.Usagef("missing %s", strings.Join(missing, ", "))
	}
	return selection(op, object, values)
}

// selection refuses a body that does not say what it is about.
func selection(op *ops.Op, object, values map[string]any) error {
	for _, name := range op.Select {
		if _, inFlags := values[op.FlagNamed(name)]; inFlags || present(object, []string{name}) {
			return nil
		}
	}
	if len(op.Select) == 0 {
		return nil
	}
	fault := failure.Usagef("say what it is about, with one or more of %s", strings.Join(selecting(op), ", "))
	fault.Next, _, _ = strings.Cut(op.Example, "\n")
	return fault
}

// selecting are the flags that say what it is about.
func selecting(op *ops.Op) []string {
	var flags []string
	for _, name := range op.Select {
		flags = append(flags, "--"+op.FlagNamed(name))
	}
	return flags
}

func present(object map[string]any, path []string) bool {
	for i, name := range path {
		value, has := object[name]
		if !has || i == len(path)-1 {
			return has
		}
		object, _ = value.(map[string]any)
	}
	return false
}
