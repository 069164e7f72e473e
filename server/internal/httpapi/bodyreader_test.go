package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"activerelay/api"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"github.com/labstack/echo/v4"
	"pgregory.net/rapid"
)

// generally is what becomes of a body of an operation without its own reader: it is validated, bound by the generated glue, and
// returned; an error means that it is refused.
func generally(op *operation, body string) (batch api.EventBatch, err error) {
	plain := *op
	plain.body = nil
	return throughValidation(&plain, body)
}

func throughValidation(op *operation, body string) (batch api.EventBatch, err error) {
	e := echo.New()
	e.JSONSerializer = bodies{}
	request := httptest.NewRequest(http.MethodPost, "/v1/edge/events", strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	c := e.NewContext(request, httptest.NewRecorder())
	c.SetRequest(request.WithContext(context.WithValue(request.Context(), callKey{}, &call{operation: op})))
	err = (&API{}).Validate(func(c echo.Context) error { return new(echo.DefaultBinder).BindBody(c, &batch) })(c)
	return batch, err
}

func reportEvents(t interface{ Fatal(...any) }) *operation {
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	return c.byRoute["POST /v1/edge/events"]
}

// anyEvent is an event that the contract allows; each member is there or not.
func anyEvent(t *rapid.T) api.EdgeEvent {
	var e api.EdgeEvent
	fields := reflect.ValueOf(&e).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Name
		switch fields.Field(i).Interface().(type) {
		case *string:
			if rapid.Bool().Draw(t, name) {
				text := rapid.StringOfN(rapid.RuneFrom([]rune("aZ09 @<>&\"\\/\n\t\r\u00fc\u2028\U0001f600\ufffd")), 0, 20, 20).Draw(t, name)
				fields.Field(i).Set(reflect.ValueOf(&text))
			}
		case *int64:
			if rapid.Bool().Draw(t, name) {
				number := rapid.Int64Range(0, 1<<53).Draw(t, name)
				fields.Field(i).Set(reflect.ValueOf(&number))
			}
		case *time.Time:
			if rapid.Bool().Draw(t, name) {
				at := anyTime(t)
				fields.Field(i).Set(reflect.ValueOf(&at))
			}
		case []string:
			if n := rapid.IntRange(0, 3).Draw(t, name); n > 0 {
				fields.Field(i).Set(reflect.ValueOf([]string{"a.test", "b.test", "c.test"}[:n]))
			}
		}
	}
	e.Sequence, e.Time = rapid.Int64Range(1, 1<<53).Draw(t, "sequence"), anyTime(t)
	e.Kind = rapid.SampledFrom([]api.EdgeEventKind{api.EdgeEventKindMessageAccepted, api.EdgeEventKindMessageDeferred}).Draw(t, "kind")
	return e
}

func anyTime(t *rapid.T) time.Time {
	return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
}

// Were one of them left to general validation, that would cost ten times as much and nobody would see it.
func TestEveryBatchOfThisReleaseTakesTheShortWayAndComesOutAsByTheLong(t *testing.T) {
	op := reportEvents(t)
	rapid.Check(t, func(t *rapid.T) {
		batch := api.EventBatch{Generation: rapid.Int64Range(0, 9).Draw(t, "generation"), FirstKept: 1, Events: []api.EdgeEvent{}}
		for range rapid.IntRange(0, 4).Draw(t, "events") {
			batch.Events = append(batch.Events, anyEvent(t))
		}
		text, err := json.Marshal(batch)
		if err != nil {
			t.Fatal(err)
		}
		read, ok := op.body.Read(text)
		if !ok {
			t.Fatalf("left to general validation: %s", text)
		}
		if diff := cmp.Diff(&batch, read); diff != "" {
			t.Fatalf("read another batch than was sent (-sent +read):\n%s", diff)
		}
		if long, err := generally(op, string(text)); err != nil || !cmp.Equal(batch, long) {
			t.Fatalf("general validation reads another: %v", err)
		}
	})
}

const goodEvent = `{"sequence":1,"time":"2026-11-22T09:00:00Z","kind":"message-accepted","domain":"example.com"}`

func batchOf(event string) string { return `{"generation":1,"first_kept":1,"events":[` + event + `]}` }

func TestWhatTheContractRefusesIsRefusedInTheWordsOfGeneralValidation(t *testing.T) {
	op := reportEvents(t)
	for name, body := range map[string]string{
		"unknown member":         batchOf(`{"sequence":1,"time":"2026-11-22T09:00:00Z","kind":"message-accepted","colour":"red"}`),
		"member in another case": batchOf(`{"sequence":1,"time":"2026-11-22T09:00:00Z","kind":"message-accepted","Domain":"a"}`),
		"member twice":           batchOf(`{"sequence":1,"sequence":2,"time":"2026-11-22T09:00:00Z","kind":"message-accepted"}`),
		"member missing":         batchOf(`{"sequence":1,"kind":"message-accepted"}`),
		"text too long":          batchOf(strings.Replace(goodEvent, "example.com", strings.Repeat("a", 254), 1)),
		"control character":      batchOf(strings.Replace(goodEvent, "example.com", `a\u0000`, 1)),
		"raw control character":  batchOf(strings.Replace(goodEvent, "example.com", "a\x01", 1)),
		"delete":                 batchOf(strings.Replace(goodEvent, "example.com", "a\x7f", 1)),
		"broken UTF-8":           batchOf(strings.Replace(goodEvent, "example.com", "a\xff", 1)),
		"unknown kind":           batchOf(strings.Replace(goodEvent, "message-accepted", "message-lost", 1)),
		"number below":           batchOf(strings.Replace(goodEvent, `"sequence":1`, `"sequence":0`, 1)),
		"negative number":        batchOf(strings.Replace(goodEvent, `"sequence":1`, `"sequence":-1`, 1)),
		"fraction":               batchOf(strings.Replace(goodEvent, `"sequence":1`, `"sequence":1.5`, 1)),
		"leading zero":           batchOf(strings.Replace(goodEvent, `"sequence":1`, `"sequence":01`, 1)),
		"number past 64 bits":    batchOf(strings.Replace(goodEvent, `"sequence":1`, `"sequence":99999999999999999999`, 1)),
		"number as text":         batchOf(strings.Replace(goodEvent, `"sequence":1`, `"sequence":"1"`, 1)),
		"hour of one digit":      batchOf(strings.Replace(goodEvent, "T09", "T9", 1)),
		"comma in a fraction":    batchOf(strings.Replace(goodEvent, "09:00:00Z", "09:00:00,5Z", 1)),
		"no such day":            batchOf(strings.Replace(goodEvent, "2026-11-22", "2026-11-32", 1)),
		"no time":                batchOf(strings.Replace(goodEvent, "2026-11-22T09:00:00Z", "nine o'clock Z", 1)),
		"null":                   batchOf(strings.Replace(goodEvent, `"example.com"`, `null`, 1)),
		"two values":             batchOf(goodEvent) + `{}`,
		"cut off":                strings.TrimSuffix(batchOf(goodEvent), "}"),
		"comma too many":         batchOf(goodEvent + ","),
		"no batch":               `[]`,
		"empty object":           `{}`,
		"1001 events":            batchOf(strings.Repeat(goodEvent+",", 1000) + goodEvent),
	} {
		t.Run(name, func(t *testing.T) {
			if value, ok := op.body.Read([]byte(body)); ok {
				t.Fatalf("taken as %+v", value)
			}
			_, err := throughValidation(op, body)
			_, want := generally(op, body)
			if err == nil || want == nil || err.Error() != want.Error() {
				t.Errorf("refused with %v, want %v", err, want)
			}
		})
	}
	if _, ok := op.body.Read([]byte(batchOf(goodEvent))); !ok {
		t.Error("the good event is left to general validation")
	}
}

func TestABodyThatOnlyGeneralValidationUnderstandsIsTakenToo(t *testing.T) {
	op := reportEvents(t)
	for name, body := range map[string]string{
		"another zone":            batchOf(strings.Replace(goodEvent, "09:00:00Z", "10:00:00+01:00", 1)),
		"as many long letters":    batchOf(strings.Replace(goodEvent, "example.com", strings.Repeat("ü", 253), 1)),
		"space between":           strings.ReplaceAll(batchOf(goodEvent), ",", " ,\n\t"),
		"escaped name":            strings.Replace(batchOf(goodEvent), `"kind"`, `"\u006bind"`, 1),
		"half of a surrogate":     batchOf(strings.Replace(goodEvent, "example.com", `a\ud800b`, 1)),
		"number with an exponent": batchOf(strings.Replace(goodEvent, `"sequence":1`, `"sequence":1e0`, 1)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := throughValidation(op, body)
			want, refused := generally(op, body)
			if (err == nil) != (refused == nil) || !cmp.Equal(got, want) {
				t.Errorf("got %+v, %v; by general validation %+v, %v", got, err, want, refused)
			}
		})
	}
}

func TestARuleThatTheReaderDoesNotKnowIsFoundAtTheStart(t *testing.T) {
	type plain struct {
		Name string `json:"name"`
	}
	schema := func(change func(*openapi3.Schema)) *openapi3.Schema {
		name := openapi3.NewStringSchema().WithMaxLength(10)
		object := openapi3.NewObjectSchema().WithProperty("name", name).WithoutAdditionalProperties()
		if change != nil {
			change(name)
		}
		return object
	}
	if _, err := newBodyReader(schema(nil), reflect.TypeFor[plain]()); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*openapi3.Schema){
		"pattern":    func(s *openapi3.Schema) { s.Pattern = "^a" },
		"min length": func(s *openapi3.Schema) { s.MinLength = 1 },
		"nullable":   func(s *openapi3.Schema) { s.Nullable = true },
		"format":     func(s *openapi3.Schema) { s.Format = "email" },
	} {
		if _, err := newBodyReader(schema(change), reflect.TypeFor[plain]()); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	open := schema(nil)
	open.AdditionalProperties = openapi3.AdditionalProperties{}
	if _, err := newBodyReader(open, reflect.TypeFor[plain]()); err == nil {
		t.Error("an open object: no error")
	}
}

// What the short way takes, the long way takes too, and reads the same.
func FuzzTheBodyReaderTakesNothingThatValidationRefuses(f *testing.F) {
	op := reportEvents(f)
	f.Add(batchOf(goodEvent))
	f.Add(batchOf(`{"sequence":1,"time":"2026-11-22T09:00:00.123Z","kind":"message-deferred","attempts":3,"recipient_domains":["a","b"],"reply":"4\"\u00fc\n"}`))
	f.Add(batchOf(strings.Replace(goodEvent, "T09", "T9", 1)))
	f.Add(batchOf(strings.Replace(goodEvent, "09:00:00Z", "09:00:00,5Z", 1)))
	f.Add(fmt.Sprintf(`{"events":[],"first_kept":%d,"generation":0}`, int64(1)<<58))
	f.Fuzz(func(t *testing.T, body string) {
		read, ok := op.body.Read([]byte(body))
		if !ok || len(body) == 0 {
			return
		}
		long, err := generally(op, body)
		if err != nil {
			t.Fatalf("%q is taken, though %v", body, err)
		}
		if diff := cmp.Diff(&long, read); diff != "" {
			t.Fatalf("%q is read otherwise (-long +short):\n%s", body, diff)
		}
	})
}
