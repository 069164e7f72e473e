package relayip

import (
	"errors"
	"net/netip"
	"testing"
)

func TestAnAddressHasOneCanonicalForm(t *testing.T) {
	cases := map[string]struct{ prefix, shown string }{
		"198.51.100.7":            {prefix: "198.51.100.7/32", shown: "198.51.100.7"},
		"198.51.100.7/32":         {prefix: "198.51.100.7/32", shown: "198.51.100.7"},
		"198.51.100.0/24":         {prefix: "198.51.100.0/24", shown: "198.51.100.0/24"},
		"::ffff:198.51.100.7":     {prefix: "198.51.100.7/32", shown: "198.51.100.7"},
		"::ffff:198.51.100.0/120": {prefix: "198.51.100.0/24", shown: "198.51.100.0/24"},
		"2001:DB8:0:0::1":         {prefix: "2001:db8::1/128", shown: "2001:db8::1"},
		"2001:db8:1::/48":         {prefix: "2001:db8:1::/48", shown: "2001:db8:1::/48"},
	}
	for text, want := range cases {
		got, err := Parse(text)
		if err != nil || got.String() != want.prefix || Show(got) != want.shown {
			t.Errorf("%s: %s shown as %s, %v", text, got, Show(got), err)
		}
	}
}

func TestWhatCannotBeARelayIPIsRefusedByTheRuleItBreaks(t *testing.T) {
	cases := map[string]string{
		"":                      "ip-address",
		"example.com":           "ip-address",
		"192.0.2.256":           "ip-address",
		"192.0.2.010":           "ip-address",
		"fe80::1%eth0":          "ip-address",
		"192.0.2.1/33":          "ip-address",
		"192.0.2.1/":            "ip-address",
		"::ffff:0:0/64":         "ip-address",
		"192.0.2.10/24":         "host-bits",
		"2001:db8::1/64":        "host-bits",
		"192.0.3.0/23":          "host-bits",
		"198.51.100.0/22":       "prefix-length",
		"2001:db8::/47":         "prefix-length",
		"::ffff:198.51.0.0/112": "prefix-length",
		"0.0.0.0":               "not-a-client",
		"0.0.0.0/0":             "not-a-client",
		"::/0":                  "not-a-client",
		"224.0.0.1":             "not-a-client",
		"ff02::1":               "not-a-client",
	}
	for text, rule := range cases {
		prefix, err := Parse(text)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Rule != rule {
			t.Errorf("%q: %s, %v, want the rule %s", text, prefix, err, rule)
		}
	}
}

func TestAnAddressThatNamesNobodyNeedsTheOperator(t *testing.T) {
	cases := map[string]bool{
		"127.0.0.1": true, "10.1.2.3": true, "172.31.0.0/24": true, "192.168.1.0/24": true,
		"100.64.0.1": true, "100.127.255.255": true, "169.254.169.254": true, "::1": true,
		"fd00:1:2::/48": true, "fe80::1": true, "2002:c000:204::/48": true, "198.18.0.1": true,
		"8.8.8.8": false, "100.128.0.1": false, "172.32.0.1": false, "193.0.14.129": false,
		"2a00:1450:4001::/48": false, "198.20.0.1": false,
	}
	for text, want := range cases {
		prefix, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := NeedsOperator(prefix); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzParse: what is read is canonical, and reading it again changes nothing.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"192.0.2.1", "::ffff:1.2.3.0/120", "2001:db8::/48", "1.2.3.4/24", "::/0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		prefix, err := Parse(text)
		if err != nil {
			return
		}
		if prefix.Addr().Is4In6() || prefix != prefix.Masked() || prefix.Bits() < MinIPv4Bits {
			t.Fatalf("%q became %s", text, prefix)
		}
		for _, again := range []string{prefix.String(), Show(prefix)} {
			if same, err := Parse(again); err != nil || same != prefix {
				t.Fatalf("%s became %s, %v", again, same, err)
			}
		}
		NeedsOperator(netip.PrefixFrom(prefix.Addr(), prefix.Bits()))
	})
}
