package httpapi

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"activerelay/api/problem"
)

// parameterField is a parameter that is missing or cannot be parsed.
func parameterField(parameter *openapi3.Parameter, cause error) problem.InvalidField {
	field := problem.InvalidField{Pointer: parameter.In + "/" + parameter.Name, Rule: "type", Message: "cannot be read"}
	if errors.Is(cause, openapi3filter.ErrInvalidRequired) || errors.Is(cause, openapi3filter.ErrInvalidEmptyValue) {
		field.Rule, field.Message = "required", "is required"
	} else if types := parameter.Schema.Value.Type; types != nil && len(*types) > 0 {
		field.Message = "must be " + article((*types)[0])
	}
	return field
}

// schemaField says in our words which rule of the schema a value breaks. The value itself is never repeated.
func schemaField(parameter *openapi3.Parameter, err *openapi3.SchemaError) problem.InvalidField {
	pointer := "/" + strings.Join(escapePointer(err.JSONPointer()), "/")
	if parameter != nil {
		pointer = parameter.In + "/" + parameter.Name
	} else if len(err.JSONPointer()) == 0 {
		pointer = "" // RFC 6901 5: the whole document
	}
	field := problem.InvalidField{Pointer: pointer, Rule: err.SchemaField, Message: ruleText(err)}
	if err.SchemaField == "enum" {
		for _, choice := range err.Schema.Enum {
			field.Choices = append(field.Choices, fmt.Sprint(choice))
		}
	}
	if name, unsupported := unsupportedProperty(err); unsupported {
		field.Pointer, field.Rule, field.Message = pointer+"/"+escapePointer([]string{name})[0], "unknown", "is not a known field"
		if err.Schema != nil {
			for known := range err.Schema.Properties {
				field.Choices = append(field.Choices, known)
			}
		}
		slices.Sort(field.Choices)
	}
	return field
}

// escapePointer escapes the parts of a JSON pointer, RFC 6901 3.
func escapePointer(parts []string) []string {
	escaped := make([]string, len(parts))
	for i, part := range parts {
		// A Replacer builds tables first, and this is done for every member of every body.
		escaped[i] = strings.ReplaceAll(strings.ReplaceAll(part, "~", "~0"), "/", "~1")
	}
	return escaped
}

// unsupportedProperty finds the name in the one message where the validator tells it nowhere else.
func unsupportedProperty(err *openapi3.SchemaError) (string, bool) {
	rest, found := strings.CutPrefix(err.Reason, `property "`)
	if !found {
		return "", false
	}
	return strings.CutSuffix(rest, `" is unsupported`)
}

func ruleText(err *openapi3.SchemaError) string {
	schema := err.Schema
	if schema == nil {
		return "is not valid"
	}
	switch err.SchemaField {
	case "type":
		if schema.Type != nil && len(*schema.Type) > 0 {
			return "must be " + article((*schema.Type)[0])
		}
	case "enum":
		return "is not one of the choices"
	case "required":
		return "is required"
	case "minimum":
		return fmt.Sprintf("must be at least %v", *schema.Min)
	case "maximum":
		return fmt.Sprintf("must be at most %v", *schema.Max)
	case "minLength":
		return fmt.Sprintf("must have at least %d characters", schema.MinLength)
	case "maxLength":
		return fmt.Sprintf("must have at most %d characters", *schema.MaxLength)
	case "minItems":
		return fmt.Sprintf("must have at least %d items", schema.MinItems)
	case "maxItems":
		return fmt.Sprintf("must have at most %d items", *schema.MaxItems)
	case "pattern":
		return "must match " + schema.Pattern
	case "format":
		return "must be in the format " + schema.Format
	case "nullable":
		return "must not be null"
	case "readOnly":
		return "is read-only"
	}
	return "is not valid"
}

func article(kind string) string {
	switch kind {
	case "integer", "object", "array":
		return "an " + kind
	default:
		return "a " + kind
	}
}
