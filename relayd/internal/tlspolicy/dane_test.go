package tlspolicy_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/tlspolicy"
	"activerelay/relayd/relaytest"

	"github.com/miekg/dns"
)

func records(t *testing.T, texts ...string) []dns.RR {
	t.Helper()
	var out []dns.RR
	for _, text := range texts {
		rr, err := dns.NewRR("_25._tcp.mx.y.test. 60 IN " + text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rr)
	}
	return out
}

func chainOf(t *testing.T, conf *tls.Config) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range conf.Certificates[0].Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain
}

// RFC 6698, 7671 and 7672: which records fit which chains.
func TestARecordFitsTheCertificateThatItNamesAndNoOther(t *testing.T) {
	root := relaytest.NewAuthority(t, "root")
	middle := root.Intermediate(t, "middle")
	other := relaytest.NewAuthority(t, "other")
	good := chainOf(t, middle.Issue(t, time.Hour, "mx.y.test"))
	expired := chainOf(t, middle.Issue(t, -time.Minute, "mx.y.test"))
	wrongName := chainOf(t, middle.Issue(t, time.Hour, "mx.z.test"))
	forged := append(chainOf(t, other.Issue(t, time.Hour, "mx.y.test"))[:1], middle.Certificate, root.Certificate)
	tlsa := func(c *x509.Certificate, usage, selector, match int) string {
		return relaytest.TLSA(t, c, usage, selector, match)
	}
	fullRoot := tlsa(root.Certificate, 2, 0, 0)
	for _, c := range []struct {
		name    string
		records []string
		chain   []*x509.Certificate
		fits    bool
	}{
		{name: "3 1 1", records: []string{tlsa(good[0], 3, 1, 1)}, chain: good, fits: true},
		{name: "3 1 2", records: []string{tlsa(good[0], 3, 1, 2)}, chain: good, fits: true},
		{name: "3 0 1", records: []string{tlsa(good[0], 3, 0, 1)}, chain: good, fits: true},
		{name: "3 0 0", records: []string{tlsa(good[0], 3, 0, 0)}, chain: good, fits: true},
		{name: "3 1 0", records: []string{tlsa(good[0], 3, 1, 0)}, chain: good, fits: true},
		{name: "3 1 1 of an expired certificate for another name", records: []string{tlsa(expired[0], 3, 1, 1)}, chain: expired, fits: true},
		{name: "3 1 1 of the authority", records: []string{tlsa(middle.Certificate, 3, 1, 1)}, chain: good},
		{name: "3 1 1 of another", records: []string{tlsa(wrongName[0], 3, 1, 1)}, chain: good},
		{name: "one of two, as in a rollover", records: []string{tlsa(wrongName[0], 3, 1, 1), tlsa(good[0], 3, 1, 1)}, chain: good, fits: true},
		{name: "2 0 1 of the root", records: []string{tlsa(root.Certificate, 2, 0, 1)}, chain: good, fits: true},
		{name: "2 1 1 of the middle", records: []string{tlsa(middle.Certificate, 2, 1, 1)}, chain: good, fits: true},
		{name: "2 1 2 of the middle, root not sent", records: []string{tlsa(middle.Certificate, 2, 1, 2)}, chain: good[:2], fits: true},
		{name: "2 0 0 of a root that is not sent", records: []string{fullRoot}, chain: good[:2], fits: true},
		{name: "2 0 1 of a root that is not sent", records: []string{tlsa(root.Certificate, 2, 0, 1)}, chain: good[:2]},
		{name: "2 1 1 of the server's own", records: []string{tlsa(good[0], 2, 1, 1)}, chain: good},
		{name: "2 1 1, expired", records: []string{tlsa(middle.Certificate, 2, 1, 1)}, chain: expired},
		{name: "2 1 1, wrong name", records: []string{tlsa(middle.Certificate, 2, 1, 1)}, chain: wrongName},
		{name: "2 1 1, authority sent along that did not sign", records: []string{tlsa(middle.Certificate, 2, 1, 1)}, chain: forged},
		{name: "no certificate", records: []string{tlsa(good[0], 3, 1, 1)}},
		{
			name:    "the weaker digest, when the stronger names another",
			records: []string{tlsa(good[0], 3, 1, 1), tlsa(wrongName[0], 3, 1, 2)}, chain: good,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := tlspolicy.NewDANE(records(t, c.records...))
			if !d.Published() || !d.Usable() {
				t.Fatalf("published %v, usable %v", d.Published(), d.Usable())
			}
			err := d.Verify(c.chain, []string{"mx.y.test"}, time.Now())
			if c.fits && err != nil || !c.fits && !errors.Is(err, tlspolicy.ErrMismatch) {
				t.Errorf("fits %v: %v", c.fits, err)
			}
		})
	}
}

func TestTheCertificateMayBeForAnyOfTheNamesThatDNSSECTiesTogether(t *testing.T) {
	root := relaytest.NewAuthority(t, "root")
	chain := chainOf(t, root.Issue(t, time.Hour, "y.test"))
	d := tlspolicy.NewDANE(records(t, relaytest.TLSA(t, root.Certificate, 2, 0, 1)))
	if err := d.Verify(chain, []string{"mx.y.test", "y.test"}, time.Now()); err != nil {
		t.Error(err)
	}
	if err := d.Verify(chain, []string{"mx.y.test"}, time.Now()); err == nil {
		t.Error("another name was taken")
	}
}

func TestRecordsThatMailMustNotUseAreUnusable(t *testing.T) {
	c := relaytest.NewAuthority(t, "root").Certificate
	for name, text := range map[string]string{
		"usage 0":            relaytest.TLSA(t, c, 0, 0, 1),
		"usage 1":            relaytest.TLSA(t, c, 1, 1, 1),
		"usage 4":            "TLSA 4 1 1 " + strings.Repeat("ab", 32),
		"selector 2":         "TLSA 3 2 1 " + strings.Repeat("ab", 32),
		"digest unknown":     "TLSA 3 1 3 " + strings.Repeat("ab", 32),
		"digest too short":   "TLSA 3 1 1 abcd",
		"no certificate":     "TLSA 2 0 0 abcd",
		"no key":             "TLSA 3 1 0 abcd",
		"256 digest for 512": "TLSA 3 1 2 " + strings.Repeat("ab", 32),
	} {
		if d := tlspolicy.NewDANE(records(t, text)); !d.Published() || d.Usable() {
			t.Errorf("%s: published %v, usable %v", name, d.Published(), d.Usable())
		}
	}
	if d := tlspolicy.NewDANE(records(t, "A 127.0.0.1")); d.Published() {
		t.Error("an address was taken for a TLSA record")
	}
}
