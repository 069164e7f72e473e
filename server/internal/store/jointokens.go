package store

import (
	"time"

	"gorm.io/gorm"
)

// JoinToken lets one edge join once. The secret itself is not here: only its SHA-256.
type JoinToken struct {
	ID         string `gorm:"primaryKey"`
	SecretHash []byte
	// Partners is the scope of the edge that will join; empty means all.
	Partners  Strings
	CreatedAt time.Time
	ExpiresAt time.Time
	UsedAt    *time.Time
	// UsedBy is the edge that joined with it.
	UsedBy string
}

// joinTokens narrows to what the tenant may see: only operators see join tokens.
func (tx *Tx) joinTokens() *gorm.DB {
	return tx.scoped(tx.db.Model(&JoinToken{}), "", "")
}

// JoinToken returns one join token.
func (tx *Tx) JoinToken(id string) (JoinToken, error) {
	var row JoinToken
	err := tx.joinTokens().Where("id = ?", id).Take(&row).Error
	return row, err
}

// LockJoinToken returns one join token, which nobody else can use until the commit.
func (tx *Tx) LockJoinToken(id string) (JoinToken, error) {
	var row JoinToken
	err := tx.locked(tx.joinTokens()).Where("id = ?", id).Take(&row).Error
	return row, err
}

// JoinTokens returns at most limit join tokens after an id, oldest first.
func (tx *Tx) JoinTokens(after string, limit int) ([]JoinToken, error) {
	var rows []JoinToken
	err := tx.joinTokens().Where("id > ?", after).Order("id").Limit(limit).Find(&rows).Error
	return rows, err
}

// InsertJoinToken adds a join token.
func (tx *Tx) InsertJoinToken(row *JoinToken) error {
	row.CreatedAt = tx.Now
	return tx.db.Create(row).Error
}

// UseJoinToken notes which edge joined with a token that LockJoinToken returned.
func (tx *Tx) UseJoinToken(row *JoinToken, edge string) error {
	row.UsedAt, row.UsedBy = &tx.Now, edge
	return tx.joinTokens().Where("id = ?", row.ID).Select("used_at", "used_by").Updates(row).Error
}

// DeleteJoinToken deletes a join token.
func (tx *Tx) DeleteJoinToken(id string) error {
	return remove[JoinToken](tx.joinTokens().Where("id = ?", id))
}
