package mailaddr

import (
	"net/mail"
	"strings"
	"testing"
)

// FuzzAddress holds the promise of the package over any text: what is accepted
// is safe to write between angle brackets, parses to itself again, and is read
// the same way by an independent parser.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{
		"<a@ok.test>", "a@ok.test", "<>", `<"ceo@victim.test> ENVID="@ok.test>`, "<a@evil@ok.test>",
		"<a@[IPv6:::1]>", "<@h1,@h2:a@ok.test>", "é@bücher.test", "a@xn--bcher-kva.test", "<a@ok.test>SIZE=1",
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, in string, smtputf8 bool) {
		a, err := ParsePath(in, Options{SMTPUTF8: smtputf8})
		if err != nil || a.IsNull() {
			return
		}
		checkCanonical(t, in, a)
		if !smtputf8 && !isASCII(a.String()) {
			t.Fatalf("%q gave %q without SMTPUTF8", in, a)
		}
		if a.IsASCII() {
			std, err := mail.ParseAddress("<" + a.String() + ">")
			if err != nil || std.Address != a.String() {
				t.Fatalf("%q: net/mail reads %v, %v where we read %q", in, std, err, a)
			}
		}
	})
}

// FuzzFromHeader holds that an accepted From value yields a canonical address
// whose text is really there.
func FuzzFromHeader(f *testing.F) {
	for _, seed := range []string{
		"Jo <jo@example.com>", `"Doe, Jo" <jo@example.com>`, "jo@example.com (x)", "A <a@x.test>, b@y.test",
		"Team: a@x.test;", "=?utf-8?B?AA==?= <jo@example.com>", "\"a\"@x.test\r\n\tx",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		a, err := FromHeader(in)
		if err != nil {
			return
		}
		checkCanonical(t, in, a)
		if strings.Count(in, "@") < 1 {
			t.Fatalf("%q gave %q out of nothing", in, a)
		}
	})
}

func checkCanonical(t *testing.T, in string, a Address) {
	t.Helper()
	s := a.String()
	if strings.ContainsAny(s, " \t\r\n\x00<>\"\\,;:()[]%!") || strings.Count(s, "@") != 1 {
		t.Fatalf("%q gave the unsafe address %q", in, s)
	}
	if len(a.Local) > MaxLocalBytes || len(a.Domain) > MaxDomainBytes || len(s) > MaxAddressBytes {
		t.Fatalf("%q gave the long address %q", in, s)
	}
	again, err := Parse(s, Options{SMTPUTF8: true})
	if err != nil || again != a {
		t.Fatalf("%q gave %q, which parses to %q, %v", in, s, again, err)
	}
	domain, err := ParseDomain(a.Domain)
	if err != nil || domain != a.Domain || !isASCII(domain) {
		t.Fatalf("%q gave domain %q, which parses to %q, %v", in, a.Domain, domain, err)
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePath("<jo.doe@mail.example.com>", Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
