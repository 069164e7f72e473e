package relaytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Authority issues certificates.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	above       *Authority // nil for a root
}

// NewAuthority makes a root authority.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	return newAuthority(t, name, nil)
}

// Intermediate makes an authority below a.
func (a *Authority) Intermediate(t testing.TB, name string) *Authority {
	t.Helper()
	return newAuthority(t, name, a)
}

func newAuthority(t testing.TB, name string, above *Authority) *Authority {
	t.Helper()
	a := &Authority{key: newKey(t), above: above}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	issuer, secret := template, a.key
	if above != nil {
		issuer, secret = above.Certificate, above.key
	}
	a.Certificate = sign(t, template, issuer, a.key, secret)
	return a
}

// Issue returns a server configuration that presents a certificate for names,
// as [Certificate] does, and all authorities above it.
func (a *Authority) Issue(t testing.TB, validFor time.Duration, names ...string) *tls.Config {
	t.Helper()
	secret := newKey(t)
	leaf := sign(t, leafTemplate(validFor, names), a.Certificate, secret, a.key)
	chain := [][]byte{leaf.Raw}
	for up := a; up != nil; up = up.above {
		chain = append(chain, up.Certificate.Raw)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: secret, Leaf: leaf}},
		MinVersion:   tls.VersionTLS12,
	}
}

// Pool trusts a alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("relaytest: making a key: %v", err)
	}
	return secret
}

func leafTemplate(validFor time.Duration, names []string) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "relaytest"},
		NotBefore: time.Now().Add(-time.Hour).Add(min(validFor, 0)), NotAfter: time.Now().Add(validFor),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	return template
}

// sign makes the certificate of template for the holder of own, signed by the
// issuer with secret.
func sign(t testing.TB, template, issuer *x509.Certificate, own, secret *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &own.PublicKey, secret)
	if err != nil {
		t.Fatalf("relaytest: making a certificate: %v", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("relaytest: reading the certificate back: %v", err)
	}
	return certificate
}

// TLSA returns the record by which a zone names a certificate, in the form
// that [Zone] takes.
func TLSA(t testing.TB, c *x509.Certificate, usage, selector, match int) string {
	t.Helper()
	record := new(dns.TLSA)
	if err := record.Sign(usage, selector, match, c); err != nil {
		t.Fatalf("relaytest: making a TLSA record: %v", err)
	}
	return fmt.Sprintf("TLSA %d %d %d %s", usage, selector, match, record.Certificate)
}
