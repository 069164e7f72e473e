// Package storetest opens the store on both databases for tests: SQLite in a file of the test's own, PostgreSQL in a
// database of the test's own on the server of its package (see package pgtest). Its tests are the conformance suite of
// package store; whatever is said there of the store holds on both.
package storetest

import (
	"context"
	"database/sql"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx" for SQL
	_ "modernc.org/sqlite"             // registers the driver "sqlite" for SQL

	"activerelay/server/internal/store"
	"activerelay/server/internal/store/storetest/pgtest"
)

// Database is an empty database of one test.
type Database struct{ URL string }

// SQLite returns a database in a file.
func SQLite(tb testing.TB) Database {
	tb.Helper()
	return Database{URL: "sqlite:" + filepath.Join(tb.TempDir(), "relay.db")}
}

// Postgres returns a database on a server.
func Postgres(tb testing.TB, server *pgtest.Server) Database {
	tb.Helper()
	return Database{URL: server.Database(tb)}
}

// Each runs a test on an SQLite and on a PostgreSQL database.
func Each(t *testing.T, server *pgtest.Server, test func(t *testing.T, db Database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t, server)) })
}

// OnSQLite reports whether it is an SQLite database.
func (d Database) OnSQLite() bool { return strings.HasPrefix(d.URL, "sqlite:") }

// Path is the file of an SQLite database.
func (d Database) Path() string { return strings.TrimPrefix(d.URL, "sqlite:") }

// Open migrates the database and opens it until the end of the test. The URL of the configuration is set; its log is
// discarded where there is none.
func (d Database) Open(tb testing.TB, config store.Config) *store.Store {
	tb.Helper()
	s := d.OpenOnly(tb, config)
	migrator, err := s.Migrator()
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := migrator.Up(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// OpenOnly opens the database as it is, until the end of the test.
func (d Database) OpenOnly(tb testing.TB, config store.Config) *store.Store {
	tb.Helper()
	config.URL = d.URL
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	s, err := store.Open(context.Background(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// SQL opens the database beside the store, for what the store does not do: to break things, and to look at rows.
func (d Database) SQL(tb testing.TB) *sql.DB {
	tb.Helper()
	driver, dsn := "pgx", d.URL
	if d.OnSQLite() {
		driver, dsn = "sqlite", "file:"+d.Path()+"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// Clock is a clock that stands until it is moved. Its zero value is not ready: see [NewClock].
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that shows an instant.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now is what it shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Set makes it show another instant.
func (c *Clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// Advance moves it forward.
func (c *Clock) Advance(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// Statements is the log of a store that counts the statements.
type Statements struct{ count atomic.Int64 }

// Logger returns the log to open a store with.
func (s *Statements) Logger() *slog.Logger { return slog.New(statementHandler{s}) }

// Count returns how many statements there were so far.
func (s *Statements) Count() int64 { return s.count.Load() }

type statementHandler struct{ statements *Statements }

func (statementHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h statementHandler) Handle(_ context.Context, record slog.Record) error {
	if record.Message == "database statement" {
		h.statements.count.Add(1)
	}
	return nil
}

func (h statementHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h statementHandler) WithGroup(string) slog.Handler      { return h }
