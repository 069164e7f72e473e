package mailaddr

import (
	"strings"
	"testing"
)

func TestAFromFieldGivesItsOneAddress(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{name: "bare", in: " jo@example.com", want: "jo@example.com"},
		{name: "display name", in: "Jo Doe <jo@example.com>", want: "jo@example.com"},
		{name: "quoted display name with specials", in: `"Doe, Jo <x@evil.test>" <jo@example.com>`, want: "jo@example.com"},
		{name: "escaped quote", in: `"a \" <x@evil.test>" <jo@example.com>`, want: "jo@example.com"},
		{name: "comment after", in: "jo@example.com (Jo <x@evil.test>, Doe)", want: "jo@example.com"},
		{name: "nested comment", in: "(a (b) \\) c) jo@example.com", want: "jo@example.com"},
		{name: "comment in brackets", in: "Jo <jo@example.com(x)>", want: "jo@example.com"},
		{name: "encoded word", in: "=?utf-8?Q?J=C3=B6_=2C?= <jo@example.com>", want: "jo@example.com"},
		{name: "encoded word of unknown charset", in: "=?x-none?B?AAAA?= <jo@example.com>", want: "jo@example.com"},
		{name: "raw Latin-1 name", in: "J\xf6 <jo@example.com>", want: "jo@example.com"},
		{name: "address as display name", in: "jo@example.com <jo@example.com>", want: "jo@example.com"},
		{name: "dot in display name", in: "Jo D. Doe <jo@example.com>", want: "jo@example.com"},
		{name: "folded", in: "Jo\r\n\tDoe\r\n <jo@example.com>\r\n", want: "jo@example.com"},
		{name: "folded with bare LF", in: "Jo\n <jo@example.com>\n", want: "jo@example.com"},
		{name: "no name", in: "<jo@example.com>", want: "jo@example.com"},
		{name: "quoted dot-atom", in: `"jo.doe"@example.com`, want: "jo.doe@example.com"},
		{name: "capitals and trailing dot", in: "<Jo@EXAMPLE.com.>", want: "Jo@example.com"},
		{name: "U-label", in: "<jo@bücher.example>", want: "jo@xn--bcher-kva.example"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := FromHeader(c.in)
			if err != nil || got.String() != c.want {
				t.Fatalf("FromHeader(%q) = %q, %v; want %q", c.in, got, err, c.want)
			}
		})
	}
}

func TestAFromFieldThatNamesNobodyOrSeveralIsRefused(t *testing.T) {
	cases := []struct {
		name, in string
		want     Rule
	}{
		{name: "empty", in: "  ", want: RuleEmpty},
		{name: "null", in: "<>", want: RuleEmpty},
		{name: "two addresses", in: "a@x.test, b@y.test", want: RuleManyAddresses},
		{name: "two in brackets", in: "A <a@x.test>, B <b@y.test>", want: RuleManyAddresses},
		{name: "two brackets without comma", in: "<a@x.test> <b@y.test>", want: RuleManyAddresses},
		{name: "text after the address", in: "<a@x.test> b@y.test", want: RuleManyAddresses},
		{name: "group", in: "Team: a@x.test;", want: RuleGroup},
		{name: "empty group", in: "undisclosed-recipients:;", want: RuleGroup},
		{name: "source route", in: "<@h1:a@x.test>", want: RuleGroup},
		{name: "name only", in: "Jo Doe", want: RuleControl},
		{name: "two bare", in: "a@x.test b@y.test", want: RuleControl},
		{name: "open bracket", in: "Jo <a@x.test", want: RuleBrackets},
		{name: "close bracket", in: "a@x.test>", want: RuleBrackets},
		{name: "bracket in bracket", in: "<a<b@y.test>@x.test>", want: RuleManyAddresses},
		{name: "open quote", in: `"Jo <a@x.test>`, want: RuleQuoted},
		{name: "quoted at sign", in: `"a@evil.test"@x.test`, want: RuleQuoted},
		{name: "quoted and more", in: `"a"b@x.test`, want: RuleQuoted},
		{name: "open comment", in: "(Jo a@x.test", want: RuleComment},
		{name: "close comment", in: "Jo) a@x.test", want: RuleComment},
		{name: "deep comment", in: strings.Repeat("(", 1000) + strings.Repeat(")", 1000) + "a@x.test", want: RuleComment},
		{name: "injected field", in: "a@x.test\r\nBcc: b@y.test", want: RuleControl},
		{name: "NUL", in: "a@x.test\x00", want: RuleControl},
		{name: "bare CR", in: "a@x.test\rb", want: RuleControl},
		{name: "single label", in: "root@localhost", want: RuleSingleLabel},
		{name: "too long", in: strings.Repeat("a", MaxHeaderBytes) + " <a@x.test>", want: RuleHeaderTooLong},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := FromHeader(c.in)
			if err == nil {
				t.Fatalf("FromHeader(%q) = %q, want refusal %s", c.in, got, c.want)
			}
			if rule := ruleOf(t, err); rule != c.want {
				t.Fatalf("FromHeader(%q) refused by %s, want %s", c.in, rule, c.want)
			}
		})
	}
}
