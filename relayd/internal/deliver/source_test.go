package deliver_test

import (
	"net/netip"
	"strings"
	"testing"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

func TestMailLeavesFromTheSourceAddressOfItsFamilyWithTheNameOfThatAddress(t *testing.T) {
	v4 := relaytest.StartMX(t, relaytest.Script{})
	v6 := relaytest.StartMX(t, relaytest.Script{Listen: "[::1]:0"})
	s := newSender(t, func(c *deliver.Config) {
		c.AllowTargetNetworks = func() []netip.Prefix {
			return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
		}
		c.Sources = []deliver.Source{
			{Addr: netip.MustParseAddr("127.0.0.77"), Hostname: "out4.relay.test"}, {Addr: netip.MustParseAddr("::1")},
		}
	})
	for _, c := range []struct {
		mx         *relaytest.MX
		from, helo string
	}{
		{mx: v4, from: "127.0.0.77", helo: "out4.relay.test"},
		{mx: v6, from: "::1", helo: "edge1.relay.test"},
	} {
		if got := s.Attempt(t.Context(), jobTo(c.mx, mail, "b@y.test")); got[0].Class != queue.Delivered {
			t.Fatalf("from %s: %s %q", c.from, briefs(got), got[0].Text)
		}
		if m := c.mx.Messages()[0]; m.Client.String() != c.from || m.Helo != c.helo {
			t.Errorf("mail came from %s as %s, want %s as %s", m.Client, m.Helo, c.from, c.helo)
		}
	}
}

func TestASourceAddressThatTheHostDoesNotHaveIsRefusedAtTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		sources []string
		want    string
	}{
		"not here":          {sources: []string{"192.0.2.25"}, want: "mail cannot leave from 192.0.2.25, which this host does not have"},
		"not here, IPv6":    {sources: []string{"2001:db8::25"}, want: "mail cannot leave from 2001:db8::25"},
		"two of one family": {sources: []string{"127.0.0.1", "127.0.0.2"}, want: "127.0.0.2 is a second source address of its family"},
	} {
		conf := deliver.Config{Hostname: "edge1.relay.test"}
		for _, text := range c.sources {
			source, err := deliver.ParseSource(text)
			if err != nil {
				t.Fatal(err)
			}
			conf.Sources = append(conf.Sources, source)
		}
		if _, err := deliver.New(conf); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestSourceAddressesAreReadOrRefused(t *testing.T) {
	for text, want := range map[string]deliver.Source{
		"192.0.2.25":            {Addr: netip.MustParseAddr("192.0.2.25")},
		"::ffff:192.0.2.25":     {Addr: netip.MustParseAddr("192.0.2.25")},
		"2001:db8::1=o6.y.test": {Addr: netip.MustParseAddr("2001:db8::1"), Hostname: "o6.y.test"},
	} {
		if got, err := deliver.ParseSource(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "y.test", "192.0.2.25:25", "192.0.2.25=", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1"} {
		if got, err := deliver.ParseSource(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}
