package credential

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
)

func TestControl01TokensCarryKindIDAndChecksum(t *testing.T) {
	for _, kind := range []Kind{Operator, Partner, Customer, Edge, Join} {
		made := New(kind, ulid.Make())
		token := made.Token()
		if want := len("rly_") + len(kind) + 1 + 22 + 43 + 6; len(token) != want {
			t.Errorf("%s: length %d, want %d: %s", kind, len(token), want, token)
		}
		if !strings.HasPrefix(token, "rly_"+string(kind)+"_") {
			t.Errorf("%s does not show its kind", token)
		}
		read, err := Parse(token)
		if err != nil || read != made {
			t.Errorf("Parse(%s) = %v, %v; want %v", token, read, err, made)
		}
	}
}

func TestControl01AMistypedTokenIsToldWithoutTheDatabase(t *testing.T) {
	token := New(Partner, ulid.Make()).Token()
	for i := len("rly_"); i < len(token); i++ {
		other := byte('x')
		if token[i] == 'x' {
			other = 'y'
		}
		mistyped := token[:i] + string(other) + token[i+1:]
		if _, err := Parse(mistyped); !errors.Is(err, ErrMalformed) {
			t.Errorf("a token with a wrong byte %d was read: %s", i, mistyped)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "prefix only": "rly_", "cut": token[:len(token)-1], "longer": token + "0",
		"foreign": "ghp_" + token[4:], "unknown kind": strings.Replace(token, "partner", "admin", 1),
		"not base 62": token[:12] + "é" + token[14:],
	} {
		if _, err := Parse(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %q was read", name, text)
		}
	}
}

func TestControl02OnlyTheHashOfTheSecretIsKeptAndComparedWhole(t *testing.T) {
	a, b := New(Operator, ulid.Make()), New(Operator, ulid.Make())
	if bytes.Contains(a.Secret.Hash(), a.Secret[:8]) {
		t.Error("the hash shows the secret")
	}
	cases := []struct {
		name   string
		hashes [][]byte
		want   bool
	}{
		{name: "its own", hashes: [][]byte{a.Secret.Hash()}, want: true},
		{name: "second of two in a rotation", hashes: [][]byte{b.Secret.Hash(), a.Secret.Hash()}, want: true},
		{name: "another's", hashes: [][]byte{b.Secret.Hash()}},
		{name: "an unknown id", hashes: nil},
		{name: "no previous secret", hashes: [][]byte{b.Secret.Hash(), nil}},
		{name: "a cut hash", hashes: [][]byte{a.Secret.Hash()[:16]}},
		{name: "the secret itself", hashes: [][]byte{a.Secret[:]}},
	}
	for _, c := range cases {
		if got := a.Matches(c.hashes...); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestASecretIsNotPrinted(t *testing.T) {
	if text := New(Edge, ulid.Make()).Secret.String(); text != "[secret]" {
		t.Errorf("printed %q", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(New(Operator, ulid.Make()).Token())
	f.Add("rly_op_")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err == nil && c.Token() != text {
			t.Errorf("%q was read and is written as %q", text, c.Token())
		}
	})
}
