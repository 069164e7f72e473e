package smtpd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/admit"
	"activerelay/api/policy"
	"activerelay/api/quota"
	"activerelay/api/verifier"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/ledger"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/outbox"
	"activerelay/relayd/internal/scan"
	"activerelay/relayd/internal/spool"
	"activerelay/relayd/relaytest"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests for something that must happen.
const patience = 30 * time.Second

const password = "correct horse battery staple"

// passwordVerifier is made once: it is as slow as it should be.
var passwordVerifier = sync.OnceValues(func() (string, error) { return verifier.Hash(password, rand.Reader, verifier.DefaultCost()) })

// edge is a server with everything real around it, in a directory of its own.
type edge struct {
	t       testing.TB
	server  *Server
	journal *journal.Journal
	spool   *spool.Spool
	outbox  *outbox.Outbox
	ledger  *ledger.Ledger
	bank    *bank
	world   *world
	queued  chan string
	log     *lockedBuffer
	address string
	trust   *tls.Config // for clients
	faults  atomic.Value
	metrics *prometheus.Registry
}

// setup is what a test changes before the edge starts.
type setup struct {
	world   *world
	kind    Kind
	limits  Limits
	tls     bool
	scanner scan.Scanner
	view    func() admit.View
	reserve int64 // of the disk, in bytes
	entropy io.Reader
	proxies []netip.Prefix
}

// startEdge serves on loopback until the test ends.
func startEdge(t testing.TB, change func(*setup)) *edge {
	t.Helper()
	o := setup{world: newWorld(t), scanner: scan.Chain{eicarScanner{}}, reserve: 1}
	o.view = o.world.view
	if change != nil {
		change(&o)
	}
	e := &edge{t: t, world: o.world, queued: make(chan string, 1000), log: &lockedBuffer{}, metrics: prometheus.NewRegistry()}
	e.openStores(o.reserve)
	e.bank = startBank(t, e.ledger)
	c := Config{
		Hostname: "edge.relay.test", EdgeID: "edg_1", EdgeName: "fra1",
		View: o.view, Ledger: e.ledger, Scanner: o.scanner,
		Journal: e.journal, Spool: e.spool, Outbox: e.outbox,
		Enqueue: func(m *spool.Message) { e.queued <- m.ID }, Now: time.Now,
		MailLog: maillog.New(maillog.Config{Out: e.log}), Log: textLogger(e.log),
		InsecureAuth: !o.tls, Limits: o.limits, Entropy: o.entropy, Metrics: e.metrics, ProxyPeers: o.proxies,
	}
	if o.tls {
		config, pool := relaytest.Certificate(t, time.Hour, "edge.relay.test")
		c.TLS, e.trust = config, &tls.Config{RootCAs: pool, ServerName: "edge.relay.test"}
	}
	var err error
	if e.server, err = New(c); err != nil {
		t.Fatal(err)
	}
	e.serve(o.kind)
	return e
}

func (e *edge) openStores(reserve int64) {
	e.t.Helper()
	dir := e.t.TempDir()
	inject := func(op, path string) error {
		if f, ok := e.faults.Load().(func(op, path string) error); ok && f != nil {
			return f(op, path)
		}
		return nil
	}
	var err error
	e.journal, err = journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Faults: inject})
	e.must(err)
	e.t.Cleanup(func() { _ = e.journal.Close() })
	e.spool, err = spool.Open(spool.Config{Dir: filepath.Join(dir, "spool"), Journal: e.journal, ReserveBytes: reserve, Faults: inject})
	e.must(err)
	e.t.Cleanup(func() { _ = e.spool.Close() })
	e.outbox, err = outbox.Open(outbox.Config{Journal: e.journal, Now: time.Now})
	e.must(err)
	e.ledger, err = ledger.Open(ledger.Config{Journal: e.journal, Now: time.Now, BootID: "boot"})
	e.must(err)
}

func (e *edge) serve(kind Kind) {
	e.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	e.must(err)
	e.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- e.server.Serve(l, kind) }()
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = e.server.Shutdown(ctx)
		if err := <-served; !errors.Is(err, ErrClosed) {
			e.t.Errorf("Serve ended with %v, want ErrClosed", err)
		}
	})
}

func (e *edge) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// stored returns the messages in the spool with their texts.
func (e *edge) stored() (messages []*spool.Message, texts []string) {
	e.t.Helper()
	e.must(e.spool.Each(func(m *spool.Message) error {
		messages = append(messages, m)
		return nil
	}))
	for _, m := range messages {
		body, err := e.spool.Body(m.ID)
		e.must(err)
		text, err := io.ReadAll(body)
		e.must(err)
		e.must(body.Close())
		texts = append(texts, string(text))
	}
	return messages, texts
}

// events returns what the control plane would hear.
func (e *edge) events() []api.EdgeEvent {
	e.t.Helper()
	e.must(e.journal.Sync())
	batch, err := e.outbox.Next(1000)
	e.must(err)
	var sent api.EventBatch
	if batch.Events > 0 {
		e.must(json.Unmarshal(batch.Body, &sent))
	}
	return sent.Events
}

// below is the part of a stored text below the fields that we added.
func below(t testing.TB, text string) string {
	t.Helper()
	for _, name := range []string{"Received:", "CFBL-Feedback-ID:"} {
		if !strings.HasPrefix(text, name) {
			t.Fatalf("text begins %.40q, want field %s", text, name)
		}
		for {
			_, rest, _ := strings.Cut(text, "\r\n")
			text = rest
			if !strings.HasPrefix(text, " ") && !strings.HasPrefix(text, "\t") {
				break
			}
		}
	}
	return text
}

// bank is the control plane as far as leases go: it lends at once what a domain
// has left of its limit.
type bank struct {
	mu      sync.Mutex
	limits  map[string]int64 // domains that are not in it are unknown
	granted map[string]int64
	spent   map[string]int64
	day     quota.Day
	unit    api.QuotaUnit // of the day
	away    bool
}

func startBank(t testing.TB, l *ledger.Ledger) *bank {
	now := time.Now().UTC().Truncate(time.Second)
	b := &bank{
		limits: map[string]int64{
			"ok.test": 1000, "other.test": 1000, "full.test": 0, "exempt.test": 1000, "watched.test": 1000, "last.test": 3,
		},
		granted: map[string]int64{}, spent: map[string]int64{},
		day: quota.Day{Start: now.Add(-time.Hour), End: now.Add(23 * time.Hour)}, unit: api.QuotaUnitMessage,
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-l.Wanted():
				if err := b.answer(l); err != nil && !errors.Is(err, journal.ErrFailed) {
					t.Errorf("bank: %v", err)
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		<-ended
	})
	return b
}

func (b *bank) answer(l *ledger.Ledger) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	call, _, err := l.Report()
	if err != nil {
		return err
	}
	if b.away {
		l.Failed()
		return nil
	}
	reply := api.LeaseReply{Generation: call.Generation, Sequence: call.Sequence, Now: time.Now()}
	for _, r := range call.Leases {
		limit, known := b.limits[r.Domain]
		if !known {
			reply.Leases = append(reply.Leases, api.LeaseGrant{Domain: r.Domain, State: api.LeaseGrantStateUnknownDomain})
			continue
		}
		b.spent[r.Domain] = max(b.spent[r.Domain], r.Spent)
		held := b.granted[r.Domain] - r.Spent - r.Returned
		b.granted[r.Domain] += quota.Grant(limit, b.granted[r.Domain]-r.Returned, held, quota.Ask{Want: r.Want})
		granted, used := b.granted[r.Domain], b.spent[r.Domain]
		reply.Leases = append(reply.Leases, api.LeaseGrant{
			Domain: r.Domain, State: api.LeaseGrantStateGranted, DayStart: &b.day.Start, DayEnd: &b.day.End,
			Granted: &granted, Limit: &limit, Used: &used, Unit: &b.unit,
		})
	}
	return l.Apply(reply)
}

func (b *bank) setAway(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
}

// eicarScanner finds the one signature that every scanner knows.
type eicarScanner struct{}

func (eicarScanner) Name() string { return "eicar" }

func (eicarScanner) Scan(_ context.Context, m scan.Message) (scan.Verdict, error) {
	text, err := io.ReadAll(m.Open())
	if err != nil {
		return scan.Verdict{}, err
	}
	if bytes.Contains(text, []byte("EICAR-STANDARD-ANTIVIRUS-TEST-FILE")) {
		return scan.Verdict{Outcome: scan.Malware, Signature: "Eicar-Test-Signature"}, nil
	}
	return scan.Verdict{Outcome: scan.Clean}, nil
}

// scannerFunc is a scanner with a trouble.
type scannerFunc func(context.Context, scan.Message) (scan.Verdict, error)

func (scannerFunc) Name() string { return "troubled" }

func (f scannerFunc) Scan(ctx context.Context, m scan.Message) (scan.Verdict, error) {
	return f(ctx, m)
}

// world is the policy.
type world struct {
	mu    sync.Mutex
	table *policy.Table
	stale bool
	docs  []api.PolicyDocument
}

func (w *world) view() admit.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := admit.View{Table: w.table, Complete: true, LastPoll: time.Now(), Now: time.Now()}
	if w.stale {
		v.LastPoll = v.Now.Add(-time.Hour)
	}
	return v
}

func (w *world) setStale() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale = true
}

// settings changes the platform's settings before the edge starts.
func (w *world) settings(change func(*api.Settings)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.docs[0].Platform.Settings)
	w.table, _ = policy.Apply(policy.Empty(), w.docs)
}

func (b *bank) setLimit(domain string, limit int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits[domain] = limit
}
