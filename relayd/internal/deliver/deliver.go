package deliver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/tlspolicy"

	"github.com/prometheus/client_golang/prometheus"
)

// smtpPort is where mail servers listen (RFC 5321 4.5.4.2).
const smtpPort = 25

var _ queue.Courier = (*Sender)(nil)

// Config is what a Sender needs. Hostname is required.
type Config struct {
	// Hostname is the name given in EHLO: this edge's own, as the reverse
	// lookup of its address says it.
	Hostname string
	// Sources are the addresses of this host that mail leaves from, at most one
	// for IPv4 and one for IPv6. Where there is none the system chooses.
	Sources []Source
	// Resolvers are recursive DNS resolvers, asked in this order. Empty means
	// those of /etc/resolv.conf.
	Resolvers []netip.AddrPort
	// TrustResolvers believes resolvers beyond loopback too when they say that
	// DNSSEC vouches for an answer. Those on loopback are always believed.
	TrustResolvers bool
	// AllowTargetNetworks are the networks that may be delivered to although
	// they are private, loopback or our own, as they are now: it is asked for
	// each address, so that a changed setting holds at once. nil means none.
	AllowTargetNetworks func() []netip.Prefix
	// OwnAddresses are addresses that lead to this relay beside those of this
	// host's interfaces, such as the outside of a NAT.
	OwnAddresses []netip.Addr
	// ListenAddresses are where this relay takes mail. Nothing is delivered
	// there, AllowTargetNetworks or not. Empty means nowhere.
	ListenAddresses []netip.AddrPort
	// MXPort is the port of mail servers found by MX. 0 means 25.
	MXPort uint16
	// RootCAs verify certificates of mail servers and policy hosts, unless
	// TLSA records do. nil means the system's.
	RootCAs *x509.CertPool
	// Memory keeps MTA-STS policies and who took TLS before. nil means that
	// policies are not asked for and nobody is remembered.
	Memory *tlspolicy.Memory
	// AllowPlainText says which destinations may get plain text though they
	// took TLS before. nil means none.
	AllowPlainText func(domain string) bool
	// PolicyPort is the port of MTA-STS policy hosts. 0 means 443.
	PolicyPort uint16
	// Timeouts bound every wait. Zero fields mean their defaults.
	Timeouts Timeouts
	// IdleConnections is how many connections are kept for the next message.
	// 0 means 200; negative keeps none.
	IdleConnections int
	// Log receives conversations at debug level, without secrets and bodies.
	// nil means nowhere.
	Log *slog.Logger
	// Metrics registers the counters. nil means nowhere.
	Metrics prometheus.Registerer
}

// Timeouts bound each wait of an attempt. RFC 5321 4.5.3.2 sets the lower
// bounds that the defaults keep, except where Setup cuts them short: a worker
// is not held longer than that by a server that has not yet seen any message.
type Timeouts struct {
	// Lookup is for one question to one resolver. Default 5 s.
	Lookup time.Duration
	// Policy is for fetching one MTA-STS policy. Default 30 s.
	Policy time.Duration
	// Dial is for one TCP connection. Default 30 s.
	Dial time.Duration
	// Greeting, Hello, Mail, Rcpt and DataStart are for one reply each.
	// Defaults 5 min, 5 min, 5 min, 5 min, 2 min.
	Greeting, Hello, Mail, Rcpt, DataStart time.Duration
	// Setup is for everything before the first byte of the message, all hosts
	// together. Default 5 min.
	Setup time.Duration
	// DataBlock is for one write of a block of the message; it may last up to a
	// quarter longer. Default 3 min.
	DataBlock time.Duration
	// DataDone is for the reply to the final dot. Default 10 min: giving up
	// earlier is how duplicates are made (RFC 5321 4.5.3.2.6).
	DataDone time.Duration
	// Quit is for the reply to RSET and for what a server said before it broke
	// the connection. Default 5 s.
	Quit time.Duration
	// Idle is how long a connection is kept for the next message. Default 10 s.
	Idle time.Duration
}

// slowestBytesPerSecond is how slowly a server may take a message beyond one
// DataBlock. Without it a server that reads one byte at a time, and so never
// runs into DataBlock, would hold a worker for days.
const slowestBytesPerSecond = 8 << 10

func (t Timeouts) withDefaults() Timeouts {
	fill := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	fill(&t.Lookup, 5*time.Second)
	fill(&t.Policy, 30*time.Second)
	fill(&t.Dial, 30*time.Second)
	fill(&t.Greeting, 5*time.Minute)
	fill(&t.Hello, 5*time.Minute)
	fill(&t.Mail, 5*time.Minute)
	fill(&t.Rcpt, 5*time.Minute)
	fill(&t.DataStart, 2*time.Minute)
	fill(&t.Setup, 5*time.Minute)
	fill(&t.DataBlock, 3*time.Minute)
	fill(&t.DataDone, 10*time.Minute)
	fill(&t.Quit, 5*time.Second)
	fill(&t.Idle, 10*time.Second)
	return t
}

// Sender makes delivery attempts. It is safe for many goroutines.
type Sender struct {
	sources  *sources
	port     uint16
	dns      *resolver
	finder   *tlspolicy.Finder // nil: without memory
	memory   *tlspolicy.Memory
	allow    func(domain string) bool
	targets  *targets
	roots    *x509.CertPool
	timeouts Timeouts
	dialer   *net.Dialer // for what is no mail
	pool     *pool
	log      *slog.Logger
	metrics  *metrics
}

// New checks the configuration and returns a Sender. Close it in the end.
func New(c Config) (*Sender, error) {
	if c.Hostname == "" {
		return nil, errors.New("new sender: no hostname given")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	timeouts := c.Timeouts.withDefaults()
	dns, err := newResolver(c.Resolvers, c.TrustResolvers, timeouts.Lookup)
	if err != nil {
		return nil, fmt.Errorf("new sender: %w", err)
	}
	targets, err := newTargets(c.AllowTargetNetworks, c.OwnAddresses, c.ListenAddresses)
	if err != nil {
		return nil, fmt.Errorf("new sender: %w", err)
	}
	dialer := &net.Dialer{Timeout: timeouts.Dial}
	sources, err := newSources(c.Sources, c.Hostname, dialer)
	if err != nil {
		return nil, fmt.Errorf("new sender: %w", err)
	}
	metrics, err := newMetrics(c.Metrics)
	if err != nil {
		return nil, fmt.Errorf("new sender: %w", err)
	}
	s := &Sender{
		sources: sources, port: c.MXPort, dns: dns, targets: targets, roots: c.RootCAs,
		timeouts: timeouts, log: c.Log, metrics: metrics,
		dialer: dialer,
		pool:   newPool(c.IdleConnections, timeouts.Idle),
		memory: c.Memory, allow: c.AllowPlainText,
	}
	if s.port == 0 {
		s.port = smtpPort
	}
	if c.Memory != nil {
		s.finder = tlspolicy.NewFinder(tlspolicy.FinderConfig{
			Memory: c.Memory, TXT: dns.texts, Log: c.Log,
			Fetcher: tlspolicy.Fetcher{Dial: s.dialPolicyHost, Roots: c.RootCAs, Port: c.PolicyPort, Within: timeouts.Policy},
		})
	}
	return s, nil
}

// Close says goodbye on the connections that were kept. It may be called
// twice; attempts under way are not disturbed.
func (s *Sender) Close() error {
	s.pool.close()
	return nil
}

// Attempt implements queue.Courier.
func (s *Sender) Attempt(ctx context.Context, job queue.Job) []queue.Result {
	out := newOutcome(len(job.Recipients))
	s.attempt(ctx, &job, &out)
	for i := range out.results {
		s.metrics.result(&out.results[i])
	}
	return out.results
}

func (s *Sender) attempt(ctx context.Context, job *queue.Job, out *outcome) {
	if checkAddresses(job, out); out.left == 0 {
		return
	}
	setup := time.Now().Add(s.timeouts.Setup)
	if s.reuse(ctx, job, out, setup) {
		return
	}
	ready, cancel := context.WithDeadline(ctx, setup)
	defer cancel()
	targets, last := s.targetsFor(ready, job)
	for _, t := range targets {
		c, f := s.connect(ready, t, job)
		if f == nil {
			f = s.converse(ctx, c, job, out)
		}
		if f == nil || out.left == 0 {
			return
		}
		last = worse(last, f)
		if ready.Err() != nil {
			break
		}
	}
	out.failRest(last)
}

// reuse tries the job on connections that earlier messages left open, and
// reports whether that decided everything. A connection that broke or was
// closed meanwhile says nothing about the server, so a fresh one follows.
func (s *Sender) reuse(ctx context.Context, job *queue.Job, out *outcome, setup time.Time) bool {
	c := s.pool.take(poolKey(job))
	if c == nil {
		return false
	}
	if s.targets.judge(c.peer) != targetAllowed || s.outdated(c, job) {
		c.close()
		return false
	}
	s.metrics.reused.Inc()
	c.wire.limit = setup
	return s.converse(ctx, c, job, out) == nil
}

// converse holds one transaction on c. It returns nil when every recipient is
// decided, or the failure of the channel after which another host, or a fresh
// connection, may be tried for the rest.
func (s *Sender) converse(ctx context.Context, c *conn, job *queue.Job, out *outcome) *failure {
	c.wire.attach(ctx)
	f := c.transact(job, out)
	if f != nil {
		f.at(c)
	}
	if f != nil && f.uncertain {
		s.metrics.uncertain.Inc()
		s.log.Warn("connection broke between final dot and reply: the message may arrive twice",
			"id", job.MessageID, "host", c.host)
	}
	if f != nil && (!f.transport || f.uncertain) {
		out.failRest(f)
	}
	s.remember(c, job, out)
	if now := time.Now(); c.usable(now) {
		s.pool.put(poolKey(job), c, now)
	} else {
		c.close()
	}
	if out.left == 0 {
		return nil
	}
	return f
}
