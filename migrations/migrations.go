// Package migrations brings a database to the schema that this build of the control plane expects.
//
// The SQL files are the schema; no other code creates or alters a table. There is one folder for each dialect with the
// same version numbers, and migrations only go forward. Each file runs in one transaction together with the row that
// records it, so a process killed half-way leaves the schema of the version before.
//
// Several processes may start on one database at once: on PostgreSQL a session-level advisory lock lets one of them
// migrate while the others wait, on SQLite an OS lock on a file beside the database does. A database that a newer build
// has migrated is refused, because this build cannot know what the newer schema means.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

// Dialect is the SQL dialect of a database.
type Dialect string

// The dialects, named like the folders of their files.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// ErrNewer means that the database was migrated by a newer build.
var ErrNewer = errors.New("the database schema is newer than this program")

// Config says what to migrate.
type Config struct {
	DB      *sql.DB
	Dialect Dialect
	// LockPath is the file whose OS lock keeps a second migrator out. Only SQLite needs it.
	LockPath string
	// Files replaces the embedded migrations in tests; nil means the embedded ones. It holds one folder per dialect.
	Files fs.FS
}

// Migrator applies the migrations of one database.
type Migrator struct {
	provider *goose.Provider
	config   Config
}

// Step is one migration and where it stands.
type Step struct {
	Version int64
	Name    string
	// AppliedAt is the zero time while the migration is pending.
	AppliedAt time.Time
}

// New checks the migration files and binds them to a database. It does not touch the database.
func New(config Config) (*Migrator, error) {
	if config.Files == nil {
		config.Files = files
	}
	folder, err := fs.Sub(config.Files, string(config.Dialect))
	if err != nil {
		return nil, fmt.Errorf("migrations of %s: %w", config.Dialect, err)
	}
	dialect, options, err := dialectOptions(config)
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(dialect, config.DB, folder, options...)
	if err != nil {
		return nil, fmt.Errorf("migrations of %s: %w", config.Dialect, err)
	}
	return &Migrator{provider: provider, config: config}, nil
}

func dialectOptions(config Config) (goose.Dialect, []goose.ProviderOption, error) {
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	switch config.Dialect {
	case SQLite:
		if config.LockPath == "" {
			return "", nil, errors.New("migrating SQLite needs a lock path")
		}
		return goose.DialectSQLite3, options, nil
	case Postgres:
		// One try a second for five minutes: longer than any migration may take while others wait.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return "", nil, fmt.Errorf("migration lock: %w", err)
		}
		return goose.DialectPostgres, append(options, goose.WithSessionLocker(locker)), nil
	default:
		return "", nil, fmt.Errorf("unknown SQL dialect %q", config.Dialect)
	}
}

// Up applies what is pending, in order, and returns it. It refuses a database of a newer build.
func (m *Migrator) Up(ctx context.Context) ([]Step, error) {
	unlock, err := m.lockFile(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := m.refuseNewer(ctx); err != nil {
		return nil, err
	}
	results, err := m.provider.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	steps := make([]Step, 0, len(results))
	for _, r := range results {
		steps = append(steps, Step{Version: r.Source.Version, Name: r.Source.Path})
	}
	return steps, nil
}

func (m *Migrator) lockFile(ctx context.Context) (func(), error) {
	if m.config.Dialect != SQLite {
		return func() {}, nil
	}
	return lockFile(ctx, m.config.LockPath)
}

// Status lists all migrations of this build in order.
func (m *Migrator) Status(ctx context.Context) ([]Step, error) {
	statuses, err := m.provider.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("migration status: %w", err)
	}
	steps := make([]Step, 0, len(statuses))
	for _, s := range statuses {
		steps = append(steps, Step{Version: s.Source.Version, Name: s.Source.Path, AppliedAt: s.AppliedAt})
	}
	return steps, nil
}

// Versions returns the version of the database, 0 when it is empty, and the newest version of this build.
func (m *Migrator) Versions(ctx context.Context) (database, program int64, err error) {
	sources := m.provider.ListSources()
	program = sources[len(sources)-1].Version
	database, err = m.provider.GetDBVersion(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("schema version: %w", err)
	}
	return database, program, nil
}

func (m *Migrator) refuseNewer(ctx context.Context) error {
	database, program, err := m.Versions(ctx)
	if err != nil {
		return err
	}
	if database > program {
		return fmt.Errorf("%w: version %d, known up to %d", ErrNewer, database, program)
	}
	return nil
}
