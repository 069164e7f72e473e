package store

import (
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm/clause"
)

// Document is one policy document as the edges are sent it.
type Document struct {
	Key string `gorm:"primaryKey"`
	// Partner and Domain say whom the document belongs to; both are empty for "platform".
	Partner  string
	Domain   string
	Revision int64
	// Deleted marks a tombstone; its body is empty.
	Deleted   bool
	Body      string
	UpdatedAt time.Time
}

// TableName names the table.
func (Document) TableName() string { return "documents" }

// Revision returns the last revision that was given out.
func (tx *Tx) Revision() (int64, error) {
	var value int64
	err := tx.db.Raw("SELECT value FROM revision WHERE id = 1").Scan(&value).Error
	return value, err
}

// publish takes the next revision, whose row lock is held to the commit, and only then reads and writes the documents.
// It returns 0 when nothing was published.
func (tx *Tx) publish() (int64, error) {
	if len(tx.ending.published) == 0 {
		return 0, nil
	}
	var revision int64
	err := tx.db.Raw("UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value").Scan(&revision).Error
	if err != nil {
		return 0, fmt.Errorf("next revision: %w", err)
	}
	if tx.store.config.Materialise == nil {
		return revision, nil
	}
	slices.Sort(tx.ending.published)
	system := tx.As(System())
	tombstones, err := system.tombstones(tx.ending.published)
	if err != nil {
		return 0, fmt.Errorf("look for tombstones: %w", err)
	}
	for _, key := range tx.ending.published {
		if err := system.materialise(key, revision, tombstones[key]); err != nil {
			return 0, fmt.Errorf("materialise %s: %w", key, err)
		}
	}
	return revision, nil
}

// tombstones returns those among some documents, by key.
func (tx *Tx) tombstones(keys []string) (map[string]Document, error) {
	var rows []Document
	err := tx.db.Select("key", "partner", "revision", "deleted").Where("key IN ? AND deleted = ?", keys, true).Find(&rows).Error
	byKey := make(map[string]Document, len(rows))
	for _, row := range rows {
		byKey[row.Key] = row
	}
	return byKey, err
}

// materialise writes one document. tombstone is what it takes the place of, zero where that is none.
func (tx *Tx) materialise(key string, revision int64, tombstone Document) error {
	document, err := tx.store.config.Materialise(tx, key)
	if err != nil {
		return err
	}
	if tombstone.Deleted && !document.Deleted && tombstone.Partner != document.Partner {
		if err := tx.noteMove(tombstone.Revision); err != nil {
			return err
		}
	}
	document.Key, document.Revision, document.UpdatedAt = key, revision, tx.Now
	columns := []string{"revision", "deleted", "body", "updated_at"}
	// A tombstone goes to whoever had the document, so it keeps the owner that the document had.
	if !document.Deleted {
		columns = append(columns, "partner", "domain")
	}
	return tx.db.Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "key"}}, DoUpdates: clause.AssignmentColumns(columns),
	}).Create(&document).Error
}
