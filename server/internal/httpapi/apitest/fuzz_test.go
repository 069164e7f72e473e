package apitest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// bodyTarget sends bodies to the operations that take one, on objects that exist, through the handler in this process.
type bodyTarget struct {
	*world
	handler http.Handler
	scene   scene
	taking  []operation
	edge    string
}

// newBodyTarget makes the objects that the operations are called on.
func newBodyTarget(tb testing.TB) *bodyTarget {
	tb.Helper()
	w, handler := newInProcess(tb)
	b := &bodyTarget{world: w, handler: handler, scene: absent()}
	for _, op := range operations(tb) {
		if op.declared.RequestBody != nil {
			b.taking = append(b.taking, op)
		}
	}
	b.mustSend(tb, "PUT", "/v1/partners/acme", `{"name":"Acme"}`)
	b.mustSend(tb, "PUT", "/v1/domains/acme.example", `{"partner":"acme"}`)
	b.scene.ids["partner"], b.scene.ids["domain"] = "acme", "acme.example"
	for parameter, one := range map[string]struct{ path, body, key string }{
		"address":     {"/v1/users", `{"address":"anna@acme.example"}`, "address"},
		"relay_ip_id": {"/v1/relay-ips", `{"domain":"acme.example","address":"192.0.2.1"}`, "id"},
		"route_id":    {"/v1/routes", `{"domain":"acme.example","host":"smarthost.example"}`, "id"},
		"token_id":    {"/v1/tokens", `{"role":"partner","partner":"acme","name":"x"}`, "id"},
	} {
		b.scene.ids[parameter] = text(b.mustSend(tb, "POST", one.path, one.body), one.key)
	}
	token := text(b.mustSend(tb, "POST", "/v1/join-tokens", `{}`), "token")
	joined := b.mustSend(tb, "POST", "/v1/edge/join", `{"join_token":"`+token+`","name":"edge1","version":"1","capability_version":1,`+
		`"public_key":"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="}`)
	b.edge = text(joined, "credential")
	return b
}

func (b *bodyTarget) mustSend(tb testing.TB, method, path, body string) map[string]any {
	tb.Helper()
	answer, err := b.attempt(tb.Context(), call{method: method, path: path, token: b.Token, body: body})
	var object map[string]any
	if err == nil {
		err = json.Unmarshal(answer.body, &object)
	}
	if err != nil || answer.status > 299 {
		tb.Fatalf("%s %s: %d %s %v", method, path, answer.status, answer.body, err)
	}
	return object
}

// kinds are the media types of an operation's body.
func (op operation) kinds() []string {
	return slices.Sorted(maps.Keys(op.declared.RequestBody.Value.Content))
}

// send sends one body and fails the test when the answer is a failure of ours, or breaks the contract.
func (b *bodyTarget) send(t *testing.T, op operation, kind string, body []byte) int {
	t.Helper()
	token := b.Token
	if op.scope == "edge" {
		token = b.edge
	}
	request := httptest.NewRequestWithContext(t.Context(), op.method, b.scene.address(t, op.path), bytes.NewReader(body))
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", kind)
	recorder := httptest.NewRecorder()
	b.handler.ServeHTTP(recorder, request)
	answer := recorder.Result()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode >= 500 {
		t.Errorf("%s: got %d %s for %q", op.id, answer.StatusCode, text, cut(body))
	}
	if broken := b.Contract.Check(request, answer, text); broken != nil {
		t.Errorf("%s: %v for %q", op.id, broken, cut(body))
	}
	return answer.StatusCode
}

// FuzzRequestBodies: whatever a body is, the answer is the operation's or a problem, and never a failure of ours.
func FuzzRequestBodies(f *testing.F) {
	b := newBodyTarget(f)
	for i, op := range b.taking {
		example, err := json.Marshal(op.example)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), uint8(0), example)
	}
	f.Add(uint8(0), uint8(1), []byte("From: a@b.example\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n--x--"))
	f.Fuzz(func(t *testing.T, which, kind uint8, body []byte) {
		op := b.taking[int(which)%len(b.taking)]
		kinds := op.kinds()
		b.send(t, op, kinds[int(kind)%len(kinds)], body)
	})
}

// Row 40 in small: bodies made from the schemas and from the examples, and damaged.
func TestGeneratedBodiesNeverBringTheServerDown(t *testing.T) {
	b := newBodyTarget(t)
	random := rand.New(rand.NewPCG(2026, 11))
	statuses := map[int]int{}
	reached := map[string]int{}
	for n := range 2500 {
		op := b.taking[n%len(b.taking)]
		g := generator{random: random}
		var body []byte
		var err error
		if random.IntN(4) == 0 {
			body, err = json.Marshal(op.example)
		} else {
			body, err = json.Marshal(g.value(bodySchema(op), 0))
		}
		if err != nil {
			t.Fatal(err)
		}
		if random.IntN(3) == 0 {
			body = g.damage(body)
		}
		kinds := op.kinds()
		status := b.send(t, op, kinds[random.IntN(len(kinds))], body)
		statuses[status]++
		if status < 300 || status == http.StatusConflict || status == http.StatusNotFound {
			reached[op.id]++
		}
		if t.Failed() && n > 500 {
			break
		}
	}
	t.Logf("statuses %v", statuses)
	for _, op := range b.taking {
		// An edge joins with a token that generation cannot hit.
		if reached[op.id] == 0 && op.id != "joinEdge" && op.id != "fileComplaint" && !t.Failed() {
			t.Errorf("no body got as far as the database in %s", op.id)
		}
	}
}

// generator makes values that a schema allows, and such as it nearly allows.
type generator struct{ random *rand.Rand }

// strangeTexts are texts that programs trip over.
var strangeTexts = []string{
	"", " ", "x", "\n", "\x00", "\u202e", "é", "日本", "😀", "a\u0301", "%s%n", "../..", "' OR 1=1--", "<script>", "{}", "null", "0", "-1", "1e9",
	"acme", "acme.example", "anna@acme.example", "xn--bcher-kva.example", "bücher.example", "192.0.2.1", "192.0.2.0/24", "::1", "2001:db8::/48", "0.0.0.0/0", "fe80::1%eth0",
	"2026-11-22T09:00:00Z", "2027-01-01T00:00:00+14:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-02-30", "Europe/Berlin", "Local", "edg_", "postmaster@",
	"a@b@c.example", `"q"@acme.example`, "@acme.example", "-a.example", "a..example", ".", "localhost",
}

func (g generator) value(schema *openapi3.Schema, depth int) any {
	if schema == nil || g.random.IntN(25) == 0 {
		return g.anything()
	}
	if len(schema.Enum) > 0 && g.random.IntN(8) != 0 {
		return schema.Enum[g.random.IntN(len(schema.Enum))]
	}
	if schema.Example != nil && schema.Type.Is("string") && g.random.IntN(2) == 0 {
		return schema.Example
	}
	switch {
	case schema.Type.Is("object"):
		return g.object(schema, depth)
	case schema.Type.Is("array"):
		items := make([]any, 0, 3)
		for range g.random.IntN(4) {
			items = append(items, g.value(schema.Items.Value, depth+1))
		}
		return items
	case schema.Type.Is("integer"):
		return g.integer(schema)
	case schema.Type.Is("boolean"):
		return g.random.IntN(2) == 0
	default:
		return g.text(schema)
	}
}

func (g generator) object(schema *openapi3.Schema, depth int) map[string]any {
	object := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		if slices.Contains(schema.Required, name) && g.random.IntN(30) != 0 || g.random.IntN(3) == 0 {
			object[name] = g.value(schema.Properties[name].Value, depth+1)
		}
	}
	if g.random.IntN(30) == 0 {
		object[strangeTexts[g.random.IntN(len(strangeTexts))]] = g.anything()
	}
	return object
}

func (g generator) integer(schema *openapi3.Schema) any {
	choices := []any{0, 1, -1, 2, 1000, int64(1) << 31, int64(1) << 53, int64(-1) << 63, json.Number("9223372036854775808"), json.Number("1e400"), json.Number("1.0"), 1.5}
	if schema.Min != nil {
		choices = append(choices, *schema.Min, *schema.Min, *schema.Min+1, *schema.Min-1)
	}
	if schema.Max != nil {
		choices = append(choices, *schema.Max, *schema.Max, *schema.Max+1)
	}
	return choices[g.random.IntN(len(choices))]
}

func (g generator) text(schema *openapi3.Schema) string {
	switch {
	case schema.Format == "date-time" && g.random.IntN(2) == 0:
		return fmt.Sprintf("20%02d-%02d-%02dT%02d:00:00Z", 20+g.random.IntN(20), 1+g.random.IntN(12), 1+g.random.IntN(28), g.random.IntN(24))
	case schema.MaxLength != nil && g.random.IntN(6) == 0:
		return strings.Repeat("é", int(*schema.MaxLength)-g.random.IntN(2)+g.random.IntN(2))
	case g.random.IntN(4) == 0:
		return strings.Repeat("x", int(schema.MinLength))
	}
	return strangeTexts[g.random.IntN(len(strangeTexts))]
}

func (g generator) anything() any {
	switch g.random.IntN(6) {
	case 0:
		return nil
	case 1:
		return []any{[]any{}, map[string]any{}}
	case 2:
		return map[string]any{"a": []any{nil, 1.5, true}}
	case 3:
		return g.random.Int64() - g.random.Int64()
	case 4:
		return g.random.IntN(2) == 0
	}
	return strangeTexts[g.random.IntN(len(strangeTexts))]
}

// damage changes bytes, cuts, or doubles a part.
func (g generator) damage(body []byte) []byte {
	damaged := slices.Clone(body)
	for range 1 + g.random.IntN(3) {
		if len(damaged) < 2 {
			return damaged
		}
		at := g.random.IntN(len(damaged))
		switch g.random.IntN(4) {
		case 0:
			damaged[at] ^= byte(1 << g.random.IntN(8))
		case 1:
			damaged = damaged[:at]
		case 2:
			damaged = slices.Insert(damaged, at, []byte(`",:{}[]\u0`)[g.random.IntN(10)])
		default:
			damaged = slices.Concat(damaged[:at], damaged[at/2:at], damaged[at:])
		}
	}
	return damaged
}
