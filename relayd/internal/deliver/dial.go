package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"activerelay/relayd/internal/queue"
)

// errForbiddenTarget is an address that slipped through resolution.
var errForbiddenTarget = errors.New("address may not be dialled")

// connect opens a connection to t that is ready for MAIL: greeted, encrypted
// as t demands, logged in.
func (s *Sender) connect(ctx context.Context, t target, job *queue.Job) (*conn, *failure) {
	c, f := s.open(ctx, t, job.Route)
	if f == nil || !f.transport || t.demand.level != ifOffered || !errors.Is(f.err, errHandshake) {
		return c, f
	}
	// RFC 7435: opportunistic means that a broken TLS is not worse than none.
	s.metrics.connection("tls-fallback")
	s.log.Info("TLS did not come about, going on in plain text", "host", t.String(), "err", f.err)
	s.noteWatched(t.demand, t.String(), f.err)
	t.demand = demand{level: plainText}
	return s.open(ctx, t, job.Route)
}

func (s *Sender) open(ctx context.Context, t target, route queue.Route) (*conn, *failure) {
	c, f := s.dial(ctx, t)
	if f != nil {
		s.metrics.connection("failed")
		return nil, f
	}
	c.wire.attach(ctx)
	if f := s.prepare(ctx, c, t, route); f != nil {
		s.metrics.connection("unusable")
		c.close()
		s.log.Debug("connection not usable", "host", c.host, "err", f)
		return nil, f.at(c)
	}
	s.metrics.connection("opened")
	s.log.Debug("connection ready", "host", c.host, "tls", c.channel())
	return c, nil
}

// dial opens the TCP connection. The address is judged here, at the last
// moment, whatever was decided before.
func (s *Sender) dial(ctx context.Context, t target) (*conn, *failure) {
	if s.targets.judge(t.addr) != targetAllowed {
		return nil, temporary("4.4.4", t.String()+" is not on the public network", errForbiddenTarget)
	}
	raw, err := s.sources.to(t.addr.Addr()).dialer.DialContext(ctx, "tcp", t.addr.String())
	if err != nil {
		f := temporary("4.4.1", "cannot connect to "+t.String(), err)
		f.transport = true
		return nil, f
	}
	limit, ok := ctx.Deadline()
	if !ok {
		limit = time.Now().Add(s.timeouts.Setup)
	}
	return newConn(raw, t, s.timeouts, limit), nil
}

// prepare goes from the first byte to the point before MAIL.
func (s *Sender) prepare(ctx context.Context, c *conn, t target, route queue.Route) *failure {
	if implicitTLS(route) {
		if f := s.handshake(ctx, c, t); f != nil {
			return f
		}
	}
	r, f := c.reply("the greeting", s.timeouts.Greeting)
	if f != nil {
		return f
	}
	if r.code != 220 {
		// RFC 5321 3.1: 554 means no mail service here, so the next host may
		// do better.
		return elsewhere(refusal(r, "the greeting"))
	}
	if f := s.hello(c); f != nil {
		return f
	}
	if c.tls == "" && t.demand.level != plainText {
		if f := s.startTLS(ctx, c, t); f != nil {
			return f
		}
	}
	return authenticate(c, route.Credentials)
}

// hello says EHLO, and HELO to a server that does not know it.
func (s *Sender) hello(c *conn) *failure {
	hostname := s.sources.to(c.peer.Addr()).hostname
	r, f := c.command("EHLO", "EHLO "+hostname, s.timeouts.Hello)
	if f != nil {
		return f
	}
	if r.code/100 == 2 {
		c.ext = parseExtensions(r.lines)
		return nil
	}
	if r.code/100 != 5 {
		return elsewhere(refusal(r, "EHLO"))
	}
	c.ext = extensions{}
	r, f = c.command("HELO", "HELO "+hostname, s.timeouts.Hello)
	if f != nil {
		return f
	}
	if r.code/100 != 2 {
		return elsewhere(refusal(r, "HELO"))
	}
	return nil
}

// elsewhere marks a refusal of the whole service: it says nothing about the
// message, and another host may be tried.
func elsewhere(f *failure) *failure {
	f.transport = true
	f.text = fmt.Sprintf("the server refuses the connection: %s", f.text)
	return f
}
