// Package relayd is the edge as a whole: its settings, and the order in which its stages start and end. What the stages do is
// in their own packages below internal; README.md follows one message through them.
//
// The order of the end matters. New mail stops first; attempts under way and messages in flight may finish; then usage and
// events are reported a last time, and only then the journal is closed. Whatever does not fit into that time is on the disk
// and goes on at the next start.
package relayd

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"time"

	"activerelay/api/admit"
	"activerelay/api/cgroup"
	"activerelay/relayd/internal/admin"
	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/instruct"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/policysync"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/scan"
	"activerelay/relayd/internal/smtpd"
	"activerelay/relayd/internal/spool"
	"activerelay/relayd/internal/tlspolicy"
	"activerelay/relayd/internal/uplink"

	"github.com/prometheus/client_golang/prometheus"
)

// flushTimeout bounds the last report of usage and events.
const flushTimeout = 5 * time.Second

// Run relays until ctx ends, then drains. Ending when told is no error.
func Run(ctx context.Context, c Config) (err error) {
	if err := c.complete(); err != nil {
		return err
	}
	attempts, err := c.fitDescriptors()
	if err != nil {
		return err
	}
	if limit := cgroup.FitMemory(os.Getenv); limit > 0 {
		c.Log.InfoContext(ctx, "memory is kept below the limit of the control group", "limit_bytes", limit)
	}
	metrics := newMetrics()
	d, err := openDisk(c, metrics)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	bound, err := bind(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bound.close()) }()
	p, err := meet(ctx, c, d)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	e := &edge{Config: c, disk: d, plane: p, ports: bound, metrics: metrics, mailLog: c.newMailLog(), attempts: attempts}
	if err := e.build(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.sender.Close()) }()
	return e.run(ctx)
}

// edge is the stages of one running relayd, leaf to root.
type edge struct {
	Config
	*disk
	plane   *plane
	ports   *ports
	metrics *prometheus.Registry
	// attempts is how many deliveries may be under way at once.
	attempts int
	mailLog  *maillog.Log

	instructions *instruct.Runner
	sync         *policysync.Syncer
	scanner      *scan.Clamd // nil = none
	sender       *deliver.Sender
	queue        *queue.Queue
	health       *health
	leases       *uplink.LeaseCaller
	events       *uplink.EventSender
}

// build makes every stage but the one that accepts mail, which needs a key that may have to be fetched.
func (e *edge) build() (err error) {
	if e.instructions, err = instruct.New(instruct.Config{
		Journal: e.journal, Spool: e.spool, Outbox: e.outbox, Enqueue: func(m *spool.Message) { e.queue.Add(m) },
		Operate: func(ctx context.Context, op queue.Operation, t queue.Tally, record func(*journal.Batch, queue.Tally, bool) error) error {
			return e.queue.Operate(ctx, op, t, record)
		},
		Hostname: e.Hostname, Log: e.Log, Now: e.Now, Entropy: rand.Reader,
	}); err != nil {
		return err
	}
	if e.sync, err = policysync.Open(policysync.Config{
		Client: e.plane.client, Journal: e.journal, Log: e.Log, Now: e.Now, Rejected: e.noteRejected,
		Instruct: e.instructions.Carry, Acknowledged: e.instructions.Acknowledged,
		OnReply: func(err error) { e.health.answered(err) }, Changed: func() { e.queue.Wake() },
	}); err != nil {
		return err
	}
	// Ledger, outbox and policy, the last to open, have begun anew where they had to.
	if err = e.journal.LossHandled(); err != nil {
		return err
	}
	if e.Clamd != "" {
		if e.scanner, err = scan.NewClamd(scan.ClamdConfig{Address: e.Clamd, Log: e.Log, Metrics: e.metrics, Now: e.Now}); err != nil {
			return err
		}
	} else {
		e.Log.Warn("no content scanner is configured (clamd): mail is deferred unless the platform allows unscanned mail")
	}
	resolvers, err := e.resolvers()
	if err != nil {
		return err
	}
	sources, err := e.sources()
	if err != nil {
		return err
	}
	memory, err := tlspolicy.OpenMemory(tlspolicy.MemoryConfig{Journal: e.journal, RememberTLS: e.TLSMemory, Log: e.Log, Now: e.Now})
	if err != nil {
		return err
	}
	e.sender, err = deliver.New(deliver.Config{
		Hostname: e.Hostname, Resolvers: resolvers, TrustResolvers: e.TrustResolvers, MXPort: e.MXPort, Log: e.Log, Metrics: e.metrics,
		AllowTargetNetworks: e.allowedTargets, Memory: memory, AllowPlainText: e.allowsPlainText, Sources: sources,
		ListenAddresses: e.ports.takeMail(),
	})
	if err != nil {
		return err
	}
	e.queue, err = queue.New(queue.Config{
		Spool: e.spool, Journal: e.journal, Courier: &passwords{vault: e.plane.vault, courier: e.sender}, Note: e.outbox.Append,
		Route: routesOf(e.sync), DestinationLimit: limitsOf(e.sync), Log: e.mailLog, Hostname: e.Hostname,
		Limits: queue.Limits{Attempts: e.attempts}, Now: e.Now, Entropy: rand.Reader, Metrics: e.metrics,
	})
	if err != nil {
		return errors.Join(err, e.sender.Close())
	}
	e.health = &health{config: e.Config, disk: e.disk, policy: e.sync, view: e.view, scanner: e.scanner}
	e.health.register(e.metrics)
	calls := e.health.called
	e.leases = &uplink.LeaseCaller{Client: e.plane.client, Ledger: e.ledger, Outbox: e.outbox, Log: e.Log, OnReply: calls}
	e.events = &uplink.EventSender{Client: e.plane.client, Outbox: e.outbox, Log: e.Log, OnReply: calls}
	return nil
}

// run starts the stages and ends them in order, each deferred end after those below it.
func (e *edge) run(ctx context.Context) error {
	// The crews below outlive ctx by what their order of ending takes; those that may end at once get working.
	working, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	lasting := context.WithoutCancel(ctx)

	watching := newCrew(lasting, fail)
	defer watching.stop()
	if e.ports.admin != nil {
		server := admin.New(admin.Config{Version: e.Version, Checks: e.health.checks(), Gatherer: e.metrics})
		watching.start("admin", func(ctx context.Context) error { return server.Serve(ctx, e.ports.admin) })
	}

	reporting := newCrew(lasting, fail)
	defer e.flush(lasting, reporting)
	reporting.start("leases", e.leases.Run)
	reporting.start("events", e.events.Run)

	relaying := newCrew(working, fail)
	defer e.instructions.Wait()
	defer relaying.stop()
	relaying.start("queue", e.queue.Run)
	relaying.start("policy", e.sync.Run)
	rotator := &uplink.Rotator{Client: e.plane.client, Store: e.plane.identity, Log: e.Log, Now: e.Now}
	relaying.start("credential", rotator.Run)
	if e.scanner != nil {
		relaying.start("scanner", e.health.pingScanner)
	}

	mail, err := e.mailServer(working)
	if working.Err() != nil {
		return ending(ctx, working)
	}
	if err != nil {
		return err
	}
	accepting := newCrew(lasting, fail)
	defer e.shutDown(lasting, mail, accepting)
	e.ports.serveMail(accepting, mail)
	e.health.accepting.Store(true)
	at := e.ports.addresses()
	e.Log.InfoContext(ctx, "relaying", "edge", e.plane.identity.Identity().EdgeID, "version", e.Version,
		"listen", at.Relay, "submission", at.Submission, "tls", at.TLS, "admin", at.Admin)
	if e.Listening != nil {
		e.Listening(at)
	}
	<-working.Done()
	return ending(ctx, working)
}

// ending is why work ended: nil when the edge was told to.
func ending(ctx, working context.Context) error {
	if ctx.Err() != nil && errors.Is(context.Cause(working), ctx.Err()) {
		return nil
	}
	return context.Cause(working)
}

// mailServer is the stage that accepts mail.
func (e *edge) mailServer(ctx context.Context) (*smtpd.Server, error) {
	certificate, err := serverTLS(e.Config)
	if err != nil {
		return nil, err
	}
	key, err := e.plane.feedbackKey(ctx, e.Config)
	if err != nil {
		return nil, err
	}
	proxies, err := e.proxyPeers()
	if err != nil {
		return nil, err
	}
	chain := scan.Chain{}
	if e.scanner != nil {
		chain = append(chain, e.scanner)
	}
	return smtpd.New(smtpd.Config{
		Hostname: e.Hostname, EdgeID: e.plane.identity.Identity().EdgeID, EdgeName: e.plane.identity.Identity().Name, FeedbackKey: key,
		View: e.view, Ledger: e.ledger, Scanner: chain, Journal: e.journal, Spool: e.spool, Outbox: e.outbox,
		Enqueue: func(m *spool.Message) { e.queue.Add(m); e.queue.Admit(ctx, m.Domain) },
		Now:     e.Now, TLS: certificate, MailLog: e.mailLog, Log: e.Log, Metrics: e.metrics,
		ProxyPeers: proxies,
		Limits:     smtpd.Limits{Connections: e.MaxConnections, ConnectionsPerIP: e.MaxPerAddress, ConnectionsPerPartner: e.MaxPerPartner},
	})
}

// view is what is known just now. Decisions are made by the control plane's clock, as far as it is known; the age of the
// policy is measured by the local one, which no correction moves.
func (e *edge) view() admit.View {
	status, now := e.sync.Status(), e.ledger.Now()
	v := admit.View{Table: e.sync.Table(), Complete: status.Complete, Now: now}
	if !status.LastSuccess.IsZero() {
		v.LastPoll = now.Add(-e.Now().Sub(status.LastSuccess))
	}
	return v
}

// shutDown lets messages in flight finish.
func (e *edge) shutDown(ctx context.Context, mail *smtpd.Server, accepting *crew) {
	e.health.accepting.Store(false)
	e.Log.InfoContext(ctx, "going down: no new mail; what is in flight may finish")
	if err := mail.Shutdown(ctx); err != nil {
		e.Log.WarnContext(ctx, "mail listeners not closed in order", "error", err)
	}
	accepting.stop()
}

// flush ends the reporting loops and says a last time what they had to say. What cannot be said now is on the disk.
func (e *edge) flush(ctx context.Context, reporting *crew) {
	reporting.stop()
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := errors.Join(e.leases.Flush(ctx), e.events.Flush(ctx)); err != nil {
		e.Log.WarnContext(ctx, "last report not made; it follows after the next start", "error", err)
	}
}
