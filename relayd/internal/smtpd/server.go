package smtpd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"activerelay/api/admit"
	"activerelay/api/feedback"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/outbox"
	"activerelay/relayd/internal/scan"
	"activerelay/relayd/internal/smtpwire"
	"activerelay/relayd/internal/spool"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
)

// Kind says what a listener is for.
type Kind uint8

// The kinds. Each offers AUTH once there is TLS.
const (
	// Relay takes mail from relay IPs, and from users who authenticate.
	Relay Kind = iota
	// Submission takes mail from users only, after STARTTLS (RFC 6409).
	Submission
	// ImplicitTLS is Submission with TLS from the first byte (RFC 8314 3.3).
	ImplicitTLS
)

// String returns the word used in logs and metrics.
func (k Kind) String() string {
	switch k {
	case Submission:
		return "submission"
	case ImplicitTLS:
		return "tls"
	default:
		return "relay"
	}
}

// Config wires the server. All but TLS, MailLog, Log, Metrics, Entropy, ProxyPeers,
// InsecureAuth and Limits are required.
type Config struct {
	// Hostname is what the server calls itself in the greeting and in Received.
	Hostname string
	// EdgeID is the id of this edge, sealed into feedback tokens; EdgeName is
	// what replies call it.
	EdgeID, EdgeName string
	// FeedbackKey seals the tokens by which complaints find their message.
	FeedbackKey [feedback.KeyBytes]byte

	// View is what is known just now. It is asked once for each EHLO, transaction
	// and AUTH, must not block, and its Now is the clock of decisions.
	View func() admit.View
	// Ledger holds and spends the units of the daily limit.
	Ledger Ledger
	// Scanner sees every message. An empty scan.Chain means that there is none.
	Scanner scan.Scanner
	Journal *journal.Journal
	Spool   *spool.Spool
	Outbox  *outbox.Outbox
	// Enqueue is given a message once it is stored; nobody changes it after that. It may take up to a second before the reply,
	// to slow a client whose mail comes in faster than it goes out.
	Enqueue func(*spool.Message)
	// Now is the clock of ids, events and the Received field.
	Now func() time.Time

	// TLS is used by all listeners. Nil means none: then there is no STARTTLS,
	// no AUTH, and only Relay listeners can be served.
	TLS *tls.Config
	// MailLog gets one line for each message or refusal. Nil discards.
	MailLog *maillog.Log
	// Log receives what an operator must know. Nil discards.
	Log *slog.Logger
	// Metrics registers the server's figures. Nil registers nothing.
	Metrics prometheus.Registerer
	// Entropy makes ids. Nil means crypto/rand.
	Entropy io.Reader
	// ProxyPeers are load balancers whose connections begin with a header of the
	// PROXY protocol, version 1 or 2, that says who the client is. Nobody else is
	// believed. Empty means none.
	ProxyPeers []netip.Prefix
	// InsecureAuth offers AUTH without TLS, for tests: Serve refuses it on
	// anything but loopback.
	InsecureAuth bool
	Limits       Limits
}

// Server accepts mail. Its methods may be called from any goroutine.
type Server struct {
	Config
	limits  Limits
	mailLog *maillog.Log
	metrics *metrics
	gate    *authGate
	pace    *buckets // of users' messages
	// strangers and customers bound what refusals cost: of strangers, and of the own clients of each domain.
	strangers, customers *share

	sealer *feedback.Sealer
	// transactions that are over, for their memory.
	transactions sync.Pool
	room         room

	stressed atomic.Bool

	mu          sync.Mutex
	closing     bool // Shutdown was called
	engines     []*smtpwire.Server
	connections int
	hurried     time.Time // when idle clients were hurried last
	hurrying    bool      // they are about to be
	perIP       map[netip.Addr]int
	perPartner  map[string]int
}

// New checks the configuration and builds a server that serves nothing yet.
func New(c Config) (*Server, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("smtp server: %w", err)
	}
	if c.MailLog == nil {
		c.MailLog = maillog.New(maillog.Config{})
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Entropy == nil {
		c.Entropy = rand.Reader
	}
	limits := c.Limits.withDefaults()
	s := &Server{
		Config: c, limits: limits, mailLog: c.MailLog,
		pace:  newBuckets(limits.UserMessagesPerMinute),
		perIP: map[netip.Addr]int{}, perPartner: map[string]int{},
	}
	s.strangers = newShare(linesOfStrangers, eventsOfStrangers, s.tellOfAddress)
	s.customers = newShare(linesOfCustomers, eventsOfCustomers, s.tellOfDomain)
	s.transactions.New = func() any { return new(transaction) }
	var err error
	if s.sealer, err = feedback.NewSealer(c.FeedbackKey, c.EdgeID); err != nil {
		return nil, fmt.Errorf("smtp server: %w", err)
	}
	if s.gate, err = newAuthGate(limits, c.Now, s.alarmOfGuessing); err != nil {
		return nil, fmt.Errorf("smtp server: %w", err)
	}
	if s.metrics, err = newMetrics(c.Metrics); err != nil {
		return nil, fmt.Errorf("smtp server: %w", err)
	}
	return s, nil
}

func (c *Config) check() error {
	missing := []struct {
		name   string
		absent bool
	}{
		{name: "Hostname", absent: c.Hostname == ""},
		{name: "EdgeID", absent: c.EdgeID == ""},
		{name: "EdgeName", absent: c.EdgeName == ""},
		{name: "View", absent: c.View == nil},
		{name: "Ledger", absent: c.Ledger == nil},
		{name: "Scanner", absent: c.Scanner == nil},
		{name: "Journal", absent: c.Journal == nil},
		{name: "Spool", absent: c.Spool == nil},
		{name: "Outbox", absent: c.Outbox == nil},
		{name: "Enqueue", absent: c.Enqueue == nil},
		{name: "Now", absent: c.Now == nil},
	}
	for _, m := range missing {
		if m.absent {
			return fmt.Errorf("%s is required", m.name)
		}
	}
	return nil
}

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("smtp server is shutting down")

// Serve accepts connections until Shutdown, or until the listener fails.
func (s *Server) Serve(l net.Listener, kind Kind) error {
	err := s.checkListener(l, kind)
	if err != nil {
		return fmt.Errorf("serve %s on %s: %w", kind, l.Addr(), err)
	}
	engine, err := s.engine(kind)
	if err != nil {
		return fmt.Errorf("serve %s on %s: %w", kind, l.Addr(), err)
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.Join(ErrClosed, l.Close())
	}
	s.engines = append(s.engines, engine)
	s.mu.Unlock()
	ln := net.Listener(&listener{Listener: l, server: s, kind: kind})
	if kind == ImplicitTLS {
		ln = tls.NewListener(ln, s.TLS)
	}
	if err := engine.Serve(ln); !errors.Is(err, smtp.ErrServerClosed) {
		return fmt.Errorf("serve %s on %s: %w", kind, l.Addr(), err)
	}
	return ErrClosed
}

func (s *Server) checkListener(l net.Listener, kind Kind) error {
	if s.TLS == nil && kind != Relay && !s.InsecureAuth {
		return errors.New("a certificate is required")
	}
	if s.TLS == nil && kind == ImplicitTLS {
		return errors.New("a certificate is required")
	}
	if !s.InsecureAuth {
		return nil
	}
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return errors.New("AUTH without TLS is for loopback only")
	}
	return nil
}

// engine reads the commands of one kind of listener. Sizes and numbers of
// recipients are left to the session, whose limits follow the policy.
func (s *Server) engine(kind Kind) (*smtpwire.Server, error) {
	c := smtpwire.Config{
		Hostname: s.Hostname, AllowInsecureAuth: s.InsecureAuth,
		RefuseEarlyTalkers: true, GreetDelay: s.limits.GreetDelay, Limits: s.limits.Limits,
		Stressed: s.stressed.Load, Refuse: s.refuseForEngine, Log: s.Log,
	}
	if kind != ImplicitTLS {
		c.TLS = s.TLS
	}
	return smtpwire.NewServer(smtpwire.BackendFunc(func(c *smtpwire.Conn) (smtp.Session, error) {
		return s.newSession(kind, c), nil
	}), c)
}

// Shutdown takes no more connections, tells idle clients 421, lets messages in
// flight finish for at most Limits.ShutdownGrace or until ctx ends, and then
// closes what is left, which is an error. When it returns, no session touches
// the journal any more, unless the error says that one is stuck.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	engines := s.engines
	s.mu.Unlock()
	defer s.customers.end()
	defer s.strangers.end()
	stuck := time.NewTimer(s.limits.ShutdownGrace + endGrace)
	defer stuck.Stop()
	ctx, cancel := context.WithTimeout(ctx, s.limits.ShutdownGrace)
	defer cancel()
	ended := make(chan error, len(engines))
	for _, engine := range engines {
		go func() { ended <- engine.Shutdown(ctx) }()
	}
	var failed error
	for range engines {
		select {
		case err := <-ended:
			failed = errors.Join(failed, err)
		case <-stuck.C:
			return errors.Join(failed, errors.New("a session does not end"))
		}
	}
	return failed
}

// newID makes a message id or a reference.
func (s *Server) newID() string {
	id, err := spool.NewID(s.Now(), s.Entropy)
	if err != nil {
		// Only a clock before 1970 or a system without randomness.
		s.Log.Error("making an id", "err", err)
		return ""
	}
	return id
}
