package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"activerelay/relayd/internal/queue"
)

// remember notes that a destination took mail over TLS, so that it never again
// gets any in plain text just because somebody on the way says that it cannot
// do better. Routes have a rule of their own for that.
func (s *Sender) remember(c *conn, job *queue.Job, out *outcome) {
	delivered := func(r queue.Result) bool { return r.Class == queue.Delivered && r.Host == c.host }
	if s.memory == nil || c.tls == "" || c.noted || !job.Route.IsMX() || !slices.ContainsFunc(out.results, delivered) {
		return
	}
	c.noted = true
	if err := s.memory.NoteTLS(job.RecipientDomain); err != nil {
		s.log.Error("cannot remember that a destination takes TLS", "domain", job.RecipientDomain, "error", err)
	}
}

// outdated reports whether a connection that was kept is in plain text though
// the destination took TLS since, at another of its servers.
func (s *Sender) outdated(c *conn, job *queue.Job) bool {
	if c.tls != "" || !job.Route.IsMX() || routeDemand(job).level == plainText {
		return false
	}
	_, took, err := s.tookTLS(job.RecipientDomain)
	return took || err != nil
}

func (s *Sender) plainTextAllowed(domain string) bool { return s.allow != nil && s.allow(domain) }

// dialPolicyHost opens the connection to a policy host. Its addresses are
// judged like those of mail servers: a domain whose policy host is
// 169.254.169.254 would have us ask the cloud for secrets.
func (s *Sender) dialPolicyHost(ctx context.Context, network, address string) (net.Conn, error) {
	name, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("policy host: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("policy host: %w", err)
	}
	h := s.resolveHost(ctx, host{name: name})
	if h.err != nil {
		return nil, fmt.Errorf("policy host: %w", h.err)
	}
	var failed error
	for _, addr := range h.addrs[:min(len(h.addrs), maxAddresses)] {
		at := netip.AddrPortFrom(addr, uint16(port))
		if s.targets.judge(at) != targetAllowed {
			failed = errors.Join(failed, fmt.Errorf("policy host at %s: %w", addr, errForbiddenTarget))
			continue
		}
		c, err := s.dialer.DialContext(ctx, network, at.String())
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, fmt.Errorf("policy host: %w", err))
	}
	return nil, failed
}
