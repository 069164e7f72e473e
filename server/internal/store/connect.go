package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	sqlitedriver "modernc.org/sqlite"

	"activerelay/migrations"
)

// maxPostgresConns bounds the pool of one control plane; PostgreSQL allows 100 by default, for all of them together.
const maxPostgresConns = 24

func (s *Store) connect(ctx context.Context) error {
	switch {
	case strings.HasPrefix(s.config.URL, "sqlite:"):
		return s.connectSQLite(ctx, strings.TrimPrefix(s.config.URL, "sqlite:"))
	case strings.HasPrefix(s.config.URL, "postgres://"), strings.HasPrefix(s.config.URL, "postgresql://"):
		return s.connectPostgres(ctx)
	default:
		// The URL may hold a password, so it is not repeated.
		return errors.New("the database must be sqlite:PATH or postgres://…")
	}
}

// connectSQLite opens one writer and a pool of readers. Writers begin immediately, because a transaction that reads
// first and then writes fails at once, whatever the busy timeout, when another one wrote in between. FULL, because a
// grant or a token must survive a power cut.
func (s *Store) connectSQLite(ctx context.Context, path string) error {
	if path == "" {
		path = filepath.Join(s.config.DataDir, "relay.db")
	}
	s.dialect, s.lockPath = migrations.SQLite, path+".lock"
	if err := createPrivate(path); err != nil {
		return fmt.Errorf("sqlite %s: %w", path, err)
	}
	writer, err := openSQLite(ctx, path, "&_txlock=immediate", 1)
	if err != nil {
		return err
	}
	reader, err := openSQLite(ctx, path, "&_pragma=query_only(1)", max(4, 2*runtime.GOMAXPROCS(0)))
	if err != nil {
		return errors.Join(err, writer.Close())
	}
	s.close = func() error { return errors.Join(reader.Close(), writer.Close()) }
	if s.write, err = s.openGorm(&sqliteDialector{&sqlite.Dialector{Conn: writer}}); err != nil {
		return errors.Join(err, s.Close())
	}
	if s.read, err = s.openGorm(&sqliteDialector{&sqlite.Dialector{Conn: reader}}); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// createPrivate makes the file of a new database, which holds verifiers and sealed passwords, readable by its owner alone;
// SQLite would go by the umask. The files that SQLite puts beside it get the same mode.
func createPrivate(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

func openSQLite(ctx context.Context, path, extra string, connections int) (*sql.DB, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)" +
		"&_time_format=sqlite&_timezone=UTC" + extra
	connector, err := sqlitedriver.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", path, err)
	}
	db := sql.OpenDB(preparing{connector})
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite %s: %w", path, err), db.Close())
	}
	return db, nil
}

func (s *Store) connectPostgres(ctx context.Context) error {
	s.dialect = migrations.Postgres
	config, err := pgx.ParseConfig(s.config.URL)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	db := sql.OpenDB(stdlib.GetConnector(*config, stdlib.OptionAfterConnect(scanUTC)))
	db.SetMaxOpenConns(maxPostgresConns)
	db.SetMaxIdleConns(maxPostgresConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	s.close = db.Close
	if err := db.PingContext(ctx); err != nil {
		return errors.Join(fmt.Errorf("postgres: %w", err), s.Close())
	}
	if s.write, err = s.openGorm(&postgresDialector{&postgres.Dialector{Config: &postgres.Config{Conn: db}}}); err != nil {
		return errors.Join(err, s.Close())
	}
	s.read = s.write
	return nil
}

// scanUTC makes instants come back in UTC, as SQLite returns them, and not in the zone of this process.
func scanUTC(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}

// openGorm has gorm translate driver errors by our dialectors and leave transactions to us.
func (s *Store) openGorm(dialector gorm.Dialector) (*gorm.DB, error) {
	return gorm.Open(dialector, &gorm.Config{
		SkipDefaultTransaction: true,
		TranslateError:         true,
		NowFunc:                s.now,
		Logger:                 statementLog{log: s.config.Log},
	})
}
