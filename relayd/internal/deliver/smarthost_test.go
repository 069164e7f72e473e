package deliver_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

// RFC 7672 2.2.2: the operator names the smarthost, so its TLSA records need no
// MX record to count.
func TestTheTLSARecordsOfASmarthostCountWhereItsRouteLeavesTLSOpen(t *testing.T) {
	own, _ := relaytest.Certificate(t, time.Hour, "whoever.test") // no authority, another name: DANE-EE does not ask
	_, strangers := relaytest.Certificate(t, time.Hour, "smart.test")
	other, _ := relaytest.Certificate(t, time.Hour, "smart.test")
	fits := relaytest.TLSA(t, own.Certificates[0].Leaf, 3, 1, 1)
	differs := relaytest.TLSA(t, other.Certificates[0].Leaf, 3, 1, 1)
	stripped := map[relaytest.Stage]relaytest.Action{relaytest.StageStartTLS: relaytest.Say("454 4.7.0 not now")}
	for _, c := range []struct {
		name     string
		record   string
		unsigned bool
		failing  bool
		script   relaytest.Script
		route    queue.Route
		want     string
		tls      string
	}{
		{name: "fits", record: fits, script: relaytest.Script{TLS: own}, want: "delivered 250 2.0.0", tls: "TLS 1.3 dane"},
		{name: "does not fit", record: differs, script: relaytest.Script{TLS: own}, want: "temporary 0 4.7.5", tls: "none"},
		{name: "fits, no TLS offered", record: fits, want: "temporary 0 4.7.4", tls: "none"},
		{name: "fits, TLS refused", record: fits, script: relaytest.Script{TLS: own, On: stripped}, want: "temporary 454 4.7.4", tls: "none"},
		{
			name: "does not fit, not signed", record: differs, unsigned: true, script: relaytest.Script{TLS: own},
			want: "delivered 250 2.0.0", tls: "TLS 1.3 encrypted",
		},
		{name: "none", script: relaytest.Script{TLS: own}, want: "delivered 250 2.0.0", tls: "TLS 1.3 encrypted"},
		{
			name: "not to be had", failing: true, script: relaytest.Script{TLS: own},
			want: "temporary 0 4.4.3",
		},
		{
			name: "fits, the route wants no TLS", record: fits, script: relaytest.Script{TLS: own}, route: queue.Route{TLS: queue.TLSNone},
			want: "delivered 250 2.0.0", tls: "none",
		},
		{
			name: "fits, the route requires a valid certificate", record: fits, script: relaytest.Script{TLS: own},
			route: queue.Route{TLS: queue.TLSRequired}, want: "temporary 0 4.7.5", tls: "none",
		},
		{
			name: "fits, TLS from the first byte by a rule that stays", record: fits, script: relaytest.Script{TLS: own, ImplicitTLS: true},
			route: queue.Route{TLS: queue.TLSImplicit}, want: "temporary 0 4.7.5", tls: "none",
		},
		{
			name: "fits, with a password", record: fits,
			script: relaytest.Script{TLS: own, Extensions: []string{"AUTH PLAIN"}, Username: "relay", Password: "s3cret"},
			route:  queue.Route{Credentials: queue.Credentials{Username: "relay", Password: "s3cret"}},
			want:   "delivered 250 2.0.0", tls: "TLS 1.3 dane",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			mx := relaytest.StartMX(t, c.script)
			owner := fmt.Sprintf("_%d._tcp.smart.test", mx.Port())
			dns := relaytest.StartDNS(t, relaytest.Zone{"smart.test": {"A 127.0.0.1"}})
			if c.record != "" {
				dns.Set(owner, c.record)
			}
			if !c.unsigned {
				dns.Sign("smart.test")
			}
			if c.failing {
				dns.Fail(owner, relaytest.ServFail)
			}
			s := newSender(t, func(conf *deliver.Config) {
				conf.Resolvers, conf.RootCAs, conf.Timeouts.Lookup = []netip.AddrPort{dns.Addr()}, strangers, 200*time.Millisecond
			})
			job := jobByMX(mail, "b@y.test")
			job.Route = c.route
			job.Route.Host, job.Route.Port = "smart.test", mx.Port()
			got := s.Attempt(t.Context(), job)
			if briefs(got) != c.want || got[0].TLS != c.tls {
				t.Errorf("got %s over %q: %q (%v), want %s over %q", briefs(got), got[0].TLS, got[0].Text, got[0].Err, c.want, c.tls)
			}
		})
	}
}

func TestASmarthostByAddressNeedsNoResolver(t *testing.T) {
	mx := relaytest.StartMX(t, relaytest.Script{})
	dns := relaytest.StartDNS(t, relaytest.Zone{})
	s := newSender(t, func(conf *deliver.Config) { conf.Resolvers = []netip.AddrPort{dns.Addr()} })
	if got := s.Attempt(t.Context(), jobTo(mx, mail, "b@y.test")); got[0].Class != queue.Delivered {
		t.Errorf("got %s", briefs(got))
	}
	if q := dns.Queries(); len(q) != 0 {
		t.Errorf("asked %q", q)
	}
}
