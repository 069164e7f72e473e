package server

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// certificate is a pair of files that is read again when one of them changes, so that a renewed certificate is served
// without a restart. Each handshake looks at both files; that costs less than a thousandth of the handshake.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu   sync.Mutex
	seen [2]fs.FileInfo
	pair *tls.Certificate
}

// openCertificate reads the pair of the settings; nil when there is none.
func openCertificate(config Config) (*certificate, error) {
	if config.TLSCert == "" {
		return nil, nil
	}
	c := &certificate{certFile: config.TLSCert, keyFile: config.TLSKey, log: config.Log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// get is for tls.Config. A pair that cannot be read leaves the last good one in use: whoever renews it may be between the
// two files.
func (c *certificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil {
		c.log.WarnContext(hello.Context(), "the certificate has changed and cannot be used; the one before stays", slog.Any("error", err))
	}
	return c.pair, nil
}

// load reads the pair when it has changed since it was last looked at. A bad one is reported once for each change.
func (c *certificate) load() error {
	seen, err := c.stat()
	if err != nil {
		return err
	}
	if same(c.seen[0], seen[0]) && same(c.seen[1], seen[1]) {
		return nil
	}
	c.seen = seen
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s, key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	return nil
}

func (c *certificate) stat() (seen [2]fs.FileInfo, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		if seen[i], err = os.Stat(path); err != nil {
			return seen, fmt.Errorf("certificate: %w", err)
		}
	}
	return seen, nil
}

func same(a, b fs.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
