package store

import "time"

// Decision is the receipt of one refusal.
type Decision struct {
	Ref        string `gorm:"primaryKey"`
	OccurredAt time.Time
	Edge       string
	// Domain and Partner are empty where the sender domain is not registered; then only the operator sees it.
	Domain         string
	Partner        string
	Reason         string
	Stage          string
	Reply          string
	ClientAddress  string
	UserAddress    string
	Sender         string
	Recipient      string
	PolicyRevision int64
	// Detail is what decided, e.g. the header that marks bulk mail.
	Detail string
}

// Decision returns one decision.
func (tx *Tx) Decision(ref string) (Decision, error) {
	var row Decision
	err := tx.scoped(tx.db, "partner", "domain").Where("ref = ?", ref).Take(&row).Error
	return row, err
}

// DeleteDecisions forgets the oldest decisions from before an instant, at most limit of them, and reports whether there
// may be more.
func (tx *Tx) DeleteDecisions(before time.Time, limit int) (more bool, err error) {
	oldest := tx.db.Model(&Decision{}).Select("ref").Where("occurred_at < ?", before).Order("occurred_at").Limit(limit)
	result := tx.db.Where("ref IN (?)", oldest).Delete(&Decision{})
	return result.RowsAffected == int64(limit), result.Error
}
