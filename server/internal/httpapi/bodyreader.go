package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
)

// bodyReader reads a request body in one pass, checks it on the way and fills the type that the handler takes. It is for
// operations whose bodies are many and large: general validation reads the text three times, as tokens, as maps and into the
// type, and costs ten times as much.
//
// It takes only what is sure to be right. Whatever is not, it leaves to the general way, which finds the words for it, so nothing
// is refused here, and nothing may be taken here that would be refused there.
type bodyReader struct {
	into reflect.Type
	read valueReader
}

// valueReader reads one value of the text into a variable; false is "not sure to be right".
type valueReader func(s *bodyScan, into reflect.Value) bool

// newBodyReader compiles a schema for a type. A schema with rules that a bodyReader does not know is an error.
func newBodyReader(schema *openapi3.Schema, into reflect.Type) (*bodyReader, error) {
	read, err := readerOf(schema, into)
	return &bodyReader{into: into, read: read}, err
}

// Read returns a pointer to the value of a body.
func (r *bodyReader) Read(body []byte) (any, bool) {
	if !utf8.Valid(body) {
		return nil, false
	}
	s := &bodyScan{text: string(body)} // once: all strings of the value are parts of it
	value := reflect.New(r.into)
	if !r.read(s, value.Elem()) {
		return nil, false
	}
	s.space()
	return value.Interface(), s.at == len(s.text)
}

func readerOf(schema *openapi3.Schema, into reflect.Type) (valueReader, error) {
	switch {
	case schema.Type.Is(openapi3.TypeObject) && into.Kind() == reflect.Struct:
		return objectReader(schema, into)
	case schema.Type.Is(openapi3.TypeArray) && into.Kind() == reflect.Slice:
		return listReader(schema, into)
	case schema.Type.Is(openapi3.TypeString) && schema.Format == "date-time" && into == reflect.TypeFor[time.Time]():
		return readTime, onlyRules(schema, "format")
	case schema.Type.Is(openapi3.TypeString) && len(schema.Enum) > 0 && into.Kind() == reflect.String:
		return choiceReader(schema)
	case schema.Type.Is(openapi3.TypeString) && into.Kind() == reflect.String:
		return textReader(schema)
	case schema.Type.Is(openapi3.TypeInteger) && into.Kind() == reflect.Int64:
		return integerReader(schema)
	}
	return nil, fmt.Errorf("no reader of %s into %s", schema.Type, into)
}

// onlyRules is an error for a schema with other rules than the named ones.
func onlyRules(schema *openapi3.Schema, rules ...string) error {
	text, err := schema.MarshalJSON()
	if err != nil {
		return err
	}
	var found map[string]json.RawMessage
	if err := json.Unmarshal(text, &found); err != nil {
		return err
	}
	for rule := range found {
		if !slices.Contains([]string{"type", "description", "example"}, rule) && !slices.Contains(rules, rule) {
			return fmt.Errorf("rule %q has no reader", rule)
		}
	}
	return nil
}

// member is one member of an object; its place among them is that of its field.
type member struct {
	name string
	read valueReader
}

func objectReader(schema *openapi3.Schema, into reflect.Type) (valueReader, error) {
	if err := onlyRules(schema, "properties", "required", "additionalProperties"); err != nil {
		return nil, err
	}
	if extra := schema.AdditionalProperties.Has; extra == nil || *extra || len(schema.Properties) > 64 {
		return nil, errors.New("an object must be closed and of at most 64 members")
	}
	var members []member
	var required uint64
	for field := range into.NumField() {
		declared := into.Field(field)
		name, _, _ := strings.Cut(declared.Tag.Get("json"), ",")
		property := schema.Properties[name]
		if property == nil {
			return nil, fmt.Errorf("%s.%s is not in the contract", into, declared.Name)
		}
		read, err := memberReader(property.Value, declared.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		members = append(members, member{name: name, read: read})
		if slices.Contains(schema.Required, name) {
			required |= 1 << field
		}
	}
	if len(members) != len(schema.Properties) {
		return nil, fmt.Errorf("%s does not have all members of the contract", into)
	}
	return func(s *bodyScan, into reflect.Value) bool { return s.object(members, required, into) }, nil
}

// memberReader reads into what a pointer points to, where the field is one.
func memberReader(schema *openapi3.Schema, into reflect.Type) (valueReader, error) {
	if into.Kind() != reflect.Pointer {
		return readerOf(schema, into)
	}
	read, err := readerOf(schema, into.Elem())
	switch into.Elem() {
	case reflect.TypeFor[string]():
		return pointedTo(read, func(s *bodyScan) *string { return s.texts.variable() }), err
	case reflect.TypeFor[int64]():
		return pointedTo(read, func(s *bodyScan) *int64 { return s.numbers.variable() }), err
	case reflect.TypeFor[time.Time]():
		return pointedTo(read, func(s *bodyScan) *time.Time { return s.times.variable() }), err
	}
	return nil, fmt.Errorf("no reader of a pointer to %s", into.Elem())
}

// pointedTo reads into a new variable that the field then points to.
func pointedTo[T any](read valueReader, variable func(*bodyScan) *T) valueReader {
	return func(s *bodyScan, field reflect.Value) bool {
		pointer := reflect.ValueOf(variable(s))
		field.Set(pointer)
		return read(s, pointer.Elem())
	}
}

func listReader(schema *openapi3.Schema, into reflect.Type) (valueReader, error) {
	if err := onlyRules(schema, "items", "maxItems"); err != nil {
		return nil, err
	}
	read, err := readerOf(schema.Items.Value, into.Elem())
	if err != nil {
		return nil, err
	}
	limit := 1 << 20
	if schema.MaxItems != nil {
		limit = int(*schema.MaxItems)
	}
	return func(s *bodyScan, into reflect.Value) bool { return s.list(read, limit, into) }, nil
}

func choiceReader(schema *openapi3.Schema) (valueReader, error) {
	choices := map[string]bool{}
	for _, choice := range schema.Enum {
		text, _ := choice.(string)
		choices[text] = true
	}
	return func(s *bodyScan, into reflect.Value) bool {
		text, ok := s.quoted()
		into.SetString(text)
		return ok && choices[text]
	}, onlyRules(schema, "enum")
}

// textReader counts bytes, of which there are never fewer than characters: a text in between is left to the general way.
func textReader(schema *openapi3.Schema) (valueReader, error) {
	limit := 1 << 20
	if schema.MaxLength != nil {
		limit = int(*schema.MaxLength)
	}
	return func(s *bodyScan, into reflect.Value) bool {
		text, ok := s.quoted()
		into.SetString(text)
		return ok && len(text) <= limit
	}, onlyRules(schema, "maxLength")
}

func integerReader(schema *openapi3.Schema) (valueReader, error) {
	if schema.Min == nil || *schema.Min < 0 {
		return nil, errors.New("only integers from 0 on have a reader")
	}
	least := int64(*schema.Min)
	return func(s *bodyScan, into reflect.Value) bool {
		number, ok := s.natural()
		into.SetInt(number)
		return ok && number >= least
	}, onlyRules(schema, "format", "minimum")
}

// readTime takes instants in UTC, which is what programs write. Go would take an hour of one digit too, and a comma before
// the fraction.
func readTime(s *bodyScan, into reflect.Value) bool {
	text, ok := s.quoted()
	if !ok || !strings.HasSuffix(text, "Z") || strings.IndexByte(text, ':') != len("2006-01-02T15") || strings.Contains(text, ",") {
		return false
	}
	instant, isTime := into.Addr().Interface().(*time.Time)
	return isTime && instant.UnmarshalText([]byte(text)) == nil
}
