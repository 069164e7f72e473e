package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"activerelay/migrations"
)

// maxAttempts bounds how often a write that lost against another one is run.
const maxAttempts = 6

// Tx is one transaction of one tenant.
type Tx struct {
	db     *gorm.DB
	store  *Store
	Tenant Tenant
	// Now is the instant of the transaction, UTC in microseconds; all its rows carry the same.
	Now time.Time

	ending *ending
}

// ending is what a write transaction does last; all views of one transaction share it.
type ending struct {
	audits    []AuditRow
	published []string
}

// Read runs fn in a read-only transaction on one snapshot.
func (s *Store) Read(ctx context.Context, tenant Tenant, fn func(*Tx) error) error {
	var options sql.TxOptions
	if s.dialect == migrations.Postgres {
		options = sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
	}
	err := s.read.WithContext(ctx).Transaction(func(db *gorm.DB) error {
		return fn(&Tx{db: db, store: s, Tenant: tenant, Now: s.now(), ending: &ending{}})
	}, &options)
	return translate(err)
}

// Write runs fn in a transaction and commits it together with its audit rows, the next revision and the documents that
// it published. A transaction that lost against another one is run again, so fn must have no other effects. One whose
// commit was not answered is not, because it may have happened: that is ErrBusy too, and it is for the caller to know
// whether to do it again, e.g. by an idempotency key.
func (s *Store) Write(ctx context.Context, tenant Tenant, fn func(*Tx) error) error {
	for attempt := 1; ; attempt++ {
		revision, decided, err := s.writeOnce(ctx, tenant, fn)
		if err == nil {
			if revision != 0 && s.config.OnPublish != nil {
				s.config.OnPublish(revision)
			}
			return nil
		}
		if !errors.Is(err, ErrBusy) || !decided || attempt == maxAttempts {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// writeOnce reports whether it is decided what became of the transaction.
func (s *Store) writeOnce(ctx context.Context, tenant Tenant, fn func(*Tx) error) (revision int64, decided bool, err error) {
	decided = true
	err = s.write.WithContext(ctx).Transaction(func(db *gorm.DB) error {
		tx := &Tx{db: db, store: s, Tenant: tenant, Now: s.now(), ending: &ending{}}
		if err := fn(tx); err != nil {
			return err
		}
		if err := tx.insertAudits(); err != nil {
			return err
		}
		revision, err = tx.publish()
		decided = err != nil
		return err
	})
	return revision, decided || err == nil || rolledBack(err), translate(err)
}

// pause waits a little longer after each attempt, with jitter so that two losers do not meet again.
func pause(ctx context.Context, attempt int) error {
	ceiling := 5 * time.Millisecond << attempt
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	case <-time.After(ceiling/2 + rand.N(ceiling/2)):
		return nil
	}
}

// As returns the same transaction for another tenant. It is for the program's own look-ups inside a caller's
// transaction; what they return must not reach the caller.
func (tx *Tx) As(tenant Tenant) *Tx {
	other := *tx
	other.Tenant = tenant
	return &other
}

// locked makes a query lock its rows until the commit. SQLite needs no row locks: it has one writer.
func (tx *Tx) locked(q *gorm.DB) *gorm.DB {
	return q.Clauses(clause.Locking{Strength: "UPDATE"})
}

// update writes all columns of row but the named ones where its key and the version that it was read with still hold, as
// far as scope lets the tenant reach it. The caller has already put the next version into the row.
func (tx *Tx) update(scope *gorm.DB, row any, readVersion int64, omit ...string) error {
	// UpdateColumns leaves updated_at as the caller set it; Updates would look at the clock again.
	result := scope.Model(row).Select("*").Omit(append(omit, "created_at")...).
		Where("version = ?", readVersion).UpdateColumns(row)
	if result.Error != nil {
		return result.Error
	}
	if result.RowsAffected == 0 {
		return &ErrConflict{Constraint: VersionConstraint}
	}
	return nil
}

// remove deletes the rows of one type that a scoped query finds, ErrNotFound where it finds none.
func remove[T any](q *gorm.DB) error {
	result := q.Delete(new(T))
	if result.Error == nil && result.RowsAffected == 0 {
		return ErrNotFound
	}
	return result.Error
}

// Publish names policy documents that this change touches: "platform", "partner/<slug>", "domain/<name>".
func (tx *Tx) Publish(keys ...string) {
	for _, key := range keys {
		if !slices.Contains(tx.ending.published, key) {
			tx.ending.published = append(tx.ending.published, key)
		}
	}
}
