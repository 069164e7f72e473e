package deliver

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"

	"github.com/miekg/dns"
)

// These tests are inside the package because they need what the outside
// cannot have in a test: port 465, and a peer that is not on loopback.

func TestImplicitTLSIsSpokenFromTheFirstByteOnPort465(t *testing.T) {
	conf, roots := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	mx := relaytest.StartMX(t, relaytest.Script{TLS: conf, ImplicitTLS: true})
	s, err := New(Config{
		Hostname: "edge1.relay.test", RootCAs: roots, Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")},
		AllowTargetNetworks: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} },
	})
	if err != nil {
		t.Fatal(err)
	}
	c, f := s.open(t.Context(), target{
		host: "127.0.0.1", addr: mx.Addr(), demand: routeDemand(&queue.Job{Route: queue.Route{TLS: queue.TLSRequired}}),
	}, queue.Route{Host: "127.0.0.1", Port: 465})
	if f != nil {
		t.Fatal(f)
	}
	defer c.close()
	if c.tls != "TLS 1.3 verified" {
		t.Errorf("channel %q", c.tls)
	}
}

func TestARouteMayAskForImplicitTLSOnAnyPort(t *testing.T) {
	route := queue.Route{Host: "smart.test", Port: 2465, TLS: queue.TLSImplicit}
	if !implicitTLS(route) {
		t.Error("the channel starts in plain text")
	}
	if d := routeDemand(&queue.Job{Route: route}); d.level != verified {
		t.Errorf("demand %+v, want a verified channel", d)
	}
}

func TestAPasswordIsNeverSentInPlainTextBeyondLoopback(t *testing.T) {
	creds := queue.Credentials{Username: "relay", Password: "s3cret"}
	f := authenticate(&conn{ext: parseExtensions([]string{"mx", "AUTH PLAIN"})}, creds)
	if f == nil || f.class != queue.TempFail || !strings.Contains(f.text, "without TLS") {
		t.Errorf("got %v", f)
	}
	s, err := New(Config{Hostname: "edge1.relay.test", Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}})
	if err != nil {
		t.Fatal(err)
	}
	found, f := s.targetsFor(t.Context(), &queue.Job{Route: queue.Route{Host: "8.8.8.8", Credentials: creds}})
	if f != nil || len(found) != 1 || found[0].demand.level != verified {
		t.Errorf("a route with a password leads to %+v (%v)", found, f)
	}
	ways := demandForSecrets([]target{
		{addr: netip.MustParseAddrPort("192.0.2.1:587")}, {addr: netip.MustParseAddrPort("127.0.0.1:587")},
	}, queue.Route{Host: "smart.test", Credentials: creds})
	if away, here := ways[0].demand.level, ways[1].demand.level; away != verified || here != ifOffered {
		t.Errorf("a route with a password demands %d away and %d on loopback", away, here)
	}
}

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	judge, err := newTargets(
		func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")} }, []netip.Addr{netip.MustParseAddr("198.18.5.5")},
		[]netip.AddrPort{netip.MustParseAddrPort("10.9.3.3:25"), netip.MustParseAddrPort("[::]:587")})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]verdict{
		"8.8.8.8": targetAllowed, "2a00:1450::1": targetAllowed, "10.9.1.1": targetAllowed, "::ffff:10.9.1.1": targetAllowed,
		"198.18.5.5": targetOwn, "127.0.0.1": targetOwn, "::1": targetOwn,
		"127.0.0.2": targetOwn, "10.8.0.1": targetForbidden, "172.16.0.1": targetForbidden,
		"192.168.1.1": targetForbidden, "169.254.169.254": targetForbidden, "100.100.100.200": targetForbidden,
		"168.63.129.16": targetForbidden, "0.0.0.0": targetForbidden, "255.255.255.255": targetForbidden,
		"224.0.0.1": targetForbidden, "::": targetForbidden, "fe80::1": targetForbidden, "fd00:ec2::254": targetForbidden,
		"ff02::1": targetForbidden, "::ffff:169.254.169.254": targetForbidden, "::10.0.0.1": targetForbidden,
		"64:ff9b::a00:1": targetForbidden, "64:ff9b::808:808": targetAllowed, "2002:a00:1::1": targetForbidden,
		"2001::1": targetForbidden, "fe80::1%eth0": targetForbidden,
	} {
		if got := judge.judge(netip.AddrPortFrom(netip.MustParseAddr(text), 25)); got != want {
			t.Errorf("%s: verdict %d, want %d", text, got, want)
		}
	}
}

func TestNoConnectionIsOpenedToAForbiddenAddressWhateverWasResolved(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	s, err := New(Config{Hostname: "edge1.relay.test", Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, f := s.dial(t.Context(), target{host: "y.test", addr: mx.Addr()}); f == nil {
		t.Error("dialled loopback")
	}
	if n := mx.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestWhoseWordOnDNSSECCounts(t *testing.T) {
	for _, c := range []struct {
		addr    string
		trusted bool
		want    bool
	}{
		{addr: "127.0.0.1:53", want: true},
		{addr: "127.0.0.53:53", want: true},
		{addr: "[::1]:53", want: true},
		{addr: "[::ffff:127.0.0.1]:53", want: true},
		{addr: "192.0.2.1:53"},
		{addr: "10.0.0.1:53"},
		{addr: "192.0.2.1:53", trusted: true, want: true},
	} {
		r, err := newResolver([]netip.AddrPort{netip.MustParseAddrPort(c.addr)}, c.trusted, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.servers[0].validates; got != c.want {
			t.Errorf("%s, trusted %v: %v, want %v", c.addr, c.trusted, got, c.want)
		}
	}
}

// A resolver that validates answers SERVFAIL for what failed; the next one,
// which does not, would hand it out.
func TestWhatFailedValidationIsNotAskedOfAResolverThatDoesNotValidate(t *testing.T) {
	strict := relaytest.StartDNS(t, relaytest.Zone{})
	strict.Fail("y.test", relaytest.ServFail)
	strict.Sign("y.test")
	lax := relaytest.StartDNS(t, relaytest.Zone{"y.test": {"A 127.0.0.1"}})
	r, err := newResolver([]netip.AddrPort{strict.Addr(), lax.Addr()}, false, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	r.servers[1].validates = false // as one beyond loopback
	if a, err := r.lookup(t.Context(), "y.test", dns.TypeA); err == nil || certain(err) {
		t.Errorf("got %v, %v; want a temporary failure", a.records, err)
	}
	if q := lax.Queries(); len(q) != 0 {
		t.Errorf("the other resolver was asked %q", q)
	}
	// One that does not answer at all said nothing about validity.
	strict.Fail("y.test", relaytest.Silent)
	r.timeout = 100 * time.Millisecond
	if a, err := r.lookup(t.Context(), "y.test", dns.TypeA); err != nil || a.secure {
		t.Errorf("got %v, secure %v", err, a.secure)
	}
}
