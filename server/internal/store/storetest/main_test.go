package storetest_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest"
	"activerelay/server/internal/store/storetest/pgtest"
)

// server is the PostgreSQL server of this package's tests.
var server pgtest.Server

// propertyChecks is how often a property is tried, each time with a few dozen transactions; -rapid.checks tries longer.
const propertyChecks = "25"

func TestMain(m *testing.M) {
	if isHelper() {
		os.Exit(helperMain())
	}
	if err := flag.Set("rapid.checks", propertyChecks); err != nil {
		panic(err)
	}
	os.Exit(pgtest.Main(m, &server))
}

// noon is when most tests begin.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// each runs a test on both databases, on a migrated store whose clock stands at noon.
func each(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	storetest.Each(t, &server, func(t *testing.T, db storetest.Database) { test(t, newFixture(t, db)) })
}

// fixture is a store with what its tests need around it.
type fixture struct {
	*store.Store
	db         storetest.Database
	clock      *storetest.Clock
	statements *storetest.Statements
}

func newFixture(t testing.TB, db storetest.Database) *fixture {
	t.Helper()
	f := &fixture{db: db, clock: storetest.NewClock(noon), statements: &storetest.Statements{}}
	f.Store = db.Open(t, store.Config{Now: f.clock.Now, Log: f.statements.Logger(), Materialise: revisionOnly})
	return f
}

// revisionOnly stands for the real documents, which package publish tests: it is enough to see whose they are and their
// order.
func revisionOnly(tx *store.Tx, key string) (store.Document, error) {
	document := store.Document{Body: `{"key":"` + key + `"}`}
	kind, name, _ := strings.Cut(key, "/")
	switch kind {
	case "partner":
		document.Partner = name
	case "domain":
		row, err := tx.Domain(name)
		if notFound(err) {
			document.Deleted, document.Body = true, ""
		} else if err != nil {
			return document, err
		}
		document.Partner, document.Domain = row.Partner, name
	}
	return document, nil
}

// fatal is what the helpers need of a test, a benchmark or a property.
type fatal interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// write commits fn as a tenant.
func (f *fixture) write(t fatal, tenant store.Tenant, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := f.Write(context.Background(), tenant, fn); err != nil {
		t.Fatal(err)
	}
}

// read runs fn as a tenant.
func (f *fixture) read(t fatal, tenant store.Tenant, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := f.Read(context.Background(), tenant, fn); err != nil {
		t.Fatal(err)
	}
}

// attempt returns what a write of a tenant says.
func (f *fixture) attempt(tenant store.Tenant, fn func(tx *store.Tx) error) error {
	return f.Write(context.Background(), tenant, fn)
}

func newPartner(slug string) store.Partner {
	return store.Partner{
		Slug: slug, Name: slug + " Ltd", SupportContact: "help@" + slug + ".example", Administrative: store.Active(noon),
		Relaying: store.Enabled(),
	}
}

func newDomain(partner, name string) store.Domain {
	return store.Domain{
		Name: name, Partner: partner, UsersMaySendAs: "own", Administrative: store.Active(noon), Relaying: store.Enabled(),
		Contacts: store.Strings{"admin@" + name},
	}
}

func newUser(partner, domain, address string) store.User {
	return store.User{
		Address: address, Domain: domain, Partner: partner, Verifier: "$argon2id$", PasswordChangedAt: noon,
		Administrative: store.Active(noon), Relaying: store.Enabled(),
	}
}

func newRelayIP(id, partner, domain, address string) store.RelayIP {
	return store.RelayIP{ID: id, Partner: partner, Domain: domain, Address: address, State: store.RelayIPActive, ActivatedAt: &noon}
}

func newRoute(id string, partner *string, domain, recipientDomain string) store.Route {
	return store.Route{
		ID: id, Partner: partner, Domain: domain, RecipientDomain: recipientDomain, Host: "smtp.example.net", Port: 25,
		TLS: "required",
	}
}

func newToken(id, role, partner, domain string) store.Token {
	return store.Token{ID: id, Name: "token " + id, Role: role, Partner: partner, Domain: domain, SecretHash: []byte(id)}
}

func newComplaint(id, partner, domain string) store.Complaint {
	return store.Complaint{
		ID: id, ReceivedAt: noon, FeedbackType: "abuse", MessageID: "msg-" + id, Domain: domain, Partner: partner, Edge: "edge_1",
		Reporter: "fbl@mail.example", Counts: true,
	}
}

// all runs the steps of a transaction until one fails.
func all(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// addPartner and addDomain add rows that a test needs but is not about.
func (f *fixture) addPartner(t fatal, slug string) {
	t.Helper()
	f.write(t, store.Operator(), func(tx *store.Tx) error {
		row := newPartner(slug)
		return tx.InsertPartner(&row)
	})
}

func (f *fixture) addDomain(t fatal, partner, name string, change func(*store.Domain)) {
	t.Helper()
	f.write(t, store.Operator(), func(tx *store.Tx) error {
		row := newDomain(partner, name)
		if change != nil {
			change(&row)
		}
		return tx.InsertDomain(&row)
	})
}

func (f *fixture) addEdge(t fatal, id string, partners ...string) {
	t.Helper()
	f.write(t, store.Operator(), func(tx *store.Tx) error {
		row := store.Edge{ID: id, Name: id, Partners: partners, PublicKey: "key", CredentialHash: []byte(id)}
		return tx.InsertEdge(&row)
	})
}

func sqlite(t testing.TB) storetest.Database { return storetest.SQLite(t) }

func notFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
