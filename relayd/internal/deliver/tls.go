package deliver

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/tlspolicy"
)

// smtpsPort speaks TLS from the first byte (RFC 8314 3.3).
const smtpsPort = 465

// errHandshake marks a TLS handshake that failed.
var errHandshake = errors.New("TLS handshake")

func implicitTLS(r queue.Route) bool {
	return !r.IsMX() && (r.Port == smtpsPort || r.TLS == queue.TLSImplicit)
}

// startTLS upgrades the channel by RFC 3207, as far as the target's demand
// wants it.
func (s *Sender) startTLS(ctx context.Context, c *conn, t target) *failure {
	if !c.ext.startTLS {
		return s.without(t, t.demand.refused("4.7.4", "the server offers no TLS", nil))
	}
	r, f := c.command("STARTTLS", "STARTTLS", s.timeouts.Hello)
	if f != nil {
		return f
	}
	if r.code != 220 {
		f := t.demand.refused("4.7.4", fmt.Sprintf("the server refuses STARTTLS (%d %s)", r.code, r.text), nil)
		f.code = r.code
		if r.code/100 == 4 {
			f.class, f.enhanced = queue.TempFail, "4.7.4"
		}
		if c.broken {
			return f
		}
		return s.without(t, f)
	}
	if c.in.Buffered() > 0 {
		// Whoever put this here hopes that we take it for an answer inside the
		// encrypted channel.
		return c.fail("STARTTLS", fmt.Errorf("%w: plain text after the reply to STARTTLS", errReplyShape))
	}
	if f := s.handshake(ctx, c, t); f != nil {
		return f
	}
	// RFC 3207 4.2: forget what was said in plain text.
	return s.hello(c)
}

// without goes on in plain text where the demand can live with it; else it
// counts and returns f.
func (s *Sender) without(t target, f *failure) *failure {
	if !t.demand.must() {
		s.noteWatched(t.demand, t.String(), errors.New("no TLS"))
		return nil
	}
	s.metrics.tlsRefused(t.demand)
	return f
}

// handshake starts TLS on c now.
func (s *Sender) handshake(ctx context.Context, c *conn, t target) *failure {
	c.wire.offer(s.timeouts.Hello)
	c.wire.expect(s.timeouts.Hello)
	secure := tls.Client(c.wire, s.tlsConfig(t))
	if err := secure.HandshakeContext(ctx); err != nil {
		return s.handshakeFailure(c, t, err)
	}
	c.net = secure
	c.in.Reset(secure)
	c.tls = tls.VersionName(secure.ConnectionState().Version) + " " + cmp.Or(t.demand.channel, channelEncrypted)
	return nil
}

// tlsConfig is the client's side of a handshake that meets the demand.
func (s *Sender) tlsConfig(t target) *tls.Config {
	conf := &tls.Config{
		ServerName: t.host, RootCAs: s.roots, MinVersion: tls.VersionTLS12,
		// Small first records serve those who render what has arrived so far. A message is of use as a whole.
		DynamicRecordSizingDisabled: true,
	}
	switch {
	case t.demand.channel == channelDANE:
		conf.ServerName = t.demand.names[0]
		conf.InsecureSkipVerify = true // the TLSA records say whom to trust
		conf.VerifyConnection = func(state tls.ConnectionState) error {
			return t.demand.dane.Verify(state.PeerCertificates, t.demand.names, time.Now())
		}
	case t.demand.level != verified:
		// Nobody said which name to expect, and an old or unknown partner is
		// still better than plain text (RFC 7435 3).
		conf.InsecureSkipVerify, conf.MinVersion = true, tls.VersionTLS10
		conf.VerifyConnection = func(state tls.ConnectionState) error {
			if t.demand.watched {
				s.noteWatched(t.demand, t.String(), wouldVerify(state, t.host, s.roots))
			}
			return nil
		}
	}
	return conf
}

// wouldVerify is the check that tls.Config makes where it is let.
func wouldVerify(state tls.ConnectionState, name string, roots *x509.CertPool) error {
	opts := x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(opts)
	return err
}

// noteWatched notes a server that fails an MTA-STS policy in testing mode.
func (s *Sender) noteWatched(d demand, host string, err error) {
	if !d.watched || err == nil {
		return
	}
	s.metrics.stsTesting.Inc()
	s.log.Warn("the server would fail the domain's MTA-STS policy, which is in testing mode", "host", host, "error", err)
}

func (s *Sender) handshakeFailure(c *conn, t target, err error) *failure {
	c.broken = true
	err = fmt.Errorf("%w: %w", errHandshake, c.wire.cause(err))
	certificate := new(tls.CertificateVerificationError)
	var f *failure
	switch {
	case errors.Is(err, tlspolicy.ErrMismatch):
		f = t.demand.refused("4.7.5", "the server's certificate does not fit its TLSA records", err)
	case errors.As(err, &certificate):
		f = t.demand.refused("4.7.5", "the server's certificate is not valid for its name", err)
	default:
		f = temporary("4.7.5", "TLS with the server did not come about", err)
		f.transport = true
	}
	if t.demand.must() {
		s.metrics.tlsRefused(t.demand)
	}
	return f
}
