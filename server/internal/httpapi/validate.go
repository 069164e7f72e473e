package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/labstack/echo/v4"

	"activerelay/api/problem"
)

// Validate holds a request to the contract. What the handler binds afterwards is the value that was validated, member
// names compared exactly, and absent members stay absent: defaults are the handler's.
func (a *API) Validate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		op := callFrom(c.Request().Context()).operation
		if op == nil {
			return next(c)
		}
		read, err := checkBody(c, op)
		if err != nil {
			return err
		}
		if err := unknownParameters(c, op); err != nil {
			return err
		}
		parameters, err := pathParameters(c)
		if err != nil {
			return err
		}
		if read {
			return next(c)
		}
		err = openapi3filter.ValidateRequest(c.Request().Context(), &openapi3filter.RequestValidationInput{
			Request: c.Request(), PathParams: parameters, Route: op.route, QueryParams: c.QueryParams(),
			Options: &openapi3filter.Options{
				MultiError: true, SkipSettingDefaults: true, KeepValidatedValue: true,
				AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, // done before
			},
		})
		if err != nil {
			return violations(err)
		}
		return next(c)
	}
}

// checkBody looks at what the validator does not: the media type first, then JSON that two parsers could read in two
// ways. It reports true where the operation has a reader of its own, and nothing of the body is left to validate.
func checkBody(c echo.Context, op *operation) (read bool, err error) {
	declared := op.route.Operation.RequestBody
	body, err := bodyOf(c.Request())
	if err != nil {
		return false, err
	}
	if declared == nil {
		if len(body) > 0 {
			return false, problem.Malformed("This operation takes no request body")
		}
		return false, nil
	}
	kinds := mediaTypes(declared.Value)
	if len(body) == 0 {
		return false, problem.Malformed("This operation needs a request body")
	}
	kind, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	if err != nil || !slices.Contains(kinds, kind) {
		return false, problem.UnsupportedMediaType(kinds...)
	}
	if op.body != nil {
		if value, ok := op.body.Read(body); ok {
			c.Set(readBody, value)
			return true, nil
		}
	}
	if strings.HasSuffix(kind, "json") {
		return false, checkJSON(body)
	}
	return false, nil
}

// bodyOf returns the body of a request, which can be read all the same. Limit has it in memory where there is one.
func bodyOf(request *http.Request) ([]byte, error) {
	if whole, held := request.Body.(*wholeBody); held {
		return whole.content, nil
	}
	content, err := io.ReadAll(request.Body)
	request.Body = newWholeBody(content)
	return content, err
}

// readBody is where the value of a body is kept that a bodyReader has read.
const readBody = "body"

// bodies hands such values to the generated glue, and decodes all other bodies.
type bodies struct{ echo.DefaultJSONSerializer }

// Deserialize implements echo.JSONSerializer.
func (b bodies) Deserialize(c echo.Context, into any) error {
	value := reflect.ValueOf(c.Get(readBody))
	if target := reflect.ValueOf(into); value.IsValid() && value.Type() == target.Type() {
		target.Elem().Set(value.Elem())
		return nil
	}
	return b.DefaultJSONSerializer.Deserialize(c, into)
}

func mediaTypes(body *openapi3.RequestBody) []string {
	var kinds []string
	for kind := range body.Content {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}

// unknownParameters refuses query parameters that the contract does not know: a misspelt filter would otherwise list
// everything.
func unknownParameters(c echo.Context, op *operation) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return problem.Malformed("The query cannot be read")
	}
	var known []string
	for _, list := range []openapi3.Parameters{op.route.PathItem.Parameters, op.route.Operation.Parameters} {
		for _, parameter := range list {
			if parameter.Value.In == openapi3.ParameterInQuery {
				known = append(known, parameter.Value.Name)
			}
		}
	}
	slices.Sort(known)
	for name, values := range query {
		if !slices.Contains(known, name) {
			return invalid("query/"+name, "unknown", "is not a parameter of this operation", known...)
		}
		for _, value := range values {
			if err := checkLine("query/"+name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// pathParameters returns the parameters of the path, unescaped.
func pathParameters(c echo.Context) (map[string]string, error) {
	parameters := map[string]string{}
	for _, name := range c.ParamNames() {
		value := c.Param(name)
		if c.Request().URL.RawPath != "" {
			unescaped, err := url.PathUnescape(value)
			if err != nil {
				return nil, problem.Malformed("The path cannot be read")
			}
			value = unescaped
		}
		if err := checkLine("path/"+name, value); err != nil {
			return nil, err
		}
		parameters[name] = value
	}
	return parameters, nil
}

// violations turns what the validator found into one problem: 400 where the request cannot be read, 422 where fields of
// its body break rules. Nothing of the validator's own text goes out, because it repeats schema and value.
func violations(err error) error {
	var parameters, body []problem.InvalidField
	for _, one := range flatten(err) {
		var request *openapi3filter.RequestError
		if !errors.As(one, &request) {
			return fmt.Errorf("validate request: %w", one)
		}
		fields, readable := requestFields(request)
		switch {
		case request.Parameter != nil:
			parameters = append(parameters, fields...)
		case !readable:
			return problem.Malformed("The request body cannot be read")
		default:
			body = append(body, fields...)
		}
	}
	if len(parameters) > 0 {
		return problem.Malformed("", append(parameters, body...)...)
	}
	return problem.Invalid(body...)
}

// flatten lists the errors of nested lists in order.
func flatten(err error) []error {
	list, nested := err.(openapi3.MultiError)
	if !nested {
		return []error{err}
	}
	var all []error
	for _, one := range list {
		all = append(all, flatten(one)...)
	}
	return all
}

// requestFields lists the fields of one error, each once. It reports false where the body could not even be decoded.
func requestFields(request *openapi3filter.RequestError) (fields []problem.InvalidField, readable bool) {
	for _, cause := range flatten(request.Err) {
		var schema *openapi3.SchemaError
		switch {
		case errors.As(cause, &schema):
			fields = appendField(fields, schemaField(request.Parameter, schema))
		case request.Parameter != nil:
			fields = append(fields, parameterField(request.Parameter, cause))
		default:
			return nil, false
		}
	}
	return fields, true
}

func appendField(fields []problem.InvalidField, field problem.InvalidField) []problem.InvalidField {
	for _, have := range fields {
		if have.Pointer == field.Pointer && have.Rule == field.Rule {
			return fields
		}
	}
	return append(fields, field)
}
