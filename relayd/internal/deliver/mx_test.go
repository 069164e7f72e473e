package deliver_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

const (
	delivered = "delivered 250 2.0.0"
	waits     = "temporary 0 4.4.3"
	noServer  = "permanent 550 5.1.2"
)

// dnsCase is how the DNS answers for y.test, and what becomes of a message to it.
type dnsCase struct {
	name   string
	zone   relaytest.Zone
	faults map[string]relaytest.DNSFault
	allow  func() []netip.Prefix // nil allows loopback
	want   string
	inText string
}

// followDNS sends a message for each and wants it to arrive where it was delivered, and only there, after few queries.
func followDNS(t *testing.T, cases []dnsCase) {
	t.Helper()
	mx := relaytest.StartMX(t, relaytest.Script{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dns := relaytest.StartDNS(t, c.zone)
			for name, fault := range c.faults {
				dns.Fail(name, fault)
			}
			before := len(mx.Messages())
			s := newSender(t, func(conf *deliver.Config) {
				conf.Resolvers, conf.MXPort = []netip.AddrPort{dns.Addr()}, mx.Port()
				conf.Timeouts.Lookup = 200 * time.Millisecond
				if c.allow != nil {
					conf.AllowTargetNetworks = c.allow
				}
			})
			got := s.Attempt(t.Context(), jobByMX(mail, "b@y.test"))
			if briefs(got) != c.want || !strings.Contains(got[0].Text, c.inText) {
				t.Errorf("got %s %q (%v), want %s %q", briefs(got), got[0].Text, got[0].Err, c.want, c.inText)
			}
			if arrived := len(mx.Messages()) > before; arrived != (c.want == delivered) {
				t.Errorf("arrived: %v, and the result is to be %s", arrived, c.want)
			}
			if n := len(dns.Queries()); n > 2+2*2*2*10 {
				t.Errorf("%d queries for one attempt", n)
			}
		})
	}
}

func TestRow44TheDNSDecidesWhereMailGoes(t *testing.T) {
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, fmt.Sprintf("MX %d mx%d.y.test.", i+10, i))
	}
	here := []string{"A 127.0.0.1"}
	followDNS(t, []dnsCase{
		{name: "one MX", zone: relaytest.Zone{"y.test": {"MX 10 mx.y.test."}, "mx.y.test": here}, want: delivered},
		{name: "no MX, an address", zone: relaytest.Zone{"y.test": here}, want: delivered},
		{
			name: "an MX, and an address that must not be used",
			zone: relaytest.Zone{"y.test": {"MX 10 mx.y.test.", "A 127.0.0.1"}, "mx.y.test": {}},
			want: noServer, inText: "no mail server",
		},
		{name: "nothing at all", zone: relaytest.Zone{"y.test": {}}, want: noServer},
		{name: "no such domain", zone: relaytest.Zone{}, want: noServer, inText: "does not exist"},
		{name: "the MX host does not exist", zone: relaytest.Zone{"y.test": {"MX 10 gone.y.test."}}, want: noServer},
		{name: "a hundred MX that do not exist", zone: relaytest.Zone{"y.test": hundred}, want: noServer},
		{
			name: "null MX", zone: relaytest.Zone{"y.test": {"MX 0 .", "A 127.0.0.1"}},
			want: "permanent 556 5.1.10", inText: "null MX",
		},
		{
			name: "null MX beside a real one", want: delivered,
			zone: relaytest.Zone{"y.test": {"MX 0 .", "MX 10 mx.y.test."}, "mx.y.test": here},
		},
		{
			name: "the domain is an alias", want: delivered,
			zone: relaytest.Zone{"y.test": {"CNAME z.test."}, "z.test": {"MX 10 mx.z.test."}, "mx.z.test": here},
		},
		{
			name: "the MX host is an alias", want: delivered,
			zone: relaytest.Zone{"y.test": {"MX 10 mx.y.test."}, "mx.y.test": {"CNAME h.test."}, "h.test": here},
		},
		{name: "an alias of nothing", zone: relaytest.Zone{"y.test": {"CNAME gone.test."}}, want: noServer},
	})
}

// dnssec_test.go has bogus DNSSEC from a resolver that finds out.
func TestRow44MailWaitsWhereTheDNSFails(t *testing.T) {
	type faults map[string]relaytest.DNSFault
	address := relaytest.Zone{"y.test": {"A 127.0.0.1"}}
	server := relaytest.Zone{"y.test": {"MX 10 mx.y.test."}, "mx.y.test": {"A 127.0.0.1"}}
	followDNS(t, []dnsCase{
		{name: "SERVFAIL", faults: faults{"y.test": relaytest.ServFail}, want: waits},
		{name: "REFUSED", faults: faults{"y.test": relaytest.Refused}, want: waits},
		{name: "no answer", faults: faults{"y.test": relaytest.Silent}, want: waits},
		{name: "garbage", faults: faults{"y.test": relaytest.Garbage}, want: waits},
		{name: "an answer to another query", zone: address, faults: faults{"y.test": relaytest.WrongID}, want: waits},
		{name: "an answer to another question", zone: address, faults: faults{"y.test": relaytest.WrongQuestion}, want: waits},
		{name: "an alias loop", zone: relaytest.Zone{"y.test": {"CNAME z.test."}, "z.test": {"CNAME y.test."}}, want: waits},
		{
			name: "MX known, addresses not to be had", zone: relaytest.Zone{"y.test": {"MX 10 mx.y.test."}},
			faults: faults{"mx.y.test": relaytest.ServFail}, want: waits,
		},
		{
			name: "one family empty, the other failing", zone: relaytest.Zone{"y.test": {"MX 10 mx.y.test."}, "mx.y.test": {}},
			faults: faults{"AAAA mx.y.test": relaytest.ServFail}, want: waits,
		},
		{
			name:   "a private host while another cannot be looked up",
			zone:   relaytest.Zone{"y.test": {"MX 1 a.y.test.", "MX 2 b.y.test."}, "a.y.test": {"A 10.0.0.1"}},
			faults: faults{"b.y.test": relaytest.ServFail}, want: waits,
		},
		{
			name: "but not for one family, if the other answers", zone: server,
			faults: faults{"AAAA mx.y.test": relaytest.ServFail}, want: delivered,
		},
		{name: "but not for an answer too big for UDP", zone: server, faults: faults{"y.test": relaytest.Truncated}, want: delivered},
	})
}

func TestRow44TheDNSSendsNoMailIntoThisRelayOrAPrivateNetwork(t *testing.T) {
	nowhere := func() []netip.Prefix { return nil }
	followDNS(t, []dnsCase{
		{
			name: "loopback", zone: relaytest.Zone{"y.test": {"A 127.0.0.1"}}, allow: nowhere,
			want: "permanent 0 5.4.6", inText: "this relay",
		},
		{
			name: "a private network", zone: relaytest.Zone{"y.test": {"MX 1 mx.y.test."}, "mx.y.test": {"A 10.1.2.3"}},
			want: "permanent 0 5.4.4", inText: "not on the public network",
		},
		{name: "a metadata service", zone: relaytest.Zone{"y.test": {"A 169.254.169.254"}}, want: "permanent 0 5.4.4"},
		{name: "IPv4 inside IPv6", zone: relaytest.Zone{"y.test": {"AAAA ::ffff:10.0.0.1"}}, want: "permanent 0 5.4.4"},
	})
}

func TestMailServersAreTriedByPreferenceUntilOneTakesTheMail(t *testing.T) {
	dead := relaytest.StartMX(t, relaytest.Script{
		On: map[relaytest.Stage]relaytest.Action{relaytest.StageConnect: relaytest.SayAndClose("554 5.3.2 no service")},
	})
	second := relaytest.StartMX(t, relaytest.Script{Listen: fmt.Sprintf("127.0.0.2:%d", dead.Port())})
	third := relaytest.StartMX(t, relaytest.Script{Listen: fmt.Sprintf("127.0.0.3:%d", dead.Port())})
	dns := relaytest.StartDNS(t, relaytest.Zone{
		"y.test":   {"MX 30 c.y.test.", "MX 20 b.y.test.", "MX 10 a.y.test.", "MX 5 nobody.y.test."},
		"a.y.test": {"A 127.0.0.1"}, "b.y.test": {"A 127.0.0.2"}, "c.y.test": {"A 127.0.0.3"},
		"nobody.y.test": {"A 127.0.0.9"}, // nothing listens there
	})
	s := newSender(t, func(c *deliver.Config) {
		c.Resolvers, c.MXPort = []netip.AddrPort{dns.Addr()}, dead.Port()
	})
	got := s.Attempt(t.Context(), jobByMX(mail, "b@y.test"))
	if want := fmt.Sprintf("b.y.test[127.0.0.2]:%d", dead.Port()); got[0].Class != queue.Delivered || got[0].Host != want {
		t.Errorf("got %s at %s, want delivered at %s", briefs(got), got[0].Host, want)
	}
	if dead.Connections() != 1 || len(second.Messages()) != 1 || third.Connections() != 0 {
		t.Errorf("connections %d, %d, %d; want 1, 1, 0", dead.Connections(), second.Connections(), third.Connections())
	}
}

// RFC 5321 5.1. Only one listens, so that the addresses before its own are known to be tried in vain.
func TestAllAddressesOfAServerAreTriedBeforeTheNextServer(t *testing.T) {
	v6 := relaytest.StartMX(t, relaytest.Script{Listen: "[::1]:0"})
	backup := relaytest.StartMX(t, relaytest.Script{Listen: fmt.Sprintf("127.0.0.2:%d", v6.Port())})
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("A 127.0.0.%d", 100+i))
	}
	dns := relaytest.StartDNS(t, relaytest.Zone{
		"y.test": {"MX 20 b.y.test.", "MX 10 a.y.test."}, "a.y.test": {"A 127.0.0.9", "AAAA ::1"}, "b.y.test": {"A 127.0.0.2"},
		// A server with more addresses than are tried keeps none from the next.
		"z.test": {"MX 10 many.z.test.", "MX 20 b.y.test."}, "many.z.test": many,
	})
	s := newSender(t, func(c *deliver.Config) {
		c.Resolvers, c.MXPort = []netip.AddrPort{dns.Addr()}, v6.Port()
		c.AllowTargetNetworks = func() []netip.Prefix {
			return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
		}
	})
	for recipient, want := range map[string]string{
		"b@y.test": fmt.Sprintf("a.y.test[::1]:%d", v6.Port()), "b@z.test": fmt.Sprintf("b.y.test[127.0.0.2]:%d", backup.Port()),
	} {
		if got := s.Attempt(t.Context(), jobByMX(mail, recipient)); got[0].Class != queue.Delivered || got[0].Host != want {
			t.Errorf("%s: got %s at %s (%v), want delivered at %s", recipient, briefs(got), got[0].Host, got[0].Err, want)
		}
	}
}

func TestMailBouncesOnlyWhenEveryServerRefusesForGood(t *testing.T) {
	refusing := relaytest.StartMX(t, relaytest.Script{
		On: map[relaytest.Stage]relaytest.Action{relaytest.StageConnect: relaytest.SayAndClose("554 5.7.1 go away")},
	})
	zone := relaytest.Zone{
		"one.test": {"MX 10 a.test."}, "two.test": {"MX 10 a.test.", "MX 20 silent.test."}, "three.test": {"MX 10 a.test.", "MX 20 unknown.test."},
		"a.test": {"A 127.0.0.1"}, "silent.test": {"A 127.0.0.9"},
	}
	dns := relaytest.StartDNS(t, zone)
	dns.Fail("unknown.test", relaytest.ServFail)
	s := newSender(t, func(c *deliver.Config) {
		c.Resolvers, c.MXPort = []netip.AddrPort{dns.Addr()}, refusing.Port()
	})
	for recipient, want := range map[string]string{
		"b@one.test": "permanent 554 5.7.1", "b@two.test": "temporary 0 4.4.1", "b@three.test": waits,
	} {
		if got := s.Attempt(t.Context(), jobByMX(mail, recipient)); briefs(got) != want {
			t.Errorf("%s: got %s %q, want %s", recipient, briefs(got), got[0].Text, want)
		}
	}
}

// RFC 5321 5.1: a relay that finds itself among the MX hosts drops itself and
// all of equal or lower rank.
func TestARelayNeverSendsMailToItselfOrToLowerRanks(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	zone := relaytest.Zone{
		"backup.test": {"MX 10 good.test.", "MX 20 self.test.", "MX 30 good2.test."},
		"loop.test":   {"MX 10 self.test.", "MX 10 good.test.", "MX 20 good2.test."},
		"good.test":   {"A 127.0.0.1"}, "good2.test": {"A 127.0.0.1"}, "self.test": {"A 198.18.5.5"},
	}
	dns := relaytest.StartDNS(t, zone)
	s := newSender(t, func(c *deliver.Config) {
		c.Resolvers, c.MXPort = []netip.AddrPort{dns.Addr()}, mx.Port()
		c.OwnAddresses = []netip.Addr{netip.MustParseAddr("198.18.5.5")}
	})
	for recipient, want := range map[string]string{"b@backup.test": "delivered 250 2.0.0", "b@loop.test": "permanent 0 5.4.6"} {
		if got := s.Attempt(t.Context(), jobByMX(mail, recipient)); briefs(got) != want {
			t.Errorf("%s: got %s %q, want %s", recipient, briefs(got), got[0].Text, want)
		}
	}
}

// Matrix row 21; package relayd has the loop over two edges.
func TestRow21TheRelayKnowsItselfAmongTheMailServersOfADomain(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	listen := func(addr string) []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:2525"), netip.AddrPortFrom(netip.MustParseAddr(addr), mx.Port())}
	}
	dns := relaytest.StartDNS(t, relaytest.Zone{
		"y.test": {"MX 10 mx.y.test."}, "mx.y.test": {"A 127.0.0.1"},
		"primary.test": {"MX 10 EDGE1.relay.test.", "MX 20 mx.y.test."}, "edge1.relay.test": {"A 127.0.0.1"},
		"backup.test": {"MX 10 mx.y.test.", "MX 20 edge1.relay.test."},
		"out4.test":   {"MX 10 out4.relay.test."}, "out4.relay.test": {"A 127.0.0.1"},
		"loopback.test": {"A 127.200.0.1"},
	})
	for _, c := range []struct {
		name, domain string
		listen       []netip.AddrPort
		want         string
	}{
		{name: "our name first, wherever it leads", domain: "primary.test", want: "permanent 0 5.4.6"},
		{name: "our name behind another", domain: "backup.test", want: "delivered 250 2.0.0"},
		{name: "the domain is our name", domain: "edge1.relay.test", want: "permanent 0 5.4.6"},
		{name: "the name of a source address", domain: "out4.test", want: "permanent 0 5.4.6"},
		{name: "where we take mail, though allowed", domain: "y.test", listen: listen("127.0.0.1"), want: "permanent 0 5.4.6"},
		{name: "where we take mail on all addresses", domain: "y.test", listen: listen("::"), want: "permanent 0 5.4.6"},
		{name: "a neighbour of where we take mail", domain: "y.test", listen: listen("127.0.0.2"), want: "delivered 250 2.0.0"},
		{name: "all of loopback is this host", domain: "loopback.test", want: "permanent 0 5.4.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := mx.Connections()
			s := newSender(t, func(conf *deliver.Config) {
				conf.Resolvers, conf.MXPort, conf.ListenAddresses = []netip.AddrPort{dns.Addr()}, mx.Port(), c.listen
				conf.AllowTargetNetworks = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
				conf.Sources = []deliver.Source{{Addr: netip.MustParseAddr("127.0.0.1"), Hostname: "out4.relay.test"}}
			})
			got := s.Attempt(t.Context(), jobByMX(mail, "b@"+c.domain))
			if briefs(got) != c.want {
				t.Errorf("got %s %q, want %s", briefs(got), got[0].Text, c.want)
			}
			if n := mx.Connections() - before; (n > 0) != (got[0].Class == queue.Delivered) {
				t.Errorf("%d connections", n)
			}
			// A route waits for whoever set it.
			if c.domain == "y.test" && got[0].Class == queue.PermFail {
				if got := briefs(s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test"))); got != "temporary 0 4.4.6" {
					t.Errorf("as a smarthost: got %s", got)
				}
			}
		})
	}
}

func TestASmarthostThatCannotBeFoundNeverBouncesMail(t *testing.T) {
	dns := relaytest.StartDNS(t, relaytest.Zone{"private.test": {"A 10.0.0.1"}})
	s := newSender(t, func(c *deliver.Config) { c.Resolvers = []netip.AddrPort{dns.Addr()} })
	for host, want := range map[string]string{
		"gone.test": "temporary 0 4.1.2", "private.test": "temporary 0 4.4.4", "10.0.0.1": "temporary 0 4.4.4",
	} {
		job := jobByMX(mail, "b@y.test")
		job.Route = queue.Route{Host: host}
		if got := s.Attempt(t.Context(), job); briefs(got) != want {
			t.Errorf("%s: got %s %q, want %s", host, briefs(got), got[0].Text, want)
		}
	}
}

func TestTheMXOfASmarthostIsNotAsked(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	dns := relaytest.StartDNS(t, relaytest.Zone{"smart.test": {"MX 10 other.test.", "A 127.0.0.1"}})
	s := newSender(t, func(c *deliver.Config) { c.Resolvers = []netip.AddrPort{dns.Addr()} })
	job := jobByMX(mail, "b@y.test")
	job.Route = queue.Route{Host: "smart.test", Port: mx.Port()}
	if got := s.Attempt(t.Context(), job); got[0].Class != queue.Delivered {
		t.Fatalf("got %s %q", briefs(got), got[0].Text)
	}
	if q := dns.Queries(); slices.ContainsFunc(q, func(s string) bool { return strings.HasPrefix(s, "MX") }) {
		t.Errorf("queries %q", q)
	}
}
