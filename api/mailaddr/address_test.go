package mailaddr

import (
	"errors"
	"strings"
	"testing"
)

func ruleOf(t *testing.T, err error) Rule {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("got error %v, want a *Refusal", err)
	}
	return refusal.Rule
}

func TestPathsThatAreAddressesAreReadInParts(t *testing.T) {
	cases := []struct {
		name, in string
		utf8     bool
		want     Address
	}{
		{name: "plain", in: "<a@ok.test>", want: Address{Local: "a", Domain: "ok.test"}},
		{name: "brackets already gone", in: "a@ok.test", want: Address{Local: "a", Domain: "ok.test"}},
		{name: "null sender", in: "<>", want: Address{}},
		{name: "null sender, brackets gone", in: "", want: Address{}},
		{name: "domain in capitals", in: "<Jo.Doe@OK.Test>", want: Address{Local: "Jo.Doe", Domain: "ok.test"}},
		{name: "trailing dot", in: "<a@ok.test.>", want: Address{Local: "a", Domain: "ok.test"}},
		{name: "all of atext", in: "<#$&'*+-/=?^_`{|}~@ok.test>", want: Address{Local: "#$&'*+-/=?^_`{|}~", Domain: "ok.test"}},
		{name: "VERP", in: "<list+a=b.test@ok.test>", want: Address{Local: "list+a=b.test", Domain: "ok.test"}},
		{name: "hyphens in third and fourth place", in: "<a@r3---sn.test>", want: Address{Local: "a", Domain: "r3---sn.test"}},
		{name: "A-label", in: "<a@xn--bcher-kva.test>", want: Address{Local: "a", Domain: "xn--bcher-kva.test"}},
		{name: "U-label with SMTPUTF8", in: "<a@BÜCHER.test>", utf8: true, want: Address{Local: "a", Domain: "xn--bcher-kva.test"}},
		{name: "ideographic full stop", in: "<a@ok。test>", utf8: true, want: Address{Local: "a", Domain: "ok.test"}},
		{name: "UTF-8 local part", in: "<é@ok.test>", utf8: true, want: Address{Local: "é", Domain: "ok.test"}},
		{
			name: "longest local part", in: strings.Repeat("l", 64) + "@ok.test",
			want: Address{Local: strings.Repeat("l", 64), Domain: "ok.test"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParsePath(c.in, Options{SMTPUTF8: c.utf8})
			if err != nil || got != c.want {
				t.Fatalf("ParsePath(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
			}
		})
	}
}

func TestPathsThatCouldBeReadInTwoWaysAreRefused(t *testing.T) {
	cases := []struct {
		name, in string
		utf8     bool
		want     Rule
	}{
		{name: "parameter hidden in quotes", in: `<"ceo@victim.test> ENVID="@ok.test>`, want: RuleControl},
		{name: "the same, unquoted by a library", in: `ceo@victim.test> ENVID=@ok.test`, want: RuleControl},
		{name: "hidden NOTIFY", in: `<"x@other.test> NOTIFY=NEVER ORCPT=rfc822;"@ok.test>`, want: RuleControl},
		{name: "hidden parameter without space", in: `<"ceo@victim.test>ENVID="@ok.test>`, want: RuleQuoted},
		{name: "quoted space", in: `<"a b"@ok.test>`, want: RuleControl},
		{name: "quoted", in: `<"ab"@ok.test>`, want: RuleQuoted},
		{name: "backslash", in: `<a\b@ok.test>`, want: RuleQuoted},
		{name: "two at signs, foreign first", in: "<a@evil@ok.test>", want: RuleManyAts},
		{name: "two at signs, foreign last", in: "<a@ok.test@evil>", want: RuleManyAts},
		{name: "NUL", in: "<a\x00b@ok.test>", want: RuleControl},
		{name: "CR", in: "<a\rb@ok.test>", want: RuleControl},
		{name: "LF", in: "<a@ok.test\n>", want: RuleControl},
		{name: "DEL", in: "<a\x7f@ok.test>", want: RuleControl},
		{name: "UTF-8 without SMTPUTF8", in: "<é@ok.test>", want: RuleNeedsSMTPUTF8},
		{name: "U-label without SMTPUTF8", in: "<a@bücher.test>", want: RuleNeedsSMTPUTF8},
		{name: "Latin-1", in: "<\xe9@ok.test>", utf8: true, want: RuleNotUTF8},
		{name: "right-to-left override", in: "<a\u202eb@ok.test>", utf8: true, want: RuleControl},
		{name: "no-break space", in: "<a\u00a0b@ok.test>", utf8: true, want: RuleControl},
		{name: "full-width at sign", in: "<a＠evil.test@ok.test>", utf8: true, want: ""},
		{name: "source route", in: "<@h1,@h2:a@ok.test>", want: RuleSourceRoute},
		{name: "broken literal", in: "<a@[>", want: RuleLiteral},
		{name: "IPv6 literal", in: "<a@[IPv6:::1]>", want: RuleLiteral},
		{name: "IPv4 literal", in: "<a@[192.0.2.1]>", want: RuleLiteral},
		{name: "bare IPv4", in: "<a@192.0.2.1>", want: RuleLiteral},
		{name: "percent routing", in: "<a%b@ok.test>", want: RuleRouting},
		{name: "bang path", in: "<victim!u@ok.test>", want: RuleRouting},
		{name: "parameter glued on", in: "<a@ok.test>SIZE=1", want: RuleBrackets},
		{name: "no domain", in: "<postmaster>", want: RuleNoDomain},
		{name: "empty domain", in: "<a@>", want: RuleNoDomain},
		{name: "no local part", in: "<@ok.test>", want: RuleNoLocal},
		{name: "open bracket only", in: "<", want: RuleBrackets},
		{name: "double brackets", in: "<<a@ok.test>>", want: RuleLocalCharacter},
		{name: "leading dot", in: "<.a@ok.test>", want: RuleDots},
		{name: "trailing dot in local part", in: "<a.@ok.test>", want: RuleDots},
		{name: "double dot", in: "<a..b@ok.test>", want: RuleDots},
		{name: "space", in: "<a b@ok.test>", want: RuleControl},
		{name: "comment", in: "<a(x)@ok.test>", want: RuleLocalCharacter},
		{name: "comma", in: "<a,b@ok.test>", want: RuleLocalCharacter},
		{name: "local part of 65", in: strings.Repeat("l", 65) + "@ok.test", want: RuleLocalTooLong},
		{name: "single label", in: "<a@localhost>", want: RuleSingleLabel},
		{name: "underscore", in: "<a@o_k.test>", want: RuleDomainCharacter},
		{name: "hyphen first", in: "<a@-ok.test>", want: RuleLabel},
		{name: "hyphen last", in: "<a@ok-.test>", want: RuleLabel},
		{name: "empty label", in: "<a@ok..test>", want: RuleLabel},
		{name: "two trailing dots", in: "<a@ok.test..>", want: RuleLabel},
		{name: "label of 64", in: "<a@" + strings.Repeat("x", 64) + ".test>", want: RuleLabel},
		{name: "broken A-label", in: "<a@xn--zzzzzzz999999.test>", want: RuleIDNA},
		{name: "domain of 254", in: "a@" + strings.Repeat("x.", 124) + "example", want: RuleDomainTooLong},
		{name: "address of 255", in: strings.Repeat("l", 64) + "@" + strings.Repeat("x.", 92) + "example", want: RuleAddressTooLong},
		{name: "a megabyte", in: strings.Repeat("x", 1<<20) + "@ok.test", want: RuleAddressTooLong},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParsePath(c.in, Options{SMTPUTF8: c.utf8})
			if c.want == "" {
				// A full-width at sign is an ordinary character; it must not
				// have been mapped to a real one.
				if err != nil || got.Domain != "ok.test" || !strings.Contains(got.Local, "＠") {
					t.Fatalf("ParsePath(%q) = %+v, %v", c.in, got, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("ParsePath(%q) = %+v, want refusal %s", c.in, got, c.want)
			}
			if rule := ruleOf(t, err); rule != c.want {
				t.Fatalf("ParsePath(%q) refused by %s, want %s", c.in, rule, c.want)
			}
		})
	}
}

func TestTheNullSenderIsAPathButNotAnAddress(t *testing.T) {
	if _, err := Parse("", Options{}); err == nil || ruleOf(t, err) != RuleEmpty {
		t.Fatalf("Parse of nothing: %v", err)
	}
	null, err := ParsePath("<>", Options{})
	if err != nil || !null.IsNull() || null.String() != "" || null.Key() != "" {
		t.Fatalf("null sender: %+v, %v", null, err)
	}
}

func TestKeysFoldTheLocalPartAndStringsDoNot(t *testing.T) {
	a, err := Parse("Jo@Example.COM", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Key() != "jo@example.com" || a.String() != "Jo@example.com" {
		t.Fatalf("key %q, string %q", a.Key(), a.String())
	}
}

func TestDomainsHaveOneForm(t *testing.T) {
	cases := []struct{ in, want string }{
		{in: "example.com", want: "example.com"},
		{in: "EXAMPLE.com.", want: "example.com"},
		{in: "Bücher.Example", want: "xn--bcher-kva.example"},
		{in: "XN--BCHER-KVA.example", want: "xn--bcher-kva.example"},
		{in: "faß.example", want: "xn--fa-hia.example"},
		{in: "ｅｘａｍｐｌｅ.com", want: "example.com"},
	}
	for _, c := range cases {
		got, err := ParseDomain(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseDomain(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestEveryRuleHasASentenceThatDoesNotRepeatTheInput(t *testing.T) {
	for rule, text := range ruleTexts() {
		if text == "" || strings.ContainsAny(text, "\r\n") {
			t.Errorf("rule %s has text %q", rule, text)
		}
	}
	_, err := Parse("<secret-text>@ok.test", Options{})
	if err == nil || strings.Contains(err.Error(), "secret-text") {
		t.Fatalf("got %v", err)
	}
}
