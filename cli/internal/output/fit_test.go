package output

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func queue() Shape {
	return Shape{Rows: "items", Columns: []string{"message_id", "sender", "attempts", "next_attempt_at", "reply"}}
}

const waiting = `{"items":[
	{"message_id":"01KAQ7M2Z8Y3F6N5T4R1W0X9VB","sender":"a.rather.long.name@customer.example","attempts":3,"next_attempt_at":"2026-11-24T09:08:00Z","reply":"451 4.7.1 greylisted, try again later, and read https://example.net/why"},
	{"message_id":"01KAQ7M2Z8Y3F6N5T4R1W0X9VC","sender":"b@c.example","attempts":12,"next_attempt_at":"2026-11-24T09:08:00Z"}]}`

func printed(t *testing.T, config Config, text string, shape Shape) string {
	t.Helper()
	var out bytes.Buffer
	config.Out, config.Notes = &out, &bytes.Buffer{}
	p, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Print(value(t, text), shape); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestATableIsAsWideAsTheTerminalAndCutsProseFirst(t *testing.T) {
	const width = 120
	want := `MESSAGE ID                  SENDER                              ATTEMPTS  NEXT ATTEMPT AT       REPLY
01KAQ7M2Z8Y3F6N5T4R1W0X9VB  a.rather.long.name@customer.examp…         3  2026-11-24T09:08:00Z  451 4.7.1 greylisted, t…
01KAQ7M2Z8Y3F6N5T4R1W0X9VC  b@c.example                               12  2026-11-24T09:08:00Z  -
`
	got := printed(t, Config{Width: width}, waiting, queue())
	for line := range strings.Lines(got) {
		if utf8.RuneCountInString(line)-1 > width {
			t.Errorf("wider than %d: %s", width, line)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestIDsNumbersAndInstantsAreNeverCutAndWithoutATerminalNothingIs(t *testing.T) {
	narrow := printed(t, Config{Width: 20}, waiting, queue())
	for _, whole := range []string{"01KAQ7M2Z8Y3F6N5T4R1W0X9VB", "2026-11-24T09:08:00Z", "ATTEMPTS", "  12  "} {
		if !strings.Contains(narrow, whole) {
			t.Errorf("%s is not whole:\n%s", whole, narrow)
		}
	}
	if plain := printed(t, Config{}, waiting, queue()); strings.Contains(plain, "…") || !strings.Contains(plain, "https://example.net/why") {
		t.Errorf("cut without a terminal:\n%s", plain)
	}
}

func TestTwoStatesThatBeginAlikeAreToldApartOnANarrowTerminal(t *testing.T) {
	got := printed(t, Config{Width: 40}, `{"items":[
		{"id":"1","why":"destination-down","host":"a-rather-long-name.of-a-host.example"},
		{"id":"2","why":"destination-busy","host":"b.example"}]}`, Shape{Rows: "items", Columns: []string{"id", "why", "host"}})
	if !strings.Contains(got, "destination-down") || !strings.Contains(got, "destination-busy") || !strings.Contains(got, "a-rather-long-nam…") {
		t.Errorf("got\n%s", got)
	}
}

func TestAListInsideAnObjectThatIsTooWideIsShownOneBelowTheOther(t *testing.T) {
	const text = `{"id":"01K","domain":"a.example","parts":[
		{"destination":"b.example","state":"queued","reply":"451 later","extra":1},
		{"destination":"c.example","state":"held","extra":2}]}`
	shape := Shape{Columns: []string{"id", "domain", "parts.destination", "parts.state", "parts.reply"}}
	object := "id      01K\ndomain  a.example\n\nparts\n"
	table := object + "  DESTINATION  STATE   REPLY\n  b.example    queued  451 later\n  c.example    held    -\n"
	if diff := cmp.Diff(table, printed(t, Config{}, text, shape)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	blocks := object + "  destination  b.example\n  state        queued\n  reply        451 later\n\n  destination  c.example\n  state        held\n  reply        -\n"
	if diff := cmp.Diff(blocks, printed(t, Config{Width: 30}, text, shape)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := printed(t, Config{}, `{"id":"01K","domain":"a.example","parts":[]}`, shape); got != "id      01K\ndomain  a.example\nparts   -\n" {
		t.Errorf("without parts got\n%s", got)
	}
	if got := printed(t, Config{Columns: []string{"parts.state"}}, text, shape); got != "parts state  queued, held\n" {
		t.Errorf("one column of the parts is %q", got)
	}
}

func TestWhatToDoWithAnAnswerStandsBelowItsPropertiesForPeopleOnly(t *testing.T) {
	shape := Shape{Then: "Do this:\n\n  thing --token x"}
	if got := printed(t, Config{}, `{"id":"1"}`, shape); got != "id  1\n\nDo this:\n\n  thing --token x\n" {
		t.Errorf("got %q", got)
	}
	for _, config := range []Config{{Format: "json"}, {Format: "csv"}, {Columns: []string{"id"}}} {
		if got := printed(t, config, `{"id":"1"}`, shape); strings.Contains(got, "thing") {
			t.Errorf("%+v: got %q", config, got)
		}
	}
}
