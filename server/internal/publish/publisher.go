package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"activerelay/server/internal/store"
)

// ErrGone means that deltas from where an edge stands cannot be given: it starts again.
var ErrGone = errors.New("policy gone")

// ErrRetired means that the edge was retired, maybe while its poll waited.
var ErrRetired = errors.New("edge is retired")

// ErrCursor means that an `after` is none.
var ErrCursor = errors.New("not a policy cursor")

// TombstoneAge is how long a deletion is remembered.
const TombstoneAge = 30 * 24 * time.Hour

const (
	// advanceAfter is by how many revisions a poll may fall behind, for want of documents in its scope, before it is
	// sent an empty page that takes it forward: the index is read from where it stands.
	advanceAfter = 1000
	// instructionsPerPage bounds one page.
	instructionsPerPage = 100
)

// Config is what a Publisher works with. Store, Bell, Log and Metrics are required.
type Config struct {
	Store *store.Store
	// Bell is the one that the store rings.
	Bell *Bell
	Log  *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now     func() time.Time
	Metrics prometheus.Registerer
	// LookEvery is how often the database is looked at for commits of other processes, and what edges enforce is
	// written down. 0 means a second.
	LookEvery time.Duration
	// PageDocuments and PageBytes bound one page. 0 means 1,000 documents, 1 MiB.
	PageDocuments int
	PageBytes     int
}

// Publisher answers the polls of edges. Its methods are safe for concurrent use.
type Publisher struct {
	config Config
	store  *store.Store
	shared shared
	sightings
	metrics *metrics
	// closing is closed when waiting polls are to end.
	closing   chan struct{}
	closeOnce sync.Once

	// What the last look found. Only Run uses these.
	epoch      string
	position   int64
	instructed int64
	purgedAt   time.Time
	namedAt    time.Time
}

// New returns a publisher; Run has to run beside it.
func New(config Config) (*Publisher, error) {
	if config.Store == nil || config.Bell == nil || config.Log == nil || config.Metrics == nil {
		return nil, errors.New("the publisher needs a store, a bell, a logger and a metrics registry")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.LookEvery == 0 {
		config.LookEvery = time.Second
	}
	if config.PageDocuments == 0 {
		config.PageDocuments = 1000
	}
	if config.PageBytes == 0 {
		config.PageBytes = 1 << 20
	}
	p := &Publisher{config: config, store: config.Store, closing: make(chan struct{}), metrics: newMetrics(config.Metrics)}
	p.latest, p.dirty, p.passes = map[string]store.EdgeSeen{}, map[string]store.EdgeSeen{}, map[string]int64{}
	return p, nil
}

// Poll is one question of an edge.
type Poll struct {
	Edge string
	// Partners is the edge's scope; empty means all.
	Partners []string
	// Epoch and After say what the edge enforces; empty means nothing.
	Epoch, After string
	// Wait is how long to wait for something new. 0 answers at once.
	Wait time.Duration
}

// Page is the answer to a poll.
type Page struct {
	Epoch string
	Next  string
	More  bool
	// Documents is a JSON list of the contract's PolicyDocument. It is shared and must not be changed.
	Documents    []byte
	Instructions []store.Instruction
}

// Poll answers what is new for an edge, nil when there is nothing in the time that the poll may take. A poll without an
// epoch is answered at once, so that even an empty policy is a whole one.
func (p *Publisher) Poll(ctx context.Context, poll Poll) (*Page, error) {
	after, err := parseCursor(poll.After)
	if err != nil {
		return nil, err
	}
	if poll.Epoch == "" && after != (store.PolicyCursor{}) {
		return nil, fmt.Errorf("%w: it needs the epoch that it is of", ErrCursor)
	}
	deadline := time.NewTimer(poll.Wait)
	defer deadline.Stop()
	p.metrics.waiting.Inc()
	defer p.metrics.waiting.Dec()
	for {
		revision, rung := p.config.Bell.listen()
		answer, err := p.look(ctx, poll, after, revision)
		if answer != nil || err != nil || poll.Wait == 0 {
			return p.count(answer), err
		}
		select {
		case <-rung:
		case <-deadline.C:
			return p.count(nil), nil
		case <-p.closing:
			return p.count(nil), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// look answers what there is now.
func (p *Publisher) look(ctx context.Context, poll Poll, after store.PolicyCursor, revision int64) (*Page, error) {
	tenant := store.EdgeTenant(poll.Edge, poll.Partners)
	found, err := p.shared.get(ctx, revision, sharedKey(tenant, after), func(ctx context.Context) (*page, error) {
		return p.readPage(ctx, tenant, after)
	})
	if err != nil {
		return nil, err
	}
	epoch := edgeEpoch(found.epoch, poll.Partners)
	if after == (store.PolicyCursor{}) {
		p.begin(poll.Edge, found.revision)
	}
	if poll.Epoch != "" {
		if err := p.check(ctx, poll, after, found, epoch); err != nil {
			return nil, err
		}
		p.enforced(poll.Edge, epoch, after, found)
	} else {
		p.Seen(poll.Edge)
	}
	instructions, err := p.instructions(ctx, tenant)
	if err != nil {
		return nil, err
	}
	behind := found.revision-after.Revision > advanceAfter
	if found.count == 0 && len(instructions) == 0 && poll.Epoch != "" && !behind {
		return nil, nil
	}
	return &Page{
		Epoch: epoch, Next: formatCursor(found.next), More: found.more, Documents: found.documents, Instructions: instructions,
	}, nil
}

// check holds a poll to the history that it names.
func (p *Publisher) check(ctx context.Context, poll Poll, after store.PolicyCursor, found *page, epoch string) error {
	switch {
	case poll.Epoch != epoch:
		p.metrics.polls.WithLabelValues("gone").Inc()
		return ErrGone
	case after.Revision <= found.revision:
		missed, err := p.missed(ctx, poll.Edge, after, found)
		if missed && err == nil {
			p.metrics.polls.WithLabelValues("gone").Inc()
			return ErrGone
		}
		return err
	}
	// The page may be older than a commit whose revision the edge has seen already, through another process.
	var claim store.EpochClaim
	var row store.Edge
	err := p.store.Write(ctx, store.System(), func(tx *store.Tx) error {
		claim = ""
		known, err := tx.Revision()
		if err != nil || known >= after.Revision {
			return err
		}
		if row, err = tx.Edge(poll.Edge); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		claim = store.EpochRefused
		begun, err := tx.ClaimEpoch(poll.Edge)
		if begun {
			claim = store.EpochBegun
		}
		return err
	})
	if err != nil || claim == "" {
		return err
	}
	p.Claimed(ctx, claim, poll.Edge, row.Name, slog.Int64("enforced", after.Revision), slog.Int64("revision", found.revision))
	p.metrics.polls.WithLabelValues("gone").Inc()
	return ErrGone
}

// instructions are what an edge has not carried out yet. A retired one gets neither them nor the page.
func (p *Publisher) instructions(ctx context.Context, tenant store.Tenant) (rows []store.Instruction, err error) {
	err = p.store.Read(ctx, tenant, func(tx *store.Tx) error {
		edge, err := tx.Edge(tenant.Edge)
		switch {
		case err == nil && edge.Status == store.EdgeRetired:
			return ErrRetired
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return err
		}
		rows, err = tx.Instructions(instructionsPerPage)
		return err
	})
	return rows, err
}

// edgeEpoch names the history of a database as the edges of one scope see it.
func edgeEpoch(epoch string, partners []string) string {
	if len(partners) == 0 {
		return epoch
	}
	scope := slices.Sorted(slices.Values(partners))
	sum := sha256.Sum256([]byte(strings.Join(scope, ",")))
	return epoch + "/" + hex.EncodeToString(sum[:8])
}

// NewHistory makes polls look again after the database began a new epoch.
func (p *Publisher) NewHistory() {
	p.metrics.epochs.Inc()
	p.shared.forget()
	p.config.Bell.Wake()
}

// Wake makes polls look again, e.g. because an edge was given an instruction.
func (p *Publisher) Wake() { p.config.Bell.Wake() }

// Close ends all waiting polls as if nothing had happened in their time. Later ones answer at once.
func (p *Publisher) Close() { p.closeOnce.Do(func() { close(p.closing) }) }

func (p *Publisher) count(answer *Page) *Page {
	result := "nothing"
	if answer != nil {
		result = "page"
		p.metrics.bytes.Add(float64(len(answer.Documents)))
	}
	p.metrics.polls.WithLabelValues(result).Inc()
	return answer
}

// metrics are the figures of the publisher.
type metrics struct {
	waiting  prometheus.Gauge
	revision prometheus.Gauge
	polls    *prometheus.CounterVec
	bytes    prometheus.Counter
	epochs   prometheus.Counter
	claims   *prometheus.CounterVec
	silent   prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		waiting:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "relay_server_policy_polls_waiting", Help: "Policy polls in work or waiting."}),
		revision: prometheus.NewGauge(prometheus.GaugeOpts{Name: "relay_server_policy_revision", Help: "Last policy revision that this process has seen."}),
		// Labels: result is page, nothing or gone.
		polls:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "relay_server_policy_polls_total", Help: "Policy polls by result."}, []string{"result"}),
		bytes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "relay_server_policy_bytes_total", Help: "Bytes of policy documents sent to edges."}),
		epochs: prometheus.NewCounter(prometheus.CounterOpts{Name: "relay_server_policy_epochs_total", Help: "New epochs, each after a restored database."}),
	}
	m.claims = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "relay_server_epoch_claims_total",
		Help: "Edges' claims to know more than the database; refused ones came from an edge that had claimed that within the hour.",
	}, []string{"result"}) // begun or refused
	m.silent = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "relay_server_unreported_edges",
		Help: "Active edges that have not reported what they hold since the database was restored; while there is one, no quota is granted.",
	})
	registry.MustRegister(m.waiting, m.revision, m.polls, m.bytes, m.epochs, m.claims, m.silent)
	return m
}
