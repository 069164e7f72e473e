package store

import (
	"fmt"
	"time"
)

// AuditRow is one change: who did what to which object.
type AuditRow struct {
	ID         string `gorm:"primaryKey"`
	OccurredAt time.Time
	TokenID    string
	ActorName  string
	ActorRole  string
	// ActorPartner is empty for operators and edges.
	ActorPartner string
	// Action is the operation id.
	Action string
	// Object is what was changed, as "kind/key".
	Object string
	// Partner is whose object it is; empty for the platform's own.
	Partner   string
	Reason    string
	RequestID string
	// Changes is JSON: for each property that changed its "from" and "to"; secrets are masked.
	Changes string
}

// TableName names the table.
func (AuditRow) TableName() string { return "audit" }

// Audit notes what this transaction does. The row is written at its end; when that fails, nothing has happened. ID and
// OccurredAt are filled in.
func (tx *Tx) Audit(row AuditRow) { tx.ending.audits = append(tx.ending.audits, row) }

func (tx *Tx) insertAudits() error {
	if len(tx.ending.audits) == 0 {
		return nil
	}
	for i := range tx.ending.audits {
		row := &tx.ending.audits[i]
		id, err := tx.store.newAuditID(tx.Now)
		if err != nil {
			return err
		}
		row.ID, row.OccurredAt = id, tx.Now
		if row.Changes == "" {
			row.Changes = "{}"
		}
	}
	if err := tx.db.CreateInBatches(tx.ending.audits, 100).Error; err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	return nil
}

// AuditFilter narrows the audit log. Empty fields do not.
type AuditFilter struct{ Partner, Object, Actor string }

// AuditEntries returns at most limit entries older than the one with the id before, newest first. An empty before
// starts at the newest.
func (tx *Tx) AuditEntries(filter AuditFilter, before string, limit int) ([]AuditRow, error) {
	q := tx.scoped(tx.db, "partner", "")
	if filter.Partner != "" {
		q = q.Where("partner = ?", filter.Partner)
	}
	if filter.Object != "" {
		q = q.Where("object = ?", filter.Object)
	}
	if filter.Actor != "" {
		q = q.Where("token_id = ?", filter.Actor)
	}
	if before != "" {
		q = q.Where("id < ?", before)
	}
	var rows []AuditRow
	err := q.Order("id DESC").Limit(limit).Find(&rows).Error
	return rows, err
}

// AuditEntry returns one entry.
func (tx *Tx) AuditEntry(id string) (AuditRow, error) {
	var row AuditRow
	err := tx.scoped(tx.db, "partner", "").Where("id = ?", id).Take(&row).Error
	return row, err
}
