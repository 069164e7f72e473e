package invoke

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

func TestTextsBecomeTheValuesThatTheContractWants(t *testing.T) {
	for _, c := range []struct {
		name  string
		field ops.Field
		texts []string
		want  string // as JSON
	}{
		{"text", ops.Field{Kind: ops.String}, []string{"null"}, `"null"`},
		{"the last text wins", ops.Field{Kind: ops.String}, []string{"a", "b"}, `"b"`},
		{"null clears", ops.Field{Kind: ops.String, Nullable: true}, []string{"null"}, `null`},
		{"null clears a list", ops.Field{Kind: ops.List, Item: ops.String, Nullable: true}, []string{"null"}, `null`},
		{"a whole number keeps its digits", ops.Field{Kind: ops.Integer}, []string{"9007199254740993"}, `9007199254740993`},
		{"number", ops.Field{Kind: ops.Number}, []string{"1.50"}, `1.50`},
		{"true", ops.Field{Kind: ops.Boolean}, []string{"yes"}, `true`},
		{"false", ops.Field{Kind: ops.Boolean}, []string{"FALSE"}, `false`},
		{"choice", ops.Field{Kind: ops.String, Enum: []string{"a", "b"}}, []string{"b"}, `"b"`},
		{"instant", ops.Field{Kind: ops.String, Format: "date-time"}, []string{"2026-11-22T00:00:00+01:00"}, `"2026-11-22T00:00:00+01:00"`},
		{"list, repeated and with commas", ops.Field{Kind: ops.List, Item: ops.String}, []string{"a, b", "c"}, `["a","b","c"]`},
		{"list as JSON", ops.Field{Kind: ops.List, Item: ops.String}, []string{`["a,b"]`}, `["a,b"]`},
		{"empty list", ops.Field{Kind: ops.List, Item: ops.String}, []string{`[]`}, `[]`},
		{"list of numbers", ops.Field{Kind: ops.List, Item: ops.Integer}, []string{`1,2`}, `[1,2]`},
		{"list of objects", ops.Field{Kind: ops.List, Item: ops.JSON}, []string{`{"a":1,"b":2}`, `{}`}, `[{"a":1,"b":2},{}]`},
		{"map", ops.Field{Kind: ops.Map, Item: ops.Integer}, []string{"a=1,b=2", "a=3"}, `{"a":3,"b":2}`},
		{"map as JSON", ops.Field{Kind: ops.Map, Item: ops.Integer}, []string{`{"a":1}`}, `{"a":1}`},
		{"JSON", ops.Field{Kind: ops.JSON}, []string{`[1,{"a":null}]`}, `[1,{"a":null}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Value(c.field, c.texts)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != c.want {
				t.Errorf("%q gave %s, want %s", c.texts, text, c.want)
			}
		})
	}
}

func TestATextThatIsNoValueIsAUsageErrorThatNamesTheFlag(t *testing.T) {
	for _, c := range []struct {
		name  string
		field ops.Field
		text  string
		want  string
	}{
		{"number", ops.Field{Flag: "n", Kind: ops.Integer}, "1.5", `--n takes a whole number, not "1.5"`},
		{"null where nothing can be cleared", ops.Field{Flag: "n", Kind: ops.Integer}, "null", `--n takes a whole number, not "null"`},
		{"choice", ops.Field{Flag: "c", Kind: ops.String, Enum: []string{"a", "b"}}, "x", `--c takes one of a, b, not "x"`},
		{"choice in a list", ops.Field{Flag: "c", Kind: ops.List, Item: ops.String, Enum: []string{"a"}}, "a,x", `--c takes one of a, not "x"`},
		{"instant", ops.Field{Flag: "at", Kind: ops.String, Format: "date-time"}, "tomorrow", `--at takes an instant such as 2026-11-22T15:04:05Z, not "tomorrow"`},
		{"boolean", ops.Field{Flag: "b", Kind: ops.Boolean}, "maybe", `--b takes true or false, not "maybe"`},
		{"pair", ops.Field{Flag: "m", Kind: ops.Map, Item: ops.String}, "a", `--m takes key=value, not "a"`},
		{"JSON", ops.Field{Flag: "j", Kind: ops.JSON}, "{", `--j takes a JSON value, not "{"`},
		{"two JSON values", ops.Field{Flag: "j", Kind: ops.JSON}, "1 2", `--j takes a JSON value, not "1 2"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Value(c.field, []string{c.text})
			var known *failure.Error
			if !errors.As(err, &known) || known.Code != failure.Usage {
				t.Fatalf("got %v, %v, want a usage error", got, err)
			}
			if known.Error() != c.want {
				t.Errorf("got  %s\nwant %s", known, c.want)
			}
		})
	}
}

// routeBody has what bodies are made of: an object in an object, a secret.
func routeBody() *ops.Body {
	return &ops.Body{Types: []string{"application/json"}, Properties: []ops.Property{
		{Path: []string{"host"}, Field: ops.Field{Flag: "host", Kind: ops.String}},
		{Path: []string{"password"}, Field: ops.Field{Flag: "password", Kind: ops.String, Secret: true, Nullable: true}},
		{Path: []string{"tls"}, Field: ops.Field{Flag: "tls", Kind: ops.JSON, Nullable: true}},
		{Path: []string{"tls", "mode"}, Field: ops.Field{Flag: "tls.mode", Kind: ops.String}},
	}}
}

func TestFlagsWinOverTheFileAndLeaveTheRestOfIt(t *testing.T) {
	file, err := Document("route.yaml", []byte("host: a\nport: 587\ntls:\n  mode: none\n  verify: true\n"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := JSONBody(routeBody(), file, map[string]any{"host": "b", "tls.mode": "required"})
	if err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"host\": \"b\",\n  \"port\": 587,\n  \"tls\": {\n    \"mode\": \"required\",\n    \"verify\": true\n  }\n}\n"
	if diff := cmp.Diff(want, string(body.Content)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAWholeObjectComesBeforeItsMembers(t *testing.T) {
	body, err := JSONBody(routeBody(), nil, map[string]any{"tls.mode": "none", "tls": map[string]any{"mode": "x", "verify": true}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("{\n  \"tls\": {\n    \"mode\": \"none\",\n    \"verify\": true\n  }\n}\n", string(body.Content)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSecretsAreSentAndNotShown(t *testing.T) {
	for _, c := range []struct {
		name     string
		document any
		values   map[string]any
	}{
		{"by flag", nil, map[string]any{"password": "hunter2"}},
		{"in the file", map[string]any{"password": "hunter2"}, nil},
		{"in a batch", map[string]any{"items": []any{map[string]any{"password": "hunter2"}}}, nil},
		{"in free-form JSON", nil, map[string]any{"tls": map[string]any{"private_key": "hunter2"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := JSONBody(routeBody(), c.document, c.values)
			if err != nil {
				t.Fatal(err)
			}
			if !contains(body.Content, "hunter2") {
				t.Errorf("the secret is not sent: %s", body.Content)
			}
			if contains(body.Shown, "hunter2") || !contains(body.Shown, mask) {
				t.Errorf("the secret is not covered: %s", body.Shown)
			}
		})
	}
}

func TestADocumentKeepsNumbersAndRefusesNonsense(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"JSON", `{"n": 9007199254740993}`, `{"n":9007199254740993}`},
		{"YAML", "n: 9007199254740993\nf: 1.5\ns: \"2\"\nl: [1]", `{"f":1.5,"l":[1],"n":9007199254740993,"s":"2"}`},
		{"flow YAML that looks like JSON", "{a: b}", `{"a":"b"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			value, err := Document("x", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != c.want {
				t.Errorf("got %s, want %s", text, c.want)
			}
		})
	}
	if _, err := Document("bad.yaml", []byte("a: 1\na: 2\n")); failure.CodeOf(err) != failure.Usage {
		t.Errorf("a key that stands twice: got %v, want a usage error", err)
	}
}
