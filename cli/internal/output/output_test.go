package output

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"activerelay/cli/internal/failure"
)

// value decodes as the client does.
func value(t *testing.T, text string) any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func pages(t *testing.T, texts ...string) iter.Seq2[any, error] {
	t.Helper()
	return func(yield func(any, error) bool) {
		for _, text := range texts {
			if !yield(value(t, text), nil) {
				return
			}
		}
	}
}

const (
	pageOne = `{"items":[{"name":"b.example","limit":1000,"on":true,"relaying":{"state":"enabled"},"contacts":["a@b.example","c@b.example"]}],"next_page_token":"x"}`
	pageTwo = `{"items":[{"name":"long-name.example","limit":90071992547409931,"on":false,"relaying":{"state":"disabled"},"contacts":[]}]}`
)

func list() Shape {
	return Shape{Rows: "items", Columns: []string{"name", "limit", "on", "relaying.state", "contacts"}}
}

func TestAListInEveryFormat(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"table", Config{}, "" +
			"NAME                           LIMIT  ON   RELAYING STATE  CONTACTS\n" +
			"b.example                       1000  yes  enabled         a@b.example, c@b.example\n" +
			"long-name.example  90071992547409931  no   disabled        -\n"},
		{"table without headers", Config{NoHeaders: true, Columns: []string{"name", "on"}}, "" +
			"b.example          yes\nlong-name.example  no\n"},
		{"csv", Config{Format: "csv"}, "" +
			"name,limit,on,relaying.state,contacts\n" +
			"b.example,1000,true,enabled,a@b.example c@b.example\n" +
			"long-name.example,90071992547409931,false,disabled,\n"},
		{"csv, chosen columns", Config{Format: "csv", Columns: []string{"relaying.state", "missing"}, NoHeaders: true}, "enabled,\ndisabled,\n"},
		{"jsonl", Config{Format: "jsonl"}, "" +
			`{"contacts":["a@b.example","c@b.example"],"limit":1000,"name":"b.example","on":true,"relaying":{"state":"enabled"}}` + "\n" +
			`{"contacts":[],"limit":90071992547409931,"name":"long-name.example","on":false,"relaying":{"state":"disabled"}}` + "\n"},
		{"jq", Config{JQ: ".items[] | .name, .limit"}, "b.example\n1000\nlong-name.example\n90071992547409931\n"},
		{"jq as jsonl", Config{JQ: ".items | length, .[0].name", Format: "jsonl"}, "2\n\"b.example\"\n"},
		{"jq as yaml, one document for each result", Config{JQ: ".items[].limit", Format: "yaml"}, "1000\n---\n90071992547409931\n"},
		{"jq sees no cursor", Config{JQ: "keys"}, `["items"]` + "\n"},
		{"yaml", Config{Format: "yaml", JQ: ".items[0]"}, "" +
			"contacts:\n  - a@b.example\n  - c@b.example\nlimit: 1000\nname: b.example\n\"on\": true\nrelaying:\n  state: enabled\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, notes bytes.Buffer
			c.config.Out, c.config.Notes = &out, &notes
			p, err := New(c.config)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Pages(pages(t, pageOne, pageTwo), list()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if notes.Len() > 0 {
				t.Errorf("notes: %s", &notes)
			}
		})
	}
}

func TestJSONOfAListIsOneDocumentWithAllItems(t *testing.T) {
	var out bytes.Buffer
	p, err := New(Config{Out: &out, Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Pages(pages(t, pageOne, pageTwo), list()); err != nil {
		t.Fatal(err)
	}
	got, _ := value(t, out.String()).(map[string]any)
	if rows, _ := got["items"].([]any); len(rows) != 2 || got["next_page_token"] != nil {
		t.Errorf("got %s", &out)
	}
	out.Reset()
	if err := p.Pages(pages(t, pageOne), list()); err != nil {
		t.Fatal(err)
	}
	if got, _ := value(t, out.String()).(map[string]any); got["next_page_token"] != "x" {
		t.Errorf("a list that was not followed has lost its cursor: %s", &out)
	}
}

func TestAnObjectIsOneLineForEachProperty(t *testing.T) {
	object := `{"domain":"a.example","limit":1000,"used":7,"override":{"limit":5,"reason":"x"},"zones":{"a.b":1},
		"leases":[{"edge":"fra1","held":3},{"edge":"nue","held":12}],"tags":[],"note":null}`
	var out bytes.Buffer
	p, err := New(Config{Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Print(value(t, object), Shape{Columns: []string{"used", "limit", "leases"}, ETag: `"7"`}); err != nil {
		t.Fatal(err)
	}
	want := `used             7
limit            1000
domain           a.example
note             -
override limit   5
override reason  x
tags             -
zones            a.b=1
etag             "7"

leases
  EDGE  HELD
  fra1     3
  nue     12
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestOneColumnOfAnObjectIsItsBareValue(t *testing.T) {
	for format, want := range map[string]string{"": "7\n", "csv": "7\n"} {
		var out bytes.Buffer
		p, err := New(Config{Out: &out, Format: format, Columns: []string{"used"}, NoHeaders: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Print(value(t, `{"used":7}`), Shape{}); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("format %q: got %q, want %q", format, &out, want)
		}
	}
}

func TestNothingFoundIsSaidBesideTheAnswer(t *testing.T) {
	for format, want := range map[string]string{"": "", "csv": "name,limit,on,relaying.state,contacts\n", "jsonl": ""} {
		var out, notes bytes.Buffer
		p, err := New(Config{Out: &out, Notes: &notes, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Print(value(t, `{"items":[]}`), list()); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("format %q: got %q, want %q", format, &out, want)
		}
		if format == "" && notes.String() != "Nothing found.\n" {
			t.Errorf("notes: %q", &notes)
		}
	}
}

func TestWhatAnAnswerSaysBesideItsRowsIsNoted(t *testing.T) {
	var out, notes bytes.Buffer
	p, err := New(Config{Out: &out, Notes: &notes})
	if err != nil {
		t.Fatal(err)
	}
	batch := `{"results":[{"name":"a.example","outcome":"failed","problem":{"detail":"no"}}],"created":0,"failed":1}`
	if err := p.Print(value(t, batch), Shape{Rows: "results", Columns: []string{"name", "outcome", "problem.detail"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("NAME       OUTCOME  PROBLEM DETAIL\na.example  failed   no\n", out.String()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("(created 0, failed 1)\n", notes.String()); diff != "" {
		t.Error(diff)
	}
}

func TestCountsByNameReadAsSuch(t *testing.T) {
	var out bytes.Buffer
	p, err := New(Config{Out: &out, NoHeaders: true})
	if err != nil {
		t.Fatal(err)
	}
	row := `{"items":[{"key":"192.0.2.10","refusals":[{"reason":"quota-reached","messages":3},{"reason":"bulk","messages":1}]}]}`
	if err := p.Print(value(t, row), Shape{Rows: "items", Columns: []string{"key", "refusals"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("192.0.2.10  quota-reached=3, bulk=1\n", out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestControlCharactersOfOthersDoNotReachTheTerminal(t *testing.T) {
	for _, shape := range []Shape{{}, {Rows: "items", Columns: []string{"name"}}} {
		var out bytes.Buffer
		p, err := New(Config{Out: &out, Notes: &bytes.Buffer{}})
		if err != nil {
			t.Fatal(err)
		}
		evil := `{"name":"a\u001b[2J\u0007\nb","items":[{"name":"a\u001b[2J\nb\u202ec\u009b"}]}`
		if err := p.Print(value(t, evil), shape); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\a\u202e\u009b") || strings.Contains(out.String(), "\nb") {
			t.Errorf("shape %+v: %q", shape, &out)
		}
	}
}

func TestColourDoesNotShiftColumns(t *testing.T) {
	strip := strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "", "\x1b[32m", "", "\x1b[31m", "", "\x1b[33m", "", colourOff, "")
	rows := `{"items":[{"name":"a","state":"active","x":"1"},{"name":"b","state":"requested","x":"2"},{"name":"c","state":"odd","x":"3"}]}`
	shape := Shape{Rows: "items", Columns: []string{"name", "state", "x"}}
	var plain, coloured bytes.Buffer
	for out, color := range map[*bytes.Buffer]bool{&plain: false, &coloured: true} {
		p, err := New(Config{Out: out, Color: color})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Print(value(t, rows), shape); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(coloured.String(), "\x1b[32mactive") || !strings.Contains(coloured.String(), "\x1b[33mrequested") {
		t.Errorf("states are not coloured: %q", &coloured)
	}
	if diff := cmp.Diff(plain.String(), strip.Replace(coloured.String())); diff != "" {
		t.Errorf("-plain +coloured:\n%s", diff)
	}
}

func TestAnErrorAfterSomePagesLeavesNoHalfDocument(t *testing.T) {
	trouble := errors.New("gone")
	failing := func(yield func(any, error) bool) {
		if yield(value(t, pageOne), nil) {
			yield(nil, trouble)
		}
	}
	for _, format := range []string{"", "json", "yaml"} {
		var out bytes.Buffer
		p, err := New(Config{Out: &out, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Pages(failing, list()); !errors.Is(err, trouble) || out.Len() > 0 {
			t.Errorf("format %q: error %v, output %q", format, err, &out)
		}
	}
}

func TestLongListsAreWrittenPageByPage(t *testing.T) {
	for _, format := range []string{"jsonl", "csv"} {
		var out bytes.Buffer
		p, err := New(Config{Out: &out, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		err = p.Pages(func(yield func(any, error) bool) {
			yield(value(t, pageOne), nil)
			seen = out.Len()
		}, list())
		if err != nil || seen == 0 {
			t.Errorf("%s: %d bytes after the first page (%v)", format, seen, err)
		}
	}
}

func TestBadFormatsAndFiltersAreUsageErrors(t *testing.T) {
	for _, config := range []Config{
		{Format: "xml"}, {JQ: "."}, {JQ: ".[", Format: "json"}, {JQ: "nothing_of_the_kind"}, {JQ: ".", Format: "csv"},
	} {
		_, err := New(config)
		wantError := config.JQ != "." || config.Format == "csv"
		if (err != nil) != wantError || err != nil && failure.CodeOf(err) != failure.Usage {
			t.Errorf("%+v: got %v", config, err)
		}
	}
	p, err := New(Config{Out: &bytes.Buffer{}, JQ: ".a.b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Print(value(t, `{"a":"text"}`), Shape{}); failure.CodeOf(err) != failure.Usage {
		t.Errorf("a filter that does not fit: got %v, want a usage error", err)
	}
}
