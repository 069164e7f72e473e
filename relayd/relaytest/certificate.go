package relaytest

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

// Certificate returns a server configuration with a certificate for names
// (host names or addresses), valid from an hour ago for validFor (negative: it
// has expired), and the pool that trusts it.
func Certificate(t testing.TB, validFor time.Duration, names ...string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	secret := newKey(t)
	template := leafTemplate(validFor, names)
	template.KeyUsage |= x509.KeyUsageCertSign
	template.IsCA = true
	leaf := sign(t, template, template, secret, secret)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: secret, Leaf: leaf}},
		MinVersion:   tls.VersionTLS12,
	}, pool
}
