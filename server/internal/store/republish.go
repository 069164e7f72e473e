package store

// republishAtOnce is how many documents a change of a partner or of the settings rewrites in its own transaction. More
// are written down and follow in the background, so that one change of the settings does not stop all others.
const republishAtOnce = 200

// pendingDocument is a document that has to be materialised again.
type pendingDocument struct {
	Key string `gorm:"primaryKey"`
}

// TableName names the table.
func (pendingDocument) TableName() string { return "pending_documents" }

// PublishDomains publishes the domains whose documents follow from a change elsewhere: those of a partner, all where
// partner is empty, and only those without a zone of their own where inherited is set.
func (tx *Tx) PublishDomains(partner string, inherited bool) error {
	q := tx.db.Model(&Domain{})
	if partner != "" {
		q = q.Where("partner = ?", partner)
	}
	if inherited {
		q = q.Where("time_zone IS NULL")
	}
	var names []string
	if err := q.Limit(republishAtOnce+1).Order("name").Pluck("name", &names).Error; err != nil {
		return err
	}
	if len(names) <= republishAtOnce {
		for _, name := range names {
			tx.Publish(DomainKey(name))
		}
		return nil
	}
	statement := "INSERT INTO pending_documents (key) SELECT 'domain/' || name FROM domains WHERE TRUE"
	var values []any
	if partner != "" {
		statement, values = statement+" AND partner = ?", append(values, partner)
	}
	if inherited {
		statement += " AND time_zone IS NULL"
	}
	return tx.db.Exec(statement+" ON CONFLICT DO NOTHING", values...).Error
}

// PublishPending publishes some of the documents that were left for later and reports whether there were any.
func (tx *Tx) PublishPending() (bool, error) {
	var rows []pendingDocument
	err := tx.locked(tx.db).Order("key").Limit(republishAtOnce).Find(&rows).Error
	if err != nil || len(rows) == 0 {
		return false, err
	}
	keys := make([]string, len(rows))
	for i, row := range rows {
		keys[i] = row.Key
	}
	tx.Publish(keys...)
	return true, tx.db.Where("key IN ?", keys).Delete(&pendingDocument{}).Error
}
