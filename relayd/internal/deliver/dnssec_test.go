package deliver_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/relaytest"
)

// Matrix rows 44 (bogus DNSSEC) and 45 (DANE mismatch), with a real signed
// zone and a real resolver that validates.
func TestRow44And45ARealResolverDecidesWhichTLSARecordsCount(t *testing.T) {
	ca := relaytest.NewAuthority(t, "zone's own")
	conf := ca.Issue(t, time.Hour, "mx.good.test", "mx.authority.test")
	mx := relaytest.StartMX(t, relaytest.Script{TLS: conf})
	own := relaytest.TLSA(t, conf.Certificates[0].Leaf, 3, 1, 1)
	authority := relaytest.TLSA(t, ca.Certificate, 2, 0, 2)
	other := relaytest.TLSA(t, relaytest.NewAuthority(t, "other").Certificate, 3, 1, 1)
	const host = "@ MX 10 mx\nmx A 127.0.0.1\n"
	record := func(text string) string { return fmt.Sprintf("_%d._tcp.mx %s\n", mx.Port(), text) }
	resolver := relaytest.StartResolver(t, map[string]relaytest.RealZone{
		"good.test":      {Records: host + record(own), Signed: true},
		"authority.test": {Records: host + record(authority), Signed: true},
		"mismatch.test":  {Records: host + record(other), Signed: true},
		"silent.test":    {Records: host, Signed: true},
		"unsigned.test":  {Records: host + record(other)},
		"alias.test":     {Records: "@ MX 10 here\nhere CNAME mx.good.test.\n", Signed: true},
		"bogus.test": {Records: host, Signed: true, Alter: func(signed string) string {
			return strings.Replace(signed, "mx.bogus.test.\t60\tIN\tA\t127.0.0.1", "mx.bogus.test.\t60\tIN\tA\t127.0.0.2", 1)
		}},
		"forged.test": {Records: host + record(own), Signed: true, Alter: func(signed string) string {
			digest := own[strings.LastIndexByte(own, ' ')+1:]
			return strings.Replace(signed, digest[:8], "00000000", 1)
		}},
	})
	s := newSender(t, func(c *deliver.Config) {
		c.Resolvers, c.MXPort, c.Timeouts.Lookup = []netip.AddrPort{resolver}, mx.Port(), 5*time.Second
	})
	for domain, want := range map[string]string{
		"good.test": "delivered 250 2.0.0 TLS 1.3 dane", "authority.test": "delivered 250 2.0.0 TLS 1.3 dane",
		"alias.test":    "delivered 250 2.0.0 TLS 1.3 dane",
		"mismatch.test": "temporary 0 4.7.5 none", "silent.test": "delivered 250 2.0.0 TLS 1.3 encrypted",
		"unsigned.test": "delivered 250 2.0.0 TLS 1.3 encrypted", "bogus.test": "temporary 0 4.4.3 ", "forged.test": "temporary 0 4.4.3 ",
		"absent.good.test": "permanent 550 5.1.2 ",
	} {
		got := s.Attempt(t.Context(), jobByMX(mail, "b@"+domain))[0]
		if said := brief(got) + " " + got.TLS; said != want {
			t.Errorf("%s: got %s (%s: %v), want %s", domain, said, got.Text, got.Err, want)
		}
	}
	if n := mx.PlainTextMail(); n != 0 {
		t.Errorf("%d bytes of mail in plain text", n)
	}
}
