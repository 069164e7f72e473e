package store

import "time"

// horizonKey is the row of meta with the highest revision of a tombstone that was removed: who enforces an older policy
// may have missed a deletion.
const horizonKey = "tombstone_horizon"

// movedKey is the row of meta with the highest revision of a tombstone whose place the same name of another partner took.
const movedKey = "moved_horizon"

// PolicyCursor is a place in the order of documents, (revision, key). The zero value is before all of them.
type PolicyCursor struct {
	Revision int64
	Key      string
}

// DocumentsAfter returns at most limit documents after a place, in order of (revision, key), as far as the tenant may
// see them: those of the platform, and of its partners.
func (tx *Tx) DocumentsAfter(after PolicyCursor, limit int) ([]Document, error) {
	q := tx.db.Where("(revision, key) > (?, ?)", after.Revision, after.Key)
	if !tx.Tenant.Everything() {
		q = q.Where("(partner = '' OR partner IN ?)", tx.Tenant.Partners)
	}
	var rows []Document
	err := q.Order("revision, key").Limit(limit).Find(&rows).Error
	return rows, err
}

// PolicyHorizon returns the revision from which on deltas are whole: older ones may miss a tombstone.
func (tx *Tx) PolicyHorizon() (int64, error) { return tx.meta(horizonKey) }

// MoveHorizon returns the revision of the last deletion that deltas do not tell of any more, because the name is another
// partner's by now. Who sees that partner's documents too has the new one in the place of the old; for a tenant that sees
// all of them it is 0.
func (tx *Tx) MoveHorizon() (int64, error) {
	if tx.Tenant.Everything() {
		return 0, nil
	}
	return tx.meta(movedKey)
}

// noteMove notes that a tombstone of a revision gave way.
func (tx *Tx) noteMove(revision int64) error {
	known, err := tx.meta(movedKey)
	if err != nil || revision <= known {
		return err
	}
	return tx.setMeta(movedKey, revision)
}

// PurgeTombstones removes tombstones older than before, and returns how many.
func (tx *Tx) PurgeTombstones(before time.Time) (int64, error) {
	var horizon int64
	err := tx.db.Raw("SELECT COALESCE(MAX(revision), 0) FROM documents WHERE deleted = ? AND updated_at < ?", true, before).
		Row().Scan(&horizon)
	if err != nil || horizon == 0 {
		return 0, err
	}
	known, err := tx.meta(horizonKey)
	if err != nil {
		return 0, err
	}
	if err := tx.setMeta(horizonKey, max(horizon, known)); err != nil {
		return 0, err
	}
	result := tx.db.Where("deleted = ? AND updated_at < ?", true, before).Delete(&Document{})
	return result.RowsAffected, result.Error
}
