package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/server"
	"activerelay/server/servertest"
)

// certificateFiles are a pair that a test renews.
type certificateFiles struct{ cert, key string }

func newCertificateFiles(t *testing.T) certificateFiles {
	dir := t.TempDir()
	files := certificateFiles{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	files.renew(t, 1)
	return files
}

// renew puts a new self-signed pair in place, as certbot does: each file by a rename.
func (f certificateFiles) renew(t *testing.T, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "relay.example"}, DNSNames: []string{"relay.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	replace(t, f.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	replace(t, f.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", text, 0o600))
	must(t, os.Rename(path+".new", path))
}

// serial makes one connection and returns the number of the certificate that it was shown.
func serial(t *testing.T, s *servertest.Server) int64 {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	reply, err := (&http.Client{Transport: transport}).Do(s.Request("GET", "/healthz", ""))
	must(t, err)
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		t.Fatalf("health: %d", reply.StatusCode)
	}
	return reply.TLS.PeerCertificates[0].SerialNumber.Int64()
}

func TestARenewedCertificateIsServedWithoutARestart(t *testing.T) {
	files := newCertificateFiles(t)
	log := &logBuffer{}
	s := servertest.Start(t, servertest.Config{Configure: func(c *server.Config) {
		logTo(log, nil)(c)
		c.TLSCert, c.TLSKey = files.cert, files.key
	}})
	if got := serial(t, s); got != 1 {
		t.Fatalf("certificate %d is served, want 1", got)
	}
	files.renew(t, 2)
	if got := serial(t, s); got != 2 {
		t.Fatalf("certificate %d is served, want the renewed one", got)
	}
	replace(t, files.cert, []byte("half written"))
	for range 2 {
		if got := serial(t, s); got != 2 {
			t.Fatalf("certificate %d is served, want the last good one", got)
		}
	}
	if got := strings.Count(log.String(), "the one before stays"); got != 1 {
		t.Fatalf("the broken file was reported %d times, want once", got)
	}
	files.renew(t, 3)
	if got := serial(t, s); got != 3 {
		t.Fatalf("certificate %d is served, want the repaired one", got)
	}
}

func TestAControlPlaneWithABadCertificateDoesNotStart(t *testing.T) {
	files := newCertificateFiles(t)
	replace(t, files.key, []byte("no key"))
	config := quiet(t.TempDir())
	config.TLSCert, config.TLSKey = files.cert, files.key
	if err := server.Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), files.key) {
		t.Fatalf("got %v", err)
	}
}
