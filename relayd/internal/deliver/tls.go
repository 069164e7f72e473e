package deliver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"activerelay/relayd/internal/queue"
)

// smtpsPort speaks TLS from the first byte (RFC 8314 3.3).
const smtpsPort = 465

// errHandshake marks a TLS handshake that failed.
var errHandshake = errors.New("TLS handshake")

// effectiveRule is the route's rule, made stricter where a password or the
// sender's wish (RFC 8689) depends on the channel. On loopback, which is only
// reached where the operator lists it, a password needs no protection.
func effectiveRule(job queue.Job, t target) queue.TLSRule {
	secret := job.Route.Credentials != (queue.Credentials{}) && !t.addr.Addr().IsLoopback()
	if job.RequireTLS || job.Route.TLS == queue.TLSImplicit || secret && job.Route.TLS == queue.TLSOpportunistic {
		return queue.TLSRequired
	}
	return job.Route.TLS
}

func implicitTLS(r queue.Route) bool {
	return !r.IsMX() && (r.Port == smtpsPort || r.TLS == queue.TLSImplicit)
}

// startTLS upgrades the channel by RFC 3207, as far as the rule wants it.
func (s *Sender) startTLS(ctx context.Context, c *conn, t target, rule queue.TLSRule) *failure {
	if !c.ext.startTLS {
		return unlessOpportunistic(rule, temporary("4.7.4", "TLS is required, and the server does not offer it", nil))
	}
	r, f := c.command("STARTTLS", "STARTTLS", s.timeouts.Hello)
	if f != nil {
		return f
	}
	if r.code != 220 {
		f := refusal(r, "STARTTLS")
		f.class, f.enhanced, f.transport = queue.TempFail, "4.7.4", true
		if c.broken {
			return f
		}
		return unlessOpportunistic(rule, f)
	}
	if c.in.Buffered() > 0 {
		// Whoever put this here hopes that we take it for an answer inside the
		// encrypted channel.
		return c.fail("STARTTLS", fmt.Errorf("%w: plain text after the reply to STARTTLS", errReplyShape))
	}
	if f := s.handshake(ctx, c, t, rule); f != nil {
		return f
	}
	// RFC 3207 4.2: forget what was said in plain text.
	return s.hello(c)
}

// unlessOpportunistic drops a failure that the rule can live with.
func unlessOpportunistic(rule queue.TLSRule, f *failure) *failure {
	if rule == queue.TLSOpportunistic {
		return nil
	}
	f.transport = true
	return f
}

// handshake starts TLS on c now.
func (s *Sender) handshake(ctx context.Context, c *conn, t target, rule queue.TLSRule) *failure {
	conf := &tls.Config{ServerName: t.host, RootCAs: s.roots, MinVersion: tls.VersionTLS12}
	if rule != queue.TLSRequired {
		// Without a rule nobody said which name to expect, and an old or
		// unknown partner is still better than plain text (RFC 7435 3).
		conf.InsecureSkipVerify, conf.MinVersion = true, tls.VersionTLS10
	}
	c.within(s.timeouts.Hello)
	secure := tls.Client(c.net, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		return handshakeFailure(c, err)
	}
	c.mu.Lock()
	c.net = secure
	c.mu.Unlock()
	c.in, c.out = bufio.NewReaderSize(secure, readBufferBytes), bufio.NewWriterSize(secure, writeBufferBytes)
	c.tls = tls.VersionName(secure.ConnectionState().Version)
	if rule == queue.TLSRequired {
		c.tls += " verified"
	}
	return nil
}

func handshakeFailure(c *conn, err error) *failure {
	c.broken = true
	f := temporary("4.7.5", "TLS with the server did not come about", fmt.Errorf("%w: %w", errHandshake, c.cause(err)))
	if certificate := new(tls.CertificateVerificationError); errors.As(err, &certificate) {
		f.text = "the server's certificate is not valid for its name"
	}
	f.transport = true
	return f
}
