package store

import (
	"time"

	"gorm.io/gorm"
)

// Token is an API credential. The secret itself is not here: only its SHA-256.
type Token struct {
	ID   string `gorm:"primaryKey"`
	Name string
	// Role is "operator", "partner" or "customer".
	Role string
	// Partner is empty for an operator, Domain for everyone but a customer.
	Partner  string
	Domain   string
	ReadOnly bool
	Scopes   Strings
	// AllowedAddresses are the prefixes that may use it; empty means all.
	AllowedAddresses Strings
	SecretHash       []byte
	// PreviousHash is the secret before the last rotation, good until PreviousExpiresAt.
	PreviousHash      []byte
	PreviousExpiresAt *time.Time
	ExpiresAt         *time.Time
	// LastUsedAt is exact to a minute.
	LastUsedAt *time.Time
	RevokedAt  *time.Time
	Version    int64
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Token returns one token.
func (tx *Tx) Token(id string) (Token, error) {
	var row Token
	err := tx.scoped(tx.db, "partner", "").Where("id = ?", id).Take(&row).Error
	return row, err
}

// LockToken returns one token, which nobody else can change until the commit.
func (tx *Tx) LockToken(id string) (Token, error) {
	var row Token
	err := tx.locked(tx.scoped(tx.db, "partner", "")).Where("id = ?", id).Take(&row).Error
	return row, err
}

// Tokens returns at most limit tokens after an id, oldest first. An empty partner means any.
func (tx *Tx) Tokens(partner, after string, limit int) ([]Token, error) {
	q := tx.scoped(tx.db, "partner", "").Where("id > ?", after)
	if partner != "" {
		q = q.Where("partner = ?", partner)
	}
	var rows []Token
	err := q.Order("id").Limit(limit).Find(&rows).Error
	return rows, err
}

// CountTokens returns how many tokens there are, revoked ones included.
func (tx *Tx) CountTokens() (int64, error) {
	var count int64
	err := tx.scoped(tx.db.Model(&Token{}), "partner", "").Count(&count).Error
	return count, err
}

// InsertToken adds a token; its version becomes 1.
func (tx *Tx) InsertToken(row *Token) error {
	row.Version, row.CreatedAt, row.UpdatedAt = 1, tx.Now, tx.Now
	return tx.db.Create(row).Error
}

// UpdateToken writes a token that LockToken returned, with the next version.
func (tx *Tx) UpdateToken(row *Token) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "partner", ""), row, read, "last_used_at")
}

// TouchToken notes that a token was used now. It does not count as a change of the token.
func (tx *Tx) TouchToken(id string) error {
	return tx.scoped(tx.db.Model(&Token{}), "partner", "").Where("id = ?", id).UpdateColumn("last_used_at", tx.Now).Error
}

// RevokeTokens revokes the tokens of a partner, or of one domain of it where domain is not empty.
func (tx *Tx) RevokeTokens(partner, domain string) error {
	q := tx.scoped(tx.db.Model(&Token{}), "partner", "").Where("partner = ? AND revoked_at IS NULL", partner)
	if domain != "" {
		q = q.Where("domain = ?", domain)
	}
	return q.UpdateColumns(map[string]any{"revoked_at": tx.Now, "updated_at": tx.Now, "version": gorm.Expr("version + 1")}).Error
}
