package feedback

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const edge = "edg_01KAQ7M2Z8Y3F6N5T4R1W0X9VB"

func key(fill byte) (k [KeyBytes]byte) {
	for i := range k {
		k[i] = fill
	}
	return k
}

func claims() Claims {
	return Claims{
		MessageID: "01KBQ7M2Z8Y3F6N5T4R1W0X9VC", Domain: "example.com", User: "anna@example.com",
		ClientAddress: "2001:db8::10", Sender: "sales@example.com",
	}
}

func seal(t *testing.T, c Claims) string {
	t.Helper()
	token, err := Seal(key(1), edge, c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestATokenGivesBackWhatWasSealed(t *testing.T) {
	cases := map[string]Claims{
		"whole":        claims(),
		"no user":      {MessageID: "m", Domain: "example.com", ClientAddress: "192.0.2.10", Sender: "a@example.com"},
		"null sender":  {MessageID: "m", Domain: "example.com", User: "a@example.com"},
		"longest ever": {MessageID: "m", Domain: strings.Repeat("d", 253), User: strings.Repeat("u", 254), ClientAddress: strings.Repeat("c", 45), Sender: strings.Repeat("s", 320)},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Open(key(1), seal(t, want))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("claims (-sealed +opened):\n%s", diff)
			}
		})
	}
}

func TestATokenNamesItsEdgeAndNothingElse(t *testing.T) {
	token := seal(t, claims())
	got, err := Edge(token)
	if err != nil || got != edge {
		t.Fatalf("edge %q, error %v", got, err)
	}
	for _, secret := range []string{"example", "anna", "2001", "sales", "01KB"} {
		if strings.Contains(token, secret) {
			t.Errorf("%q can be read in %s", secret, token)
		}
	}
	if again := seal(t, claims()); again == token {
		t.Error("two tokens of one message are equal, so that they tell that it is one message")
	}
}

func TestATokenThatWasChangedIsForged(t *testing.T) {
	token := seal(t, claims())
	cases := map[string]struct {
		token string
		key   [KeyBytes]byte
	}{
		"another key":       {token: token, key: key(2)},
		"another edge":      {token: strings.Replace(token, edge, "edg_other", 1), key: key(1)},
		"a byte changed":    {token: flip(token, len(token)-10), key: key(1)},
		"the end cut off":   {token: cut(t, token), key: key(1)},
		"only a short tail": {token: "v1:" + edge + ":AAAA", key: key(1)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got, err := Open(c.key, c.token); !errors.Is(err, ErrForged) {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

// cut drops the last byte of what is sealed.
func cut(t *testing.T, token string) string {
	t.Helper()
	at := strings.LastIndex(token, ":") + 1
	sealed, err := base64.RawURLEncoding.DecodeString(token[at:])
	if err != nil {
		t.Fatal(err)
	}
	return token[:at] + base64.RawURLEncoding.EncodeToString(sealed[:len(sealed)-1])
}

func flip(s string, at int) string {
	c := byte('A')
	if s[at] == c {
		c = 'B'
	}
	return s[:at] + string(c) + s[at+1:]
}

func TestWhatIsNoTokenIsMalformed(t *testing.T) {
	for _, text := range []string{
		"", "v1", "v1::", "v1:" + edge, "v1:" + edge + ":", "v2:" + edge + ":AAAA", "v1:edg/1:AAAA",
		"v1:" + edge + ":AA=A", "v1:" + edge + ":AAAA:AAAA", "v1:" + edge + ":AAB", strings.Repeat("v", 5000),
	} {
		if _, err := Edge(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("Edge(%q) gave %v", text, err)
		}
		if _, err := Open(key(1), text); !errors.Is(err, ErrMalformed) {
			t.Errorf("Open(%q) gave %v", text, err)
		}
	}
}

func TestAnIncompleteClaimIsNotSealed(t *testing.T) {
	cases := map[string]struct {
		edge   string
		claims Claims
	}{
		"no message id":   {edge: edge, claims: Claims{Domain: "example.com"}},
		"no domain":       {edge: edge, claims: Claims{MessageID: "m"}},
		"a long claim":    {edge: edge, claims: Claims{MessageID: "m", Domain: "d", Sender: strings.Repeat("s", 321)}},
		"no edge":         {edge: "", claims: claims()},
		"an edge's colon": {edge: "edg:1", claims: claims()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if token, err := Seal(key(1), c.edge, c.claims); err == nil {
				t.Fatalf("got %s", token)
			}
		})
	}
}

func TestTheFieldIsFoldedAndReadHoweverItIsRefolded(t *testing.T) {
	long := claims()
	long.Sender = strings.Repeat("s", 300)
	token := seal(t, long)
	field := string(appendField(nil, []byte(token)))
	for line := range strings.SplitSeq(strings.TrimSuffix(field, "\r\n"), "\r\n") {
		if len(line) > 78 {
			t.Errorf("line of %d characters: %s", len(line), line)
		}
	}
	value, ok := strings.CutPrefix(field, HeaderName+":")
	if !ok || !strings.HasSuffix(field, "\r\n") {
		t.Fatalf("field %q", field)
	}
	for name, shape := range map[string]string{
		"as written": value,
		"unfolded":   strings.ReplaceAll(value, "\r\n", ""),
		"tabs":       strings.ReplaceAll(value, "\r\n ", "\r\n\t"),
		"LF only":    strings.ReplaceAll(value, "\r\n", "\n"),
	} {
		if got, err := Open(key(1), shape); err != nil || got != long {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if short := string(appendField(nil, []byte("v1:e:AAAA"))); short != "CFBL-Feedback-ID: v1:e:AAAA\r\n" {
		t.Errorf("short field %q", short)
	}
}

func TestASealerWritesWhatOpenReads(t *testing.T) {
	s, err := NewSealer(key(1), edge)
	if err != nil {
		t.Fatal(err)
	}
	long, short := claims(), claims()
	long.Sender = strings.Repeat("s", 300)
	for _, want := range []Claims{long, short, long} { // memory is used again
		field, err := s.AppendField([]byte("X: y\r\n"), &want)
		if err != nil {
			t.Fatal(err)
		}
		value, ok := strings.CutPrefix(string(field), "X: y\r\n"+HeaderName+":")
		if got, err := Open(key(1), value); !ok || err != nil || got != want {
			t.Errorf("field %q says %+v, %v", field, got, err)
		}
	}
	if field, err := s.AppendField([]byte("X: y\r\n"), &Claims{}); err == nil || string(field) != "X: y\r\n" {
		t.Errorf("no claims gave %q, %v", field, err)
	}
}

// BenchmarkField is what a token costs each message.
func BenchmarkField(b *testing.B) {
	s, err := NewSealer(key(1), edge)
	if err != nil {
		b.Fatal(err)
	}
	c, field := claims(), []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		if field, err = s.AppendField(field[:0], &c); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzOpen: no text makes Open panic, and none opens that was not sealed.
func FuzzOpen(f *testing.F) {
	sealed, err := Seal(key(1), edge, claims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add("v1:" + edge + ":AAAA")
	f.Add(" v1 : e :\r\n\tAA")
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := Open(key(1), token); err == nil && got != claims() {
			t.Fatalf("%q opened as %+v", token, got)
		}
	})
}

// FuzzDecode: claims are read as they were written, or refused.
func FuzzDecode(f *testing.F) {
	c := claims()
	plain, err := c.appendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decode(data)
		if err != nil {
			return
		}
		again, err := c.appendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decode(again); err != nil || back != c {
			t.Fatalf("%+v became %+v, %v", c, back, err)
		}
	})
}
