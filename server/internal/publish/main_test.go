package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"activerelay/api"
	"activerelay/server/internal/publish"
	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest"
	"activerelay/server/internal/store/storetest/pgtest"
)

// server is the PostgreSQL server of this package's tests.
var server pgtest.Server

// propertyChecks is how often a property is tried, each time with a few dozen transactions; -rapid.checks tries longer.
const propertyChecks = "25"

func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", propertyChecks); err != nil {
		panic(err)
	}
	os.Exit(pgtest.Main(m, &server))
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fixture is a store with a publisher.
type fixture struct {
	*store.Store
	*publish.Publisher
	db    storetest.Database
	clock *storetest.Clock
	bell  *publish.Bell
}

func each(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	storetest.Each(t, &server, func(t *testing.T, db storetest.Database) { test(t, newFixture(t, db, publish.Config{})) })
}

func newFixture(t *testing.T, db storetest.Database, config publish.Config) *fixture {
	t.Helper()
	f := &fixture{db: db, clock: storetest.NewClock(noon), bell: &publish.Bell{}}
	f.Store = db.Open(t, store.Config{Now: f.clock.Now, Materialise: publish.Materialise, OnPublish: f.bell.Ring})
	f.Publisher = f.publisher(t, config)
	return f
}

// publisher makes another publisher over the same store.
func (f *fixture) publisher(t *testing.T, config publish.Config) *publish.Publisher {
	t.Helper()
	config.Store, config.Bell, config.Now = f.Store, f.bell, f.clock.Now
	config.Metrics = prometheus.NewRegistry()
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	p, err := publish.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f *fixture) write(t testing.TB, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := f.Write(context.Background(), store.Operator(), fn); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) addPartner(t testing.TB, slug string) {
	t.Helper()
	f.write(t, func(tx *store.Tx) error {
		row := store.Partner{Slug: slug, Name: slug, SupportContact: "help@" + slug + ".example", Administrative: store.Active(tx.Now), Relaying: store.Enabled()}
		tx.Publish(store.PartnerKey(slug))
		return tx.InsertPartner(&row)
	})
}

func (f *fixture) addDomain(t testing.TB, partner, name string) {
	t.Helper()
	f.write(t, func(tx *store.Tx) error {
		row := store.Domain{
			Name: name, Partner: partner, UsersMaySendAs: "own", Administrative: store.Active(tx.Now), Relaying: store.Enabled(),
			Contacts: store.Strings{"admin@" + name},
		}
		tx.Publish(store.DomainKey(name))
		return tx.InsertDomain(&row)
	})
}

func (f *fixture) addEdge(t testing.TB, id string, partners ...string) {
	t.Helper()
	f.write(t, func(tx *store.Tx) error {
		return tx.InsertEdge(&store.Edge{ID: id, Name: id, Partners: partners, PublicKey: "key"})
	})
}

// touch changes a domain and publishes it.
func (f *fixture) touch(t testing.TB, name string) {
	t.Helper()
	f.write(t, func(tx *store.Tx) error {
		row, err := tx.LockDomain(name)
		if err != nil {
			return err
		}
		row.LicensedUsers += 100
		tx.Publish(store.DomainKey(name))
		return tx.UpdateDomain(&row)
	})
}

func (f *fixture) remove(t testing.TB, name string) {
	t.Helper()
	f.write(t, func(tx *store.Tx) error {
		tx.Publish(store.DomainKey(name))
		return tx.DeleteDomain(name)
	})
}

// edge is what an edge does with pages: it keeps a table, and starts again when it is told to.
type edge struct {
	id       string
	partners []string
	epoch    string
	after    string
	table    map[string]api.PolicyDocument
	// keys are the documents in the order in which they came.
	keys []string
}

func newEdge(id string, partners ...string) *edge {
	return &edge{id: id, partners: partners, table: map[string]api.PolicyDocument{}}
}

func (e *edge) question() publish.Poll {
	return publish.Poll{Edge: e.id, Partners: e.partners, Epoch: e.epoch, After: e.after}
}

// poll asks once and takes the answer; it reports whether there was one.
func (e *edge) poll(t testing.TB, p *publish.Publisher) bool {
	t.Helper()
	page, err := p.Poll(context.Background(), e.question())
	if errors.Is(err, publish.ErrGone) {
		e.epoch, e.after, e.table, e.keys = "", "", map[string]api.PolicyDocument{}, nil
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	if page == nil {
		return false
	}
	e.take(t, page)
	return true
}

func (e *edge) take(t testing.TB, page *publish.Page) {
	t.Helper()
	e.epoch, e.after = page.Epoch, page.Next
	for _, d := range decode(t, page) {
		e.table[d.Key] = d
		e.keys = append(e.keys, d.Key)
		if d.Deleted {
			delete(e.table, d.Key)
		}
	}
}

func decode(t testing.TB, page *publish.Page) []api.PolicyDocument {
	t.Helper()
	var documents []api.PolicyDocument
	if err := json.Unmarshal(page.Documents, &documents); err != nil {
		t.Fatalf("%v in %s", err, page.Documents)
	}
	return documents
}

// follow polls until there is nothing new.
func (e *edge) follow(t testing.TB, p *publish.Publisher) *edge {
	t.Helper()
	for polls := 0; e.poll(t, p); polls++ {
		if polls > 10000 {
			t.Fatalf("%s comes to no end, at %s", e.id, e.after)
		}
	}
	return e
}
