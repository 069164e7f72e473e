package store

// PublishExpired publishes some of the domains whose quota override has expired since their document was written, and
// reports whether there were any. The document itself says what has been done already.
func (tx *Tx) PublishExpired() (bool, error) {
	var keys []string
	err := tx.db.Raw(`SELECT documents.key FROM domains JOIN documents ON documents.key = 'domain/' || domains.name
		WHERE domains.override_expires_at <= ? AND documents.updated_at < domains.override_expires_at
		ORDER BY documents.key LIMIT ?`, tx.Now, republishAtOnce).Scan(&keys).Error
	tx.Publish(keys...)
	return len(keys) > 0, err
}
