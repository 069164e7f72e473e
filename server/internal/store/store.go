package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"
	"gorm.io/gorm"

	"activerelay/migrations"
)

// Config says which database to open and what to tell about commits.
type Config struct {
	// URL is "sqlite:PATH" or "postgres://…". "sqlite:" alone means relay.db in DataDir.
	URL string
	// DataDir is the directory of the default SQLite file.
	DataDir string
	Log     *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Materialise reads the rows of one policy document, "platform", "partner/<slug>" or "domain/<name>", and returns
	// its body with the partner and domain that it belongs to. It runs inside the write transaction, sees all tenants,
	// and must not change anything. Nil leaves documents out: revisions are counted all the same.
	Materialise func(tx *Tx, key string) (Document, error)
	// OnPublish is told each new revision after its commit, in no guaranteed order. It must not block. Nil is ignored.
	OnPublish func(revision int64)
}

// Store is an open database.
type Store struct {
	config  Config
	dialect migrations.Dialect
	// write and read are the same on PostgreSQL; SQLite has one writer connection beside a pool of readers.
	write, read *gorm.DB
	lockPath    string
	// auditIDs grow within a millisecond too, so that the audit log lists in the order of the changes.
	auditIDs ulid.MonotonicReader
	close    func() error
}

// Open connects to the database and checks that it answers. It does not migrate it: see [Store.Migrator].
func Open(ctx context.Context, config Config) (*Store, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		return nil, errors.New("open store: no logger")
	}
	s := &Store{config: config, auditIDs: &ulid.LockedMonotonicReader{MonotonicReader: ulid.Monotonic(rand.Reader, 0)}}
	if err := s.connect(ctx); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// Dialect returns which of the two databases this is.
func (s *Store) Dialect() migrations.Dialect { return s.dialect }

// Migrator returns what brings this database to the schema of this build.
func (s *Store) Migrator() (*migrations.Migrator, error) {
	db, err := s.write.DB()
	if err != nil {
		return nil, err
	}
	return migrations.New(migrations.Config{DB: db, Dialect: s.dialect, LockPath: s.lockPath})
}

// Ping writes nothing but takes the way of a write, so it fails when the database is read-only or gone.
func (s *Store) Ping(ctx context.Context) error {
	return s.Write(ctx, System(), func(tx *Tx) error {
		return tx.db.Exec("UPDATE revision SET value = value WHERE id = 1").Error
	})
}

// Stats returns the state of the writers' connection pool.
func (s *Store) Stats() sql.DBStats {
	db, err := s.write.DB()
	if err != nil {
		return sql.DBStats{}
	}
	return db.Stats()
}

// Close closes all connections. It may be called twice.
func (s *Store) Close() error {
	if s.close == nil {
		return nil
	}
	err := s.close()
	s.close = nil
	return err
}

// now is the clock in the precision that both databases keep.
func (s *Store) now() time.Time { return s.config.Now().UTC().Truncate(time.Microsecond) }

func (s *Store) newAuditID(now time.Time) (string, error) {
	id, err := ulid.New(ulid.Timestamp(now), s.auditIDs)
	if err != nil {
		return "", fmt.Errorf("audit id: %w", err)
	}
	return "aud_" + id.String(), nil
}
