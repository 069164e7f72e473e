package store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"activerelay/migrations"
)

// positionKey is the row of meta that counts the transactions that granted quota. Only SQLite keeps it: together with
// the revision it tells a restored file from the one that was written last.
const positionKey = "lease_position"

// Epoch names one unbroken history of this database. It changes when the database is found to have been restored: on
// PostgreSQL a restore makes another cluster, another timeline or, from a dump, another table; SQLite has a mark beside the
// file; on both an edge that knows more than the database proves it, and [Tx.NewEpoch] is called.
func (tx *Tx) Epoch() (string, error) {
	id, err := tx.DatabaseID()
	if err != nil || tx.store.dialect != migrations.Postgres {
		return id, err
	}
	var cluster string
	// The name of a WAL file starts with its timeline; unlike the control file's, it is right at once after a promotion.
	err = tx.db.Raw(`SELECT (SELECT to_hex(system_identifier) FROM pg_control_system())
		|| '.' || ltrim(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), '0') || '.' || 'meta'::regclass::oid`).Row().Scan(&cluster)
	if err != nil {
		return "", fmt.Errorf("identity of the cluster: %w", err)
	}
	return id + "." + cluster, nil
}

// NewEpoch ends the history so far: edges start their policy again, and no quota is granted until each has reported
// what it holds.
func (tx *Tx) NewEpoch() error {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("new epoch: %w", err)
	}
	err := tx.db.Exec("UPDATE meta SET value = ? WHERE key = 'database_id'", hex.EncodeToString(id[:])).Error
	if err != nil {
		return fmt.Errorf("new epoch: %w", err)
	}
	return nil
}

// ClaimEvery is how often one edge can begin a new epoch on its word.
const ClaimEvery = time.Hour

// ClaimEpoch begins a new epoch because an edge knows more than the database, and reports whether it did. Each epoch makes all
// edges start their policy again and stops all grants for a while, so an edge that is broken, or whose credential is in wrong
// hands, can do that once an hour. A restore that the database itself shows needs no edge's word and waits for nothing.
func (tx *Tx) ClaimEpoch(edge string) (begun bool, err error) {
	key := "epoch_claim/" + edge
	last, err := tx.meta(key)
	if err != nil {
		return false, err
	}
	if since := tx.Now.Sub(time.Unix(last, 0)); since >= 0 && since < ClaimEvery {
		return false, nil
	}
	if err := tx.setMeta(key, tx.Now.Unix()); err != nil {
		return false, err
	}
	return true, tx.NewEpoch()
}

// Unreported returns the active edges that have not said in this epoch what they hold, oldest first. While there is one no quota
// is granted.
func (tx *Tx) Unreported() ([]Edge, error) {
	epoch, err := tx.Epoch()
	if err != nil {
		return nil, err
	}
	var rows []Edge
	err = tx.edges().Where("status = ? AND reported_epoch <> ?", EdgeActive, epoch).Order("id").Find(&rows).Error
	return rows, err
}

// Position is how far the history of an SQLite database has come: it grows with each published change and with each
// grant of quota, and a backup has an older one. On PostgreSQL, where timelines tell, it is 0.
func (tx *Tx) Position() (int64, error) {
	if tx.store.dialect == migrations.Postgres {
		return 0, nil
	}
	revision, err := tx.Revision()
	if err != nil {
		return 0, err
	}
	grants, err := tx.meta(positionKey)
	return revision + grants, err
}

// advancePosition notes that quota was granted.
func (tx *Tx) advancePosition() error {
	if tx.store.dialect == migrations.Postgres {
		return nil // one row for all grants would make them wait for each other
	}
	grants, err := tx.meta(positionKey)
	if err != nil {
		return err
	}
	return tx.setMeta(positionKey, grants+1)
}

// FilePath is the file of an SQLite database; empty on PostgreSQL.
func (s *Store) FilePath() string { return strings.TrimSuffix(s.lockPath, ".lock") }

// MarkPath is the file beside the database that keeps its highest known position; empty on PostgreSQL.
func (s *Store) MarkPath() string {
	if s.dialect == migrations.Postgres {
		return ""
	}
	return s.FilePath() + ".mark"
}

// meta returns a number kept in the table meta, 0 when it is not there.
func (tx *Tx) meta(key string) (int64, error) {
	var values []string
	if err := tx.db.Raw("SELECT value FROM meta WHERE key = ?", key).Scan(&values).Error; err != nil {
		return 0, err
	}
	if len(values) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("meta %s: %w", key, err)
	}
	return n, nil
}

func (tx *Tx) setMeta(key string, value int64) error {
	return tx.db.Exec("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
		key, strconv.FormatInt(value, 10)).Error
}
