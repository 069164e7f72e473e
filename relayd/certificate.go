package relayd

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// certificate is the pair of files behind STARTTLS and TLS, read again when one of them changes, so that a renewed
// certificate is served without a restart. Each handshake looks at both files, which costs little beside the handshake.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu   sync.Mutex
	seen [2]fs.FileInfo
	pair *tls.Certificate
}

// serverTLS reads the pair of the settings; nil when there is none.
func serverTLS(c Config) (*tls.Config, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	pair := &certificate{certFile: c.TLSCert, keyFile: c.TLSKey, log: c.Log}
	if err := pair.load(); err != nil {
		return nil, err
	}
	// RFC 8996: nothing older than TLS 1.2.
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.get}, nil
}

// get is for tls.Config. A pair that cannot be read leaves the last good one in use: whoever renews it may be between the
// two files.
func (c *certificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil {
		c.log.WarnContext(hello.Context(), "the certificate has changed and cannot be used; the one before stays", "error", err)
	}
	return c.pair, nil
}

// load reads the pair when it has changed since it was last looked at. A bad one is reported once for each change.
func (c *certificate) load() error {
	var seen [2]fs.FileInfo
	for i, path := range []string{c.certFile, c.keyFile} {
		var err error
		if seen[i], err = os.Stat(path); err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
	}
	if unchanged(c.seen[0], seen[0]) && unchanged(c.seen[1], seen[1]) {
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

func unchanged(a, b fs.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
