// Package invoke makes one call of the API from a row of the command table and
// the values given to it.
//
// A Call names the row and its values; Client.Do builds the request straight
// from the row (method, path template, parameters, body), sends it, tries again
// where that cannot do harm, and turns every answer that is not good into a
// *failure.Error. Client.Pages follows the cursor of a list. Nothing here knows
// of flags, terminals or output formats.
//
// When a request is tried again:
//
//  1. After 429 and 503, which say that nothing was done, and after 409
//     idempotency-in-progress: the server's Retry-After is obeyed.
//  2. After a connection that failed before the request could be sent.
//  3. After a connection that was lost later, when the request is safe (GET,
//     HEAD), carries an Idempotency-Key, or is a PUT without If-Match: the
//     second execution changes nothing.
//
// Never longer than the time limit of the call: a Retry-After beyond it is
// reported at once.
package invoke

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"activerelay/cli/internal/failure"
	"activerelay/cli/internal/ops"
)

// Config says where the API is and how to reach it.
type Config struct {
	// URL is the address of the server, without /v1.
	URL string
	// Token is sent as bearer token. Empty sends none, which only public
	// operations allow.
	Token string
	// CAFile holds the PEM certificates to trust instead of the system's.
	CAFile string
	// AllowHTTP lets the token travel without TLS to a host that is not this
	// machine.
	AllowHTTP bool
	// Timeout bounds one call with all its attempts; 0 means 60 seconds. A
	// stream is bounded only until it begins.
	Timeout time.Duration
	// Retries is how often a call is tried again; 0 means never.
	Retries int
	// UserAgent names the program.
	UserAgent string
	// Note is told why a call takes longer, Trace about every request made; nil
	// is silent.
	Note  func(line string)
	Trace func(line string)
	// Wait pauses between attempts; nil waits on the clock.
	Wait func(ctx context.Context, d time.Duration) error
}

// Client calls the API. It is safe for concurrent use.
type Client struct {
	config Config
	base   *url.URL
	http   *http.Client
}

const defaultTimeout = time.Minute

// New checks the configuration; it does not touch the network.
func New(config Config) (*Client, error) {
	base, err := baseURL(config)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if config.CAFile != "" {
		pool, err := trusted(config.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if config.Timeout == 0 {
		config.Timeout = defaultTimeout
	}
	if config.Note == nil {
		config.Note = func(string) {}
	}
	if config.Trace == nil {
		config.Trace = func(string) {}
	}
	if config.Wait == nil {
		config.Wait = pause
	}
	return &Client{config: config, base: base, http: &http.Client{
		Transport: transport,
		// A redirect would carry the token to where nobody said it may go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func baseURL(config Config) (*url.URL, error) {
	base, err := url.Parse(config.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		fault := failure.Usagef("the server's URL must be like https://relay.example.com, not %q", config.URL)
		if meant, err := url.Parse("https://" + config.URL); err == nil && !strings.Contains(config.URL, "://") && meant.Host != "" {
			fault.Next = "--url " + meant.String()
		}
		return nil, fault
	}
	if base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, failure.Usagef("the server's URL takes no user, query or fragment; tokens come from --token-file")
	}
	if base.Scheme == "http" && config.Token != "" && !config.AllowHTTP && !loopback(base.Hostname()) {
		return nil, failure.Usagef("%s would carry the token without TLS: use https, or say --allow-http", config.URL)
	}
	return base, nil
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func trusted(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, failure.Usagef("--ca-file: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, failure.Usagef("--ca-file: %s holds no PEM certificate", file)
	}
	return pool, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Answer is a good answer, or one that the contract describes for this
// operation although its status is not 2xx.
type Answer struct {
	Status int
	Header http.Header
	// Value is the decoded body where it was JSON; numbers keep every digit.
	Value any
	// Body is the unread body where it was not JSON; the caller closes it.
	Body io.ReadCloser
}

// Do makes the call.
func (c *Client) Do(ctx context.Context, call Call) (*Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(c.config.Timeout, func() { cancel(errTimeLimit) })
	answer, err := c.attempts(ctx, call)
	if err != nil || answer.Body == nil {
		limit.Stop()
		cancel(nil)
		return answer, err
	}
	limit.Stop()
	answer.Body = &stream{ReadCloser: answer.Body, stop: func() { cancel(nil) }}
	return answer, nil
}

// Titles of failures for which the URL is to blame: nobody answered, or somebody
// else did.
const (
	NotReached = "Server not reached"
	NotOurs    = "Not an Active Relay server"
)

var errTimeLimit = errors.New("the time limit of the call is over")

// stream releases the call's context when its body is closed.
type stream struct {
	io.ReadCloser
	stop func()
}

func (s *stream) Close() error {
	defer s.stop()
	return s.ReadCloser.Close()
}

func (c *Client) attempts(ctx context.Context, call Call) (*Answer, error) {
	if call.Op.Method == http.MethodPost {
		call = call.withIdempotencyKey()
	}
	deadline := time.Now().Add(c.config.Timeout)
	for attempt := 0; ; attempt++ {
		answer, err := c.attempt(ctx, call)
		if err == nil {
			return answer, nil
		}
		wait, again := retry(call, attempt, err)
		if !again || attempt >= c.config.Retries || time.Now().Add(wait).After(deadline) {
			return nil, c.explain(ctx, err)
		}
		c.config.Note(fmt.Sprintf("%v; trying again in %s", err, wait.Round(100*time.Millisecond)))
		if err := c.config.Wait(ctx, wait); err != nil {
			return nil, c.explain(ctx, err)
		}
	}
}

func (c *Client) attempt(ctx context.Context, call Call) (*Answer, error) {
	request, err := c.request(ctx, call)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	response, err := c.http.Do(request)
	if err != nil {
		return nil, &transportError{err: err}
	}
	c.config.Trace(fmt.Sprintf("%s %s: %s in %s (request %s)", request.Method, request.URL, response.Status,
		time.Since(begun).Round(time.Millisecond), response.Header.Get("X-Request-Id")))
	return c.answer(call, response)
}

// explain gives a failure to reach the server its name.
func (c *Client) explain(ctx context.Context, err error) error {
	var broken *transportError
	switch {
	case errors.Is(context.Cause(ctx), errTimeLimit):
		return &failure.Error{
			Code: failure.Unavailable, Title: "No answer in time", Cause: err,
			Detail: fmt.Sprintf("%s did not answer within %s; see --timeout", c.base.Host, c.config.Timeout),
		}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return &failure.Error{
			Code: failure.Unavailable, Title: "Certificate not trusted", Cause: err,
			Detail: fmt.Sprintf("%s: %s", c.base, plainly(err)), Next: "--ca-file FILE, with the certificate of who issued it",
		}
	case errors.As(err, &broken):
		return &failure.Error{
			Code: failure.Unavailable, Title: NotReached, Cause: err,
			Detail: fmt.Sprintf("%s: %s", c.base, plainly(broken.err)),
		}
	default:
		return err
	}
}

// plainly takes the URL off a client error: it is said already.
func plainly(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// transportError is a request without a whole answer.
type transportError struct{ err error }

func (e *transportError) Error() string { return plainly(e.err).Error() }
func (e *transportError) Unwrap() error { return e.err }

// unsent says whether the request cannot have reached the server.
func (e *transportError) unsent() bool {
	var op *net.OpError
	return errors.As(e.err, &op) && op.Op == "dial"
}

// Call is one operation with its values.
type Call struct {
	Op *ops.Op
	// Arguments are the path parameters in the order of the template.
	Arguments []string
	// Params holds the texts of query and header parameters by wire name.
	Params map[string][]string
	Body   *Body
	// Accept overrides the media types that the row expects.
	Accept string
}

const idempotencyKey = "Idempotency-Key"

// withIdempotencyKey gives the call a key of its own, which all its attempts
// share, where the operation takes one and the caller gave none.
func (call Call) withIdempotencyKey() Call {
	_, takes := call.Op.Param(ops.Header, idempotencyKey)
	if !takes || len(call.Params[idempotencyKey]) > 0 {
		return call
	}
	params := map[string][]string{idempotencyKey: {strings.ToLower(rand.Text())}}
	for name, texts := range call.Params {
		if name != idempotencyKey {
			params[name] = texts
		}
	}
	call.Params = params
	return call
}
