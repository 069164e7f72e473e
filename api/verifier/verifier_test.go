package verifier

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
)

// cheap keeps the tests fast; the default cost has a test of its own.
func cheap() Cost { return Cost{MemoryKiB: 16, Passes: 1, Lanes: 1} }

func hash(t *testing.T, password string, cost Cost) string {
	t.Helper()
	text, err := Hash(password, rand.Reader, cost)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAVerifierTakesItsPasswordAndNoOther(t *testing.T) {
	for _, password := range []string{"correct horse battery", "grüße mit ümlaut", "", "with\x00nul"} {
		text := hash(t, password, cheap())
		if err := Verify(text, password); err != nil {
			t.Errorf("%q: %v", password, err)
		}
		for _, other := range []string{password + " ", "x" + password, strings.ToUpper(password) + "x"} {
			if err := Verify(text, other); !errors.Is(err, ErrMismatch) {
				t.Errorf("%q taken for %q: %v", other, password, err)
			}
		}
	}
}

func TestTheDefaultCostIsWrittenIntoTheVerifier(t *testing.T) {
	text := hash(t, "correct horse battery", DefaultCost())
	if !strings.HasPrefix(text, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("verifier %s", text)
	}
	if err := Verify(text, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
}

// TestAVerifierOfTheReferenceImplementationIsRead: made by the argon2 command of
// the reference implementation with the salt "somesalt" (argon2 somesalt -id -t 2 -m 16 -p 1 -e).
func TestAVerifierOfTheReferenceImplementationIsRead(t *testing.T) {
	const text = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if err := Verify(text, "password"); err != nil {
		t.Fatal(err)
	}
}

func TestOnePasswordHasManyVerifiers(t *testing.T) {
	if one, two := hash(t, "same", cheap()), hash(t, "same", cheap()); one == two {
		t.Fatalf("both are %s", one)
	}
}

func TestNoPasswordMatchesTheDecoy(t *testing.T) {
	for _, password := range []string{"", "password", "decoy"} {
		if err := Verify(Decoy(), password); !errors.Is(err, ErrMismatch) {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func TestWhatIsNoVerifierIsRefusedUnread(t *testing.T) {
	good := hash(t, "x", cheap())
	for name, text := range map[string]string{
		"empty":            "",
		"plain text":       "password",
		"argon2i":          strings.Replace(good, "argon2id", "argon2i", 1),
		"another version":  strings.Replace(good, "v=19", "v=16", 1),
		"too much memory":  strings.Replace(good, "m=16", "m=4294967295", 1),
		"memory overflows": strings.Replace(good, "m=16", "m=4294967312", 1),
		"too many passes":  strings.Replace(good, "t=1", "t=17", 1),
		"no passes":        strings.Replace(good, "t=1", "t=0", 1),
		"no lanes":         strings.Replace(good, "p=1", "p=0", 1),
		"too many lanes":   strings.Replace(good, "p=1", "p=255", 1),
		"a sign":           strings.Replace(good, "t=1", "t=+1", 1),
		"a tail":           good + "$",
		"a line end":       good + "\n",
		"no hash":          good[:strings.LastIndex(good, "$")+1],
		"endless":          good + strings.Repeat("A", maxTextBytes),
	} {
		if err := Verify(text, "x"); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Verify(good, "x"); errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestWithoutRandomnessThereIsNoVerifier(t *testing.T) {
	if text, err := Hash("x", bytes.NewReader(make([]byte, saltBytes-1)), cheap()); err == nil {
		t.Fatalf("got %s", text)
	}
	if text, err := Hash("x", rand.Reader, Cost{}); err == nil {
		t.Fatalf("got %s", text)
	}
}

// FuzzDecode: no text makes a verifier that costs too much, and what is read is
// spelled in one way.
func FuzzDecode(f *testing.F) {
	f.Add(Decoy())
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=-1,t=0x2,p=1$$")
	f.Fuzz(func(t *testing.T, text string) {
		cost, salt, sum, err := decode(text)
		if err != nil {
			return
		}
		if !cost.allowed() || encode(cost, salt, sum) != text {
			t.Fatalf("%q read as %+v", text, cost)
		}
	})
}
