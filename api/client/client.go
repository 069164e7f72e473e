// Package client is the HTTP client of the contract: generated calls, and, in this file, what the generator cannot know:
// whom to trust, how long to wait, and that an error reply is an error.
//
// A call answers either the success that the contract declares or an error; a problem document (RFC 9457) comes back as
// *problem.Problem, whatever the operation. The package retries nothing: relayd's loops and relayctl know best when.
package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"activerelay/api/problem"
)

// Config says which control plane to call, and as whom.
type Config struct {
	// URL of the control plane, e.g. https://relay.example.com. Required. Plain HTTP is refused off loopback.
	URL string
	// Token answers the bearer token of the next call; nil or "" means none. It is asked for each call, so that a rotated
	// credential is used at once.
	Token func() string
	// RootCAs checks the certificate of the control plane. nil means the host's.
	RootCAs *x509.CertPool
	// UserAgent names the program and its version. Empty means Go's own.
	UserAgent string
	// ReplyTimeout bounds the wait for the head of a reply. It must be longer than the longest long poll that is asked for.
	// 0 means 60 s. The whole of a call is bounded by its context.
	ReplyTimeout time.Duration
	// Transport makes the calls, so that a test can look at what passes; RootCAs and ReplyTimeout are then its own affair.
	// nil means one with the limits of this package.
	Transport http.RoundTripper
}

// New answers a client that turns every problem reply into a *problem.Problem.
func New(config Config) (*ClientWithResponses, error) {
	if err := checkURL(config.URL); err != nil {
		return nil, err
	}
	if config.ReplyTimeout == 0 {
		config.ReplyTimeout = time.Minute
	}
	if config.Transport == nil {
		config.Transport = newTransport(config)
	}
	doer := &problems{config: config, http: &http.Client{Transport: config.Transport, CheckRedirect: noRedirects}}
	return NewClientWithResponses(config.URL, WithHTTPClient(doer))
}

func newTransport(config Config) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: config.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: config.ReplyTimeout,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
	}
}

// CloseIdleConnections lets go of the connections that no call is using, for a program that ends in good order.
func CloseIdleConnections(c *ClientWithResponses) {
	if generated, ok := c.ClientInterface.(*Client); ok {
		if doer, ok := generated.Client.(*problems); ok {
			doer.http.CloseIdleConnections()
		}
	}
}

// checkURL refuses what would send a credential in the clear.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("control plane URL %q: want https://HOST[:PORT]", raw)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return fmt.Errorf("control plane URL %q: plain HTTP is for loopback only, since it shows the credential; use https", raw)
	}
	return nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// A redirect would carry the credential to another host.
func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// problems adds the credential to each request and turns error replies into errors.
type problems struct {
	config Config
	http   *http.Client
}

func (p *problems) Do(request *http.Request) (*http.Response, error) {
	if p.config.Token != nil {
		if token := p.config.Token(); token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
	}
	if p.config.UserAgent != "" {
		request.Header.Set("User-Agent", p.config.UserAgent)
	}
	reply, err := p.http.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	if reply.StatusCode < 300 {
		return reply, nil
	}
	defer reply.Body.Close()
	return nil, problem.Decode(reply.StatusCode, reply.Header.Get("Content-Type"), reply.Body)
}

// withoutURL drops the method and URL that net/http puts before a cause: the caller names the operation.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return fmt.Errorf("call control plane: %w", wrapped.Err)
	}
	return err
}
