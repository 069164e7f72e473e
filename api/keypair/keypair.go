// Package keypair serves TLS with a certificate from two files, which are read again when one of them changes, so that a
// renewed certificate is served without a restart. Control plane and edge renew their certificates in the same way.
package keypair

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// Files are a certificate chain and its key, as PEM. Each handshake looks at both files; that costs less than a thousandth of
// the handshake.
type Files struct {
	certFile, keyFile string
	log               *slog.Logger

	mu   sync.Mutex
	seen [2]fs.FileInfo
	pair *tls.Certificate
}

// Open reads the pair. A pair that cannot be used is an error that names both files.
func Open(certFile, keyFile string, log *slog.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, log: log}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Config is a configuration of a server that serves the pair. RFC 8996: nothing older than TLS 1.2.
func (f *Files) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: f.get}
}

// get is for tls.Config. A pair that cannot be read leaves the last good one in use: whoever renews it may be between the
// two files.
func (f *Files) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		f.log.WarnContext(hello.Context(), "the certificate has changed and cannot be used; the one before stays", slog.Any("error", err))
	}
	return f.pair, nil
}

// load reads the pair when it has changed since it was last looked at. A bad one is reported once for each change.
func (f *Files) load() error {
	seen, err := f.stat()
	if err != nil {
		return err
	}
	if same(f.seen[0], seen[0]) && same(f.seen[1], seen[1]) {
		return nil
	}
	f.seen = seen
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s, key %s: %w", f.certFile, f.keyFile, err)
	}
	f.pair = &pair
	return nil
}

func (f *Files) stat() (seen [2]fs.FileInfo, err error) {
	for i, path := range []string{f.certFile, f.keyFile} {
		if seen[i], err = os.Stat(path); err != nil {
			return seen, fmt.Errorf("certificate: %w", err)
		}
	}
	return seen, nil
}

func same(a, b fs.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
