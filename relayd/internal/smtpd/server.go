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
	"activerelay/api/reason"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/outbox"
	"activerelay/relayd/internal/scan"
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

// Config wires the server. All but TLS, MailLog, Log, Metrics, Entropy,
// InsecureAuth and Limits are required.
type Config struct {
	// Hostname is what the server calls itself in the greeting and in Received.
	Hostname string
	// EdgeID is the id of this edge, sealed into feedback tokens; EdgeName is
	// what replies call it.
	EdgeID, EdgeName string
	// FeedbackKey seals the tokens by which complaints find their message.
	FeedbackKey [feedback.KeyBytes]byte

	// View is what is known just now. It is asked once for each transaction
	// and each AUTH, must not block, and its Now is the clock of decisions.
	View func() admit.View
	// Ledger holds and spends the units of the daily limit.
	Ledger Ledger
	// Scanner sees every message. An empty scan.Chain means that there is none.
	Scanner scan.Scanner
	Journal *journal.Journal
	Spool   *spool.Spool
	Outbox  *outbox.Outbox
	// Enqueue is told the id of a message once it is stored. It must not block.
	Enqueue func(id string)
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
	noise   *buckets // of refusals that no domain can be charged with

	closing  atomic.Bool // Shutdown was called: no new messages
	forced   atomic.Bool // and its patience is over
	stressed atomic.Bool

	mu         sync.Mutex
	listeners  map[net.Listener]struct{}
	guards     map[*guard]struct{}
	perIP      map[netip.Addr]int
	perPartner map[string]int
	quiet      chan struct{} // closed when guards is empty, after Shutdown began
	working    sync.WaitGroup
}

// New checks the configuration and builds a server that serves nothing yet.
func New(c Config) (*Server, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("smtp server: %w", err)
	}
	if c.MailLog == nil {
		c.MailLog = maillog.New(nil)
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
		pace: newBuckets(limits.UserMessagesPerMinute), noise: newBuckets(noisePerMinute),
		listeners: map[net.Listener]struct{}{}, guards: map[*guard]struct{}{},
		perIP: map[netip.Addr]int{}, perPartner: map[string]int{}, quiet: make(chan struct{}),
	}
	var err error
	if s.gate, err = newAuthGate(limits, c.Now); err != nil {
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

// Serve accepts connections until Shutdown, or until the listener fails. The
// values of ctx reach the sessions, its end does not: messages in flight may
// finish, and Shutdown says for how long.
func (s *Server) Serve(ctx context.Context, l net.Listener, kind Kind) error {
	if err := s.checkListener(l, kind); err != nil {
		return fmt.Errorf("serve %s on %s: %w", kind, l.Addr(), err)
	}
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return errors.Join(ErrClosed, l.Close())
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	ln := net.Listener(&listener{Listener: l, server: s, kind: kind, ctx: context.WithoutCancel(ctx)})
	if kind == ImplicitTLS {
		ln = tls.NewListener(ln, s.TLS)
	}
	err := s.engine(kind).Serve(ln)
	if s.closing.Load() {
		return ErrClosed
	}
	return fmt.Errorf("serve %s on %s: %w", kind, l.Addr(), err)
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

// engine is the stock server for one kind of listener. Sizes and numbers of
// recipients are left to the session, whose limits follow the policy and whose
// refusals come from the registry.
func (s *Server) engine(kind Kind) *smtp.Server {
	e := smtp.NewServer(smtp.BackendFunc(s.newSession))
	e.Domain = s.Hostname
	e.ErrorLog = engineLog{s.Log}
	e.ReadTimeout = s.limits.CommandIdle
	e.WriteTimeout = writeTimeout
	e.MaxLineLength = maxLineBytes
	e.AllowInsecureAuth = s.InsecureAuth
	e.EnableSMTPUTF8 = true
	e.EnableDSN = true
	e.EnableREQUIRETLS = true
	if kind != ImplicitTLS {
		e.TLSConfig = s.TLS
	}
	return e
}

// engineLog carries the engine's complaints to ours. Most are clients that
// failed a handshake or went away.
type engineLog struct{ log *slog.Logger }

// Printf implements smtp.Logger.
func (l engineLog) Printf(format string, args ...any) {
	if len(format) >= 5 && format[:5] == "panic" {
		l.log.Error("smtp engine", "text", fmt.Sprintf(format, args...))
		return
	}
	l.log.Debug("smtp engine", "text", fmt.Sprintf(format, args...))
}

// Println implements smtp.Logger.
func (l engineLog) Println(args ...any) { l.log.Debug("smtp engine", "text", fmt.Sprintln(args...)) }

// Shutdown takes no more connections, tells idle clients 421, lets messages in
// flight finish for at most Limits.ShutdownGrace or until ctx ends, and then
// closes what is left. When it returns, no session touches the journal any more.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closing.Store(true)
	ctx, cancel := context.WithTimeout(ctx, s.limits.ShutdownGrace)
	defer cancel()
	s.mu.Lock()
	var err error
	for l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	clear(s.listeners)
	for g := range s.guards {
		g.wake()
	}
	s.settleLocked()
	s.mu.Unlock()
	select {
	case <-s.quiet:
	case <-ctx.Done():
		s.cutOff()
		<-s.quiet
	}
	s.working.Wait()
	return err
}

// cutOff closes every connection that is left.
func (s *Server) cutOff() {
	s.forced.Store(true)
	s.mu.Lock()
	left := make([]*guard, 0, len(s.guards))
	for g := range s.guards {
		left = append(left, g)
	}
	s.mu.Unlock()
	s.Log.Warn("closing connections that did not finish in time", "connections", len(left))
	for _, g := range left {
		_ = g.Close() // its error belongs to the session
	}
}

// settleLocked closes quiet once the last connection of a closing server is gone.
func (s *Server) settleLocked() {
	if !s.closing.Load() || len(s.guards) > 0 {
		return
	}
	select {
	case <-s.quiet:
	default:
		close(s.quiet)
	}
}

func (s *Server) isClosing() bool  { return s.closing.Load() }
func (s *Server) isForced() bool   { return s.forced.Load() }
func (s *Server) isStressed() bool { return s.stressed.Load() }

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

// refuseConnection renders and logs a refusal that no session stands behind.
func (s *Server) refuseConnection(client netip.Addr, slug reason.Slug, v reason.Variant) reason.Reply {
	args := reason.Args{Variant: v, Client: client.String(), Ref: s.newID(), Edge: s.EdgeName}
	reply := reason.Render(slug, args)
	s.metrics.refused.WithLabelValues(string(slug)).Inc()
	s.mailLog.Rejected(maillog.Message{Client: client}, maillog.Refusal{
		Reason: string(slug), Ref: args.Ref, Stage: string(reason.StageConnect), Reply: firstLine(reply),
	})
	return reply
}
