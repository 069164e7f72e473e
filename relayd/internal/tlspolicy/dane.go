package tlspolicy

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// The values of a TLSA record (RFC 6698 7.2 to 7.4).
const (
	usageTA = 2 // an authority in the chain
	usageEE = 3 // the server's own certificate

	selectCertificate = 0
	selectKey         = 1

	matchFull   = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// maxTLSA bounds the records of one host that are looked at.
const maxTLSA = 50

// ErrMismatch is a server whose certificates none of its TLSA records fit.
var ErrMismatch = errors.New("no TLSA record fits the certificates of the server")

// DANE is the TLSA record set of one host, authenticated by DNSSEC. The zero
// value is a host without records.
type DANE struct {
	published bool
	records   []association
}

// association is one usable record.
type association struct {
	usage, selector, match uint8
	data                   []byte
}

// NewDANE takes the records of a validated answer. What RFC 7672 does not
// allow for mail (usages 0 and 1), and what cannot be understood, is left out.
func NewDANE(answer []dns.RR) DANE {
	var d DANE
	for _, rr := range answer {
		record, ok := rr.(*dns.TLSA)
		if !ok {
			continue
		}
		d.published = true
		if a, ok := usable(record); ok && len(d.records) < maxTLSA {
			d.records = append(d.records, a)
		}
	}
	d.records = strongest(d.records)
	return d
}

// Published reports whether the host has records at all: its mail then goes
// over TLS only, even where none of them can be used (RFC 7672 2.2).
func (d DANE) Published() bool { return d.published }

// Usable reports whether the host's certificates can be checked.
func (d DANE) Usable() bool { return len(d.records) > 0 }

func usable(record *dns.TLSA) (association, bool) {
	data, err := hex.DecodeString(record.Certificate)
	a := association{usage: record.Usage, selector: record.Selector, match: record.MatchingType, data: data}
	if err != nil || a.usage != usageTA && a.usage != usageEE || a.selector > selectKey {
		return a, false
	}
	switch a.match {
	case matchSHA256:
		return a, len(data) == sha256.Size
	case matchSHA512:
		return a, len(data) == sha512.Size
	case matchFull:
		return a, parses(a.selector, data)
	}
	return a, false
}

func parses(selector uint8, der []byte) bool {
	if selector == selectCertificate {
		_, err := x509.ParseCertificate(der)
		return err == nil
	}
	_, err := x509.ParsePKIXPublicKey(der)
	return err == nil
}

// strongest drops SHA-256 where the same kind of record exists with SHA-512, so
// that a weak digest cannot be chosen by whoever holds the weaker certificate
// (RFC 7671 9).
func strongest(records []association) []association {
	type kind struct{ usage, selector uint8 }
	strong := make(map[kind]bool)
	for _, a := range records {
		strong[kind{a.usage, a.selector}] = strong[kind{a.usage, a.selector}] || a.match == matchSHA512
	}
	var kept []association
	for _, a := range records {
		if a.match != matchSHA256 || !strong[kind{a.usage, a.selector}] {
			kept = append(kept, a)
		}
	}
	return kept
}

// Verify checks the chain that a server presented, its own certificate first.
// Usage 3 names the server's certificate itself: neither name nor date matters
// (RFC 7672 3.1.1). Usage 2 names an authority that the chain must lead to, in
// time, and the certificate must then be for one of names (3.1.2).
func (d DANE) Verify(chain []*x509.Certificate, names []string, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it sent none", ErrMismatch)
	}
	var why error
	for _, a := range d.records {
		if a.usage == usageEE {
			if a.fits(chain[0]) {
				return nil
			}
			continue
		}
		for _, anchor := range a.anchors(chain) {
			err := leadsTo(anchor, chain, names, now)
			if err == nil {
				return nil
			}
			why = err
		}
	}
	if why != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, why)
	}
	return ErrMismatch
}

func (a association) fits(c *x509.Certificate) bool {
	selected := c.Raw
	if a.selector == selectKey {
		selected = c.RawSubjectPublicKeyInfo
	}
	switch a.match {
	case matchSHA256:
		sum := sha256.Sum256(selected)
		return bytes.Equal(sum[:], a.data)
	case matchSHA512:
		sum := sha512.Sum512(selected)
		return bytes.Equal(sum[:], a.data)
	}
	return bytes.Equal(selected, a.data)
}

// anchors are the authorities that a names: those of the chain that fit, and
// the certificate inside the record, which the server need not send.
func (a association) anchors(chain []*x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	for _, c := range chain[1:] {
		if a.fits(c) {
			found = append(found, c)
		}
	}
	if len(found) == 0 && a.match == matchFull && a.selector == selectCertificate {
		if c, err := x509.ParseCertificate(a.data); err == nil {
			found = append(found, c)
		}
	}
	return found
}

// leadsTo builds a path from the server's certificate to anchor, whether or
// not anybody else trusts it.
func leadsTo(anchor *x509.Certificate, chain []*x509.Certificate, names []string, now time.Time) error {
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
	opts.Roots.AddCert(anchor)
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return fmt.Errorf("path to the named authority: %w", err)
	}
	var err error
	for _, name := range names {
		if err = chain[0].VerifyHostname(name); err == nil {
			return nil
		}
	}
	return err
}
