package relayd_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/relayd"
	"activerelay/relayd/relaytest"
)

// writePair puts a new certificate for 127.0.0.1 where the edge looks for it.
func writePair(t *testing.T, dir string) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	config, roots := relaytest.Certificate(t, time.Hour, "127.0.0.1")
	pair := config.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, roots
}

func handshake(addr string, roots *x509.CertPool) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, &tls.Config{RootCAs: roots})
	if err != nil {
		return err
	}
	return conn.Close()
}

func TestARenewedCertificateIsServedWithoutARestartAndABadOneIsNot(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	cert, key, old := writePair(t, dir)
	e := w.addEdge(func(c *relayd.Config) { c.TLSListen, c.TLSCert, c.TLSKey = "127.0.0.1:0", cert, key })
	if err := handshake(e.TLS, old); err != nil {
		t.Fatal(err)
	}
	_, _, renewed := writePair(t, dir)
	if err := handshake(e.TLS, renewed); err != nil {
		t.Errorf("with the renewed certificate: %v", err)
	}
	if err := os.WriteFile(cert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := handshake(e.TLS, renewed); err != nil {
		t.Errorf("after a bad file: %v", err)
	}
}

// A client that comes again spares both sides the dear part of the handshake, whatever became of the certificate meanwhile.
func TestASessionOfTLSIsResumedAlsoAfterTheCertificateWasRenewed(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	cert, key, roots := writePair(t, dir)
	e := w.addEdge(func(c *relayd.Config) { c.TLSListen, c.TLSCert, c.TLSKey = "127.0.0.1:0", cert, key })
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		sessions := tls.NewLRUClientSessionCache(1)
		for i, resumed := range []bool{false, true, true} {
			if i == 2 {
				writePair(t, dir)
			}
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", e.TLS,
				&tls.Config{RootCAs: roots, ClientSessionCache: sessions, MaxVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 100)); err != nil { // the ticket of TLS 1.3 comes with the greeting
				t.Error(err)
			}
			if got := conn.ConnectionState().DidResume; got != resumed {
				t.Errorf("%s: handshake %d is resumed: %v", tls.VersionName(version), i+1, got)
			}
			conn.Close()
		}
		_, _, roots = writePair(t, dir)
	}
}

func TestASmarthostsPasswordIsFetchedSealedAndKeptForARestart(t *testing.T) {
	w := newWorld(t)
	smart := relaytest.StartMX(t, relaytest.Script{Extensions: []string{"AUTH PLAIN"}, Username: "relay", Password: "correct horse"})
	w.call("POST", "/v1/routes", `{"domain":"example.com","recipient_domain":"example.net","host":"127.0.0.1","port":`+port(smart)+`,"tls":"none","username":"relay","password":"correct horse"}`, nil)
	e := w.addEdge(nil)
	w.stocked(e, "first")
	eventually(t, "the message at the smarthost", func() bool { return slices.Equal(subjects(smart), []string{"first"}) })
	if user := smart.Messages()[0].User; user != "relay" {
		t.Errorf("login %q, want relay", user)
	}
	w.plane.Stop()
	again := w.restart(e)
	if r := send(t, again.Relay, "anna@example.com", "second"); !strings.HasPrefix(r, "250 ") {
		t.Fatalf("reply %q", r)
	}
	eventually(t, "the next message at the smarthost", func() bool { return slices.Equal(subjects(smart), []string{"first", "second"}) })
	err := filepath.WalkDir(e.DataDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "correct horse") {
			t.Errorf("the password lies open in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func port(mx *relaytest.MX) string {
	_, p, _ := net.SplitHostPort(mx.Addr().String())
	return p
}
