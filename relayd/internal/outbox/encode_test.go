package outbox

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"activerelay/api"
	"activerelay/relayd/internal/journal"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// encoded is an event as it goes over the wire.
func encoded(t interface{ Fatal(...any) }, e api.EdgeEvent) string {
	text, err := appendEvent([]byte(fmt.Sprintf(`{"sequence":%d`, e.Sequence)), &e)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fill sets every member of an event, so that one that is new in the contract is there too.
func fill(e *api.EdgeEvent, text func(name string) *string, number func(name string) *int64, at func(name string) *time.Time) {
	fields := reflect.ValueOf(e).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Name
		switch fields.Field(i).Interface().(type) {
		case *string:
			fields.Field(i).Set(reflect.ValueOf(text(name)))
		case *int64:
			fields.Field(i).Set(reflect.ValueOf(number(name)))
		case *time.Time:
			fields.Field(i).Set(reflect.ValueOf(at(name)))
		case []string:
			if s := text(name); s != nil {
				fields.Field(i).Set(reflect.ValueOf([]string{*s, "example.net", ""}))
			}
		}
	}
}

func TestAnEventIsEncodedAsEncodingJSONWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Without the control characters that the contract forbids, and short enough for the shortest member.
		letters := rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune("aZ09 @<>&\"\\/\n\t\r\u2028\ufffd")), rapid.Rune().Filter(allowed)), 0, 32, -1)
		var e api.EdgeEvent
		fill(&e, func(name string) *string { return rapid.Ptr(letters, true).Draw(t, name) },
			func(name string) *int64 { return rapid.Ptr(rapid.Int64(), true).Draw(t, name) },
			func(name string) *time.Time { return rapid.Ptr(rapid.Custom(anyTime), true).Draw(t, name) })
		e.Sequence, e.Time = rapid.Int64Range(1, 1<<62).Draw(t, "sequence"), anyTime(t)
		e.Kind = rapid.SampledFrom([]api.EdgeEventKind{api.EdgeEventKindMessageAccepted, api.EdgeEventKindMessageBounced}).Draw(t, "kind")
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var ours, theirs map[string]any
		if err := json.Unmarshal([]byte(encoded(t, e)), &ours); err != nil {
			t.Fatalf("%v: %s", err, encoded(t, e))
		}
		if err := json.Unmarshal(want, &theirs); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Fatalf("-encoding/json +ours:\n%s", diff)
		}
	})
}

func allowed(r rune) bool {
	return (r >= ' ' || r == '\n' || r == '\r' || r == '\t') && r != 0x7f && utf8.ValidRune(r)
}

func anyTime(t *rapid.T) time.Time {
	at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds"))
	return at.In(rapid.SampledFrom([]*time.Location{time.UTC, time.FixedZone("", 5400)}).Draw(t, "zone"))
}

// Whatever is appended, the contract takes it: checked against the contract itself, so that a new member without a bound is found.
func TestNoEventIsRefusedByTheContractForItsTexts(t *testing.T) {
	contract, err := openapi3.NewLoader().LoadFromFile("../../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	schema := contract.Components.Schemas["EdgeEvent"].Value
	var everything strings.Builder
	for r := range rune(0x180) {
		everything.WriteRune(r)
	}
	for _, stranger := range []string{
		strings.Repeat("\u00fc", 5000), strings.Repeat("\U0001f600", 5000), strings.Repeat("\xff", 5000), strings.Repeat("<\x00", 2500), everything.String(), "\xe2\x82",
	} {
		e := api.EdgeEvent{Sequence: 1, Kind: api.EdgeEventKindMessageRefused}
		fill(&e, func(string) *string { return &stranger }, func(string) *int64 { return new(int64) }, func(string) *time.Time { return new(time.Now()) })
		for len(e.RecipientDomains) < 1100 {
			e.RecipientDomains = append(e.RecipientDomains, stranger)
		}
		text := encoded(t, e)
		var sent map[string]any
		if err := json.Unmarshal([]byte(text), &sent); err != nil {
			t.Fatal(err)
		}
		if err := schema.VisitJSON(sent); err != nil {
			t.Errorf("the contract refuses it: %v", err)
		}
		if len(sent) != reflect.TypeFor[api.EdgeEvent]().NumField() {
			t.Errorf("%d members were encoded, an event has %d", len(sent), reflect.TypeFor[api.EdgeEvent]().NumField())
		}
		detail, _ := sent["detail"].(string)
		for _, r := range detail {
			if !allowed(r) {
				t.Errorf("character %q went out", r)
			}
		}
		if !utf8.ValidString(text) {
			t.Error("invalid UTF-8 went out")
		}
	}
}

func TestAnInstantThatHasNoTextIsAnErrorAndNotABrokenBatch(t *testing.T) {
	if _, err := appendEvent(nil, &api.EdgeEvent{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}); err == nil {
		t.Error("no error")
	}
}

func TestEventsThatAnEarlierReleaseStoredAreSent(t *testing.T) {
	j, err := journal.Open(journal.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	b := j.NewBatch()
	b.Set(eventKey(1), []byte(`{"detail":"a \u003c b","kind":"message-accepted","sequence":0,"time":"2026-11-22T09:00:00Z"}`))
	if err := j.Commit(b); err != nil {
		t.Fatal(err)
	}
	o, err := Open(Config{Journal: j, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := o.Next(10)
	want := `{"generation":0,"first_kept":1,"events":[{"sequence":1,"kind":"message-accepted","time":"2026-11-22T09:00:00Z","detail":"a < b"}]}`
	if err != nil || string(batch.Body) != want {
		t.Errorf("sent %s, %v; want %s", batch.Body, err, want)
	}
}

// BenchmarkEvents is the part of an event in the processor time of a relayed message: two are appended, and sent.
func BenchmarkEvents(b *testing.B) {
	j, err := journal.Open(journal.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	o, err := Open(Config{Journal: j, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Now().UTC()
	e := api.EdgeEvent{
		Kind: api.EdgeEventKindMessageDelivered, Time: at, MessageID: new("01KAQ7M2Z8Y3F6N5T4R1W0X9VB"), Domain: new("example.com"),
		Recipient: new("recipient@destination.test"), Recipients: new(int64(1)), Sender: new("anna@example.com"),
		Reply: new("250 2.0.0 Ok: queued as 4D2F11C0045"), RemoteHost: new("mx.destination.test[192.0.2.25]:25"), DayStart: &at,
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, err := appendEvent(make([]byte, 0, eventBytes), &e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("body of 1000", func(b *testing.B) {
		batch := j.NewBatch()
		for range 1000 {
			if err := o.Append(batch, e); err != nil {
				b.Fatal(err)
			}
		}
		if err := j.Commit(batch); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for range b.N {
			if batch, err := o.Next(1000); err != nil || batch.Events != 1000 {
				b.Fatal(batch.Events, err)
			}
		}
	})
}
