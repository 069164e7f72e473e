// Package ops is the command table: one row for every operation of the
// contract, with what the command line needs to know about it.
//
// The rows in ops.gen.go are written by opsgen from openapi.yaml; package
// command turns each into a command, and package invoke turns the row and the
// values given to it into one HTTP request. The table is data on purpose: an
// operation added to the contract becomes a command, its flags, its help and
// its completion without a line of code here, and relayctl needs neither the
// contract nor an OpenAPI library when it runs.
//
// The generator is run with the build tag opsgen, which leaves ops.gen.go out:
// a change of the row type can therefore never leave a table that stops its own
// generator from compiling.
package ops

//go:generate go run -tags opsgen ../opsgen -spec ../../../openapi.yaml -out ops.gen.go

import (
	"slices"
	"strings"
)

// Kind says how the text of a flag becomes a JSON value.
type Kind string

// The kinds. A List holds elements of the field's Item kind, a Map holds
// key=value pairs with values of the Item kind, JSON is anything else and is
// written as a JSON document on the command line.
const (
	String  Kind = "string"
	Integer Kind = "integer"
	Number  Kind = "number"
	Boolean Kind = "boolean"
	List    Kind = "list"
	Map     Kind = "map"
	JSON    Kind = "json"
)

// In says where in the request a parameter travels.
type In string

// The places of a parameter.
const (
	Path   In = "path"
	Query  In = "query"
	Header In = "header"
)

// Field is what one flag or argument accepts.
type Field struct {
	// Flag is the name on the command line, in kebab-case. A property inside
	// an object keeps its path: "tls.mode".
	Flag string
	Help string
	Kind Kind
	// Item is the kind of the elements of a List or the values of a Map.
	Item Kind
	// Format is the contract's format ("date-time", "email", …), for help.
	Format string
	// Enum lists the accepted values, of the field or of its elements.
	Enum []string
	// Minimum and Maximum bound a number; empty is no bound.
	Minimum string
	Maximum string
	// Default is the server's default, for help only: it is never sent.
	Default string
	// Required says that the contract refuses a request without it.
	Required bool
	// Nullable says that the word null clears the value.
	Nullable bool
	// Secret values are read from a file, standard input or a prompt, never
	// from the arguments, and are masked wherever a request is shown.
	Secret bool
}

// Param is a path, query or header parameter.
type Param struct {
	// Name is the name on the wire.
	Name string
	In   In
	Field
}

// Argument is the parameter as usage lines show it: DOMAIN.
func (p Param) Argument() string { return strings.ToUpper(strings.ReplaceAll(p.Name, "_", "-")) }

// Property is one property of the request body.
type Property struct {
	// Path leads from the body to the property: {"tls", "mode"}.
	Path []string
	Field
}

// Pointer returns the property's JSON pointer, as problems name it.
func (p Property) Pointer() string {
	return "/" + strings.Join(p.Path, "/")
}

// Body describes the request body of an operation.
type Body struct {
	// Types are the accepted media types, JSON first. A body of another type
	// is sent as the file holds it.
	Types    []string
	Required bool
	// Properties is empty where the body has no JSON object form.
	Properties []Property
	// Example is the contract's example as YAML, empty where it has none.
	Example string
}

// Resource is what the operations of one tag are about.
type Resource struct {
	Name string
	Text string
}

// Op is one operation.
type Op struct {
	ID     string
	Method string
	// Path is the path template below the server's URL: "/v1/domains/{domain}".
	Path string
	// Group and Verb are the words of the command: relayctl GROUP… VERB.
	// Resource names the tag.
	Group       []string
	Verb        string
	Resource    string
	Summary     string
	Description string
	Example     string
	// Scope and Roles say who may call it, for help.
	Scope string
	Roles []string
	// Columns are the dotted paths that a table shows.
	Columns []string
	// Paths are all dotted paths that a row of the answer, or the answer, can
	// have; "changes.*" stands for whatever a free-form object holds.
	Paths []string
	// Confirm is the question asked before a destructive request; empty asks
	// nothing.
	Confirm string
	// Select are properties of the body at least one of which a request names;
	// empty where the contract's own rules say all.
	Select []string
	// Absent is what to try where the object does not exist, with {name} for an
	// argument; Then what to do with a good answer, with {name} for a property of
	// it and {url} for the server. Either may be empty.
	Absent, Then string
	// Hidden keeps the command out of help, not out of reach.
	Hidden bool
	// Stream says that the response goes on until it is interrupted.
	Stream bool
	// Public operations need no token.
	Public bool
	// Paged operations answer items and next_page_token; PageMax is the most
	// items that a page can hold.
	Paged   bool
	PageMax int
	// Rows is the dotted path to the list that a table shows, one object a
	// row; empty where the answer is one object.
	Rows string
	// Watch are the dotted paths that tell rows of the answer apart, so that it
	// can be watched; empty where it cannot.
	Watch []string
	// Await is the operation that shows, by the id in the answer, what becomes of
	// what was begun, and Until the property that it has at the end; empty where
	// the answer is the end.
	Await, Until string
	// Raw answers are written as they come: CSV, metrics, the contract.
	Raw bool
	// Produces are the media types of the good answer, JSON first.
	Produces []string
	Params   []Param
	Body     *Body
}

// Command returns the words of the command without the program's name.
func (o *Op) Command() string {
	return strings.Join(append(slices.Clone(o.Group), o.Verb), " ")
}

// Arguments returns the path parameters in the order of the path template.
func (o *Op) Arguments() []Param {
	return slices.DeleteFunc(slices.Clone(o.Params), func(p Param) bool { return p.In != Path })
}

// Param returns the parameter of that wire name and place.
func (o *Op) Param(in In, name string) (Param, bool) {
	i := slices.IndexFunc(o.Params, func(p Param) bool { return p.In == in && p.Name == name })
	if i < 0 {
		return Param{}, false
	}
	return o.Params[i], true
}

// FlagNamed returns the flag, without dashes, of the parameter or property of
// that wire name ("tls.mode" for one inside an object); empty where no flag sets
// it.
func (o *Op) FlagNamed(name string) string {
	for _, p := range o.Params {
		if p.Name == name && p.In != Path {
			return p.Input()
		}
	}
	if o.Body == nil {
		return ""
	}
	for _, p := range o.Body.Properties {
		if strings.Join(p.Path, ".") == name {
			return p.Input()
		}
	}
	return ""
}

// Input is the flag that the field is set by, without dashes: secrets come from
// files.
func (f Field) Input() string {
	if f.Secret {
		return f.Flag + "-file"
	}
	return f.Flag
}

// Reserved returns the flags that every command has. A parameter or property
// of one of these names gets a prefix that says what it is: --body-url.
func Reserved() []string {
	return []string{
		"allow-http", "ca-file", "color", "columns", "config", "content-type", "context", "dry-run", "file",
		"help", "interval", "jq", "max-items", "no-headers", "output", "retries", "timeout", "token", "token-file", "url",
		"verbose", "version", "watch", "yes",
	}
}
