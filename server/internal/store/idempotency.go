package store

import (
	"time"

	"gorm.io/gorm/clause"
)

// IdempotencyKey is the kept result of one executed request.
type IdempotencyKey struct {
	// Principal is the token or edge that made the request: one's keys are not another's.
	Principal string `gorm:"primaryKey"`
	Key       string `gorm:"primaryKey"`
	Operation string
	// RequestHash is the SHA-256 of what was asked.
	RequestHash []byte
	Status      int
	// Headers is a JSON object of the response headers that are replayed.
	Headers string
	Body    []byte
	// Sealed means that Body shows a secret and is encrypted under a key derived from the Idempotency-Key.
	Sealed    bool
	CreatedAt time.Time
}

// IdempotencyKey returns the kept result under a key of a principal. Nobody else can replace it until the commit, so of
// two repetitions that come after the window only one is executed.
func (tx *Tx) IdempotencyKey(principal, key string) (IdempotencyKey, error) {
	var row IdempotencyKey
	err := tx.locked(tx.db).Where("principal = ? AND key = ?", principal, key).Take(&row).Error
	return row, err
}

// ReserveIdempotencyKey inserts the row without a result, and reports whether it was free. Where another transaction
// holds the same key, it waits for that one's end.
func (tx *Tx) ReserveIdempotencyKey(row *IdempotencyKey) (bool, error) {
	row.CreatedAt = tx.Now
	if row.Headers == "" {
		row.Headers = "{}"
	}
	result := tx.db.Clauses(clause.OnConflict{DoNothing: true}).Create(row)
	return result.RowsAffected == 1, result.Error
}

// FinishIdempotencyKey writes the result of the request that reserved the key in this transaction.
func (tx *Tx) FinishIdempotencyKey(row *IdempotencyKey) error {
	return tx.db.Model(row).Select("status", "headers", "body", "sealed").Updates(row).Error
}

// DeleteIdempotencyKeys forgets the results that are older than before, and returns how many.
func (tx *Tx) DeleteIdempotencyKeys(before time.Time) (int64, error) {
	result := tx.db.Where("created_at < ?", before).Delete(&IdempotencyKey{})
	return result.RowsAffected, result.Error
}

// ReplaceIdempotencyKey takes over a key whose result is too old to count.
func (tx *Tx) ReplaceIdempotencyKey(row *IdempotencyKey) error {
	return tx.db.Select("*").Save(row).Error
}
