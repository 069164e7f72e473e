package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Bounds of a fetch. RFC 8461 3.3 suggests a minute and 64 KiB.
const (
	httpsPort          = 443
	maxPolicyBytes     = 64 << 10
	maxHeaderBytes     = 16 << 10
	defaultFetchWithin = 30 * time.Second
)

// Fetcher fetches policies. What a domain's policy host answers is a
// stranger's word like any other: time and size are bounded, redirects are not
// followed, and Dial decides which addresses are dialled at all.
type Fetcher struct {
	// Dial opens the connection to "mta-sts.example.net:443".
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots verify the policy host. nil means the system's.
	Roots *x509.CertPool
	// Port is the port of policy hosts. 0 means 443.
	Port uint16
	// Within bounds one fetch. 0 means 30 s.
	Within time.Duration
}

// fetch returns the text at the domain's well-known place.
func (f *Fetcher) fetch(ctx context.Context, domain string) (string, error) {
	within := f.Within
	if within <= 0 {
		within = defaultFetchWithin
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.host(domain)+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return "", fmt.Errorf("fetch policy: %w", err)
	}
	client := http.Client{
		Transport: &http.Transport{
			DialContext: f.Dial, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeaderBytes,
			TLSClientConfig: &tls.Config{RootCAs: f.Roots, MinVersion: tls.VersionTLS12},
		},
		// RFC 8461 3.3: a redirect is not a policy.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	reply, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("fetch policy: %w", err)
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return "", fmt.Errorf("fetch policy: the policy host answers %d", reply.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(reply.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		// RFC 8461 3.2: else a host that lets users publish pages would let
		// them publish policies.
		return "", fmt.Errorf("fetch policy: the policy host answers %.40q, not text/plain", reply.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(io.LimitReader(reply.Body, maxPolicyBytes+1))
	if err != nil {
		return "", fmt.Errorf("fetch policy: %w", err)
	}
	if len(text) > maxPolicyBytes {
		return "", errors.New("fetch policy: it is longer than 64 KiB")
	}
	return string(text), nil
}

func (f *Fetcher) host(domain string) string {
	host := "mta-sts." + domain
	if f.Port == 0 || f.Port == httpsPort {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(f.Port)))
}
