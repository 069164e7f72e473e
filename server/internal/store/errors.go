package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrNotFound means that there is no such row, or none that the tenant may see.
var ErrNotFound = errors.New("not found")

// ErrBusy means that the database could not do it now: it is locked, out of connections, starting or gone. The same
// transaction may succeed later.
var ErrBusy = errors.New("database busy")

// VersionConstraint is the constraint of a row that was changed since it was read.
const VersionConstraint = "version"

// ErrConflict means that a change would break a constraint of the schema.
type ErrConflict struct {
	// Constraint is the name that PostgreSQL gives by default on both databases, e.g. "relay_ips_domain_address_key",
	// "partners_pkey", "domains_partner_fkey"; SQLite knows no names of foreign keys and gives "foreign_key".
	Constraint string
}

func (e *ErrConflict) Error() string { return fmt.Sprintf("conflict on %s", e.Constraint) }

// ForeignKey reports whether the constraint is a foreign key.
func (e *ErrConflict) ForeignKey() bool {
	return e.Constraint == "foreign_key" || strings.HasSuffix(e.Constraint, "_fkey")
}

// IsConflict reports whether err is a conflict on one of the constraints; without any, on whichever.
func IsConflict(err error, constraints ...string) bool {
	var conflict *ErrConflict
	if !errors.As(err, &conflict) {
		return false
	}
	for _, name := range constraints {
		if conflict.Constraint == name {
			return true
		}
	}
	return len(constraints) == 0
}

// sqliteDialector and postgresDialector are gorm's own with our translation of errors. They embed the struct, not the
// interface, because that would hide the savepoints.
type sqliteDialector struct{ *sqlite.Dialector }

type postgresDialector struct{ *postgres.Dialector }

var (
	_ gorm.ErrorTranslator               = (*sqliteDialector)(nil)
	_ gorm.SavePointerDialectorInterface = (*sqliteDialector)(nil)
	_ gorm.ErrorTranslator               = (*postgresDialector)(nil)
	_ gorm.SavePointerDialectorInterface = (*postgresDialector)(nil)
)

func (*sqliteDialector) Translate(err error) error { return translate(err) }

func (*postgresDialector) Translate(err error) error { return translate(err) }

// translate turns what gorm and the drivers say into the errors of this package. What it does not know it returns as
// it is.
func translate(err error) error {
	var onSQLite *sqlitedriver.Error
	var onPostgres *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gorm.ErrRecordNotFound), errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.As(err, &onSQLite):
		return translateSQLite(onSQLite)
	case errors.As(err, &onPostgres):
		return translatePostgres(onPostgres)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &connect), errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone),
		pgconn.SafeToRetry(err), connectionLost(err):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	default:
		return err
	}
}

// connectionLost reports whether the server went away in the middle of a statement.
func connectionLost(err error) bool {
	var network net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.As(err, &network)
}

// rolledBack reports whether the database itself says that it did not commit.
func rolledBack(err error) bool {
	var onPostgres *pgconn.PgError
	return errors.As(err, &onPostgres) && (onPostgres.Code == "40001" || onPostgres.Code == "40P01")
}

func translateSQLite(err *sqlitedriver.Error) error {
	switch code := err.Code(); code {
	case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE:
		return &ErrConflict{Constraint: sqliteConstraint(err.Error(), code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)}
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return &ErrConflict{Constraint: "foreign_key"}
	default:
		if primary := code & 0xff; primary == sqlite3.SQLITE_BUSY || primary == sqlite3.SQLITE_LOCKED {
			return fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return err
	}
}

// sqliteConstraint makes PostgreSQL's default name from the columns in a message like
// "constraint failed: UNIQUE constraint failed: relay_ips.domain, relay_ips.address (2067)".
func sqliteConstraint(message string, primary bool) string {
	_, columns, found := strings.Cut(message, "UNIQUE constraint failed: ")
	if !found {
		return message
	}
	columns, _, _ = strings.Cut(columns, " (")
	var table string
	var names []string
	for _, column := range strings.Split(columns, ", ") {
		name := column
		table, name, _ = strings.Cut(column, ".")
		names = append(names, name)
	}
	if primary {
		return table + "_pkey"
	}
	return table + "_" + strings.Join(names, "_") + "_key"
}

func translatePostgres(err *pgconn.PgError) error {
	switch {
	case err.Code == "23505", err.Code == "23503": // unique_violation, foreign_key_violation
		return &ErrConflict{Constraint: err.ConstraintName}
	case err.Code == "40001", err.Code == "40P01", err.Code == "55P03": // serialization, deadlock, lock_not_available
		return fmt.Errorf("%w: %w", ErrBusy, err)
	// Connection exceptions, too many connections, shutdown, crash recovery, starting up.
	case strings.HasPrefix(err.Code, "08"), err.Code == "53300", strings.HasPrefix(err.Code, "57P"):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	default:
		return err
	}
}
