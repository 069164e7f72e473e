package store

import "time"

// Partner is a reseller.
type Partner struct {
	Slug           string `gorm:"primaryKey"`
	Name           string
	SupportContact string
	// TimeZone is the default zone of its domains; empty means the platform's.
	TimeZone       string
	Administrative `gorm:"embedded"`
	Relaying       Relaying `gorm:"embedded;embeddedPrefix:relaying_"`
	Version        int64
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// PartnerKey is the policy document of a partner.
func PartnerKey(slug string) string { return "partner/" + slug }

// Partner returns one partner.
func (tx *Tx) Partner(slug string) (Partner, error) {
	var row Partner
	err := tx.scoped(tx.db, "slug", "").Where("slug = ?", slug).Take(&row).Error
	return row, err
}

// LockPartner returns one partner, which nobody else can change until the commit.
func (tx *Tx) LockPartner(slug string) (Partner, error) {
	var row Partner
	err := tx.locked(tx.scoped(tx.db, "slug", "")).Where("slug = ?", slug).Take(&row).Error
	return row, err
}

// Partners returns at most limit partners after a slug, by slug. An empty status means any.
func (tx *Tx) Partners(status, after string, limit int) ([]Partner, error) {
	q := tx.scoped(tx.db, "slug", "").Where("slug > ?", after)
	if status != "" {
		q = q.Where("status = ?", status)
	}
	var rows []Partner
	err := q.Order("slug").Limit(limit).Find(&rows).Error
	return rows, err
}

// InsertPartner adds a partner; its version becomes 1.
func (tx *Tx) InsertPartner(row *Partner) error {
	row.Version, row.CreatedAt, row.UpdatedAt = 1, tx.Now, tx.Now
	return tx.db.Create(row).Error
}

// UpdatePartner writes a partner that LockPartner returned, with the next version.
func (tx *Tx) UpdatePartner(row *Partner) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "slug", ""), row, read)
}

// DeletePartner deletes a partner; one that still has domains is a conflict on a foreign key.
func (tx *Tx) DeletePartner(slug string) error {
	return remove[Partner](tx.scoped(tx.db, "slug", "").Where("slug = ?", slug))
}
