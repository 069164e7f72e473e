package store

import "time"

// User is an SMTP AUTH identity of a domain.
type User struct {
	Address string `gorm:"primaryKey"`
	Domain  string
	Partner string
	// Verifier is the argon2id hash of the password in PHC form.
	Verifier string
	// Aliases are further addresses of the domain that the user may send as.
	Aliases           Strings
	Description       string
	PasswordChangedAt time.Time
	Administrative    `gorm:"embedded"`
	Relaying          Relaying `gorm:"embedded;embeddedPrefix:relaying_"`
	Version           int64
	CreatedAt         time.Time
	UpdatedAt         time.Time
}

// User returns one user.
func (tx *Tx) User(address string) (User, error) {
	var row User
	err := tx.scoped(tx.db, "partner", "domain").Where("address = ?", address).Take(&row).Error
	return row, err
}

// LockUser returns one user, which nobody else can change until the commit.
func (tx *Tx) LockUser(address string) (User, error) {
	var row User
	err := tx.locked(tx.scoped(tx.db, "partner", "domain")).Where("address = ?", address).Take(&row).Error
	return row, err
}

// UserFilter narrows a list of users. Empty fields do not.
type UserFilter struct{ Partner, Domain string }

// Users returns at most limit users after an address, by address.
func (tx *Tx) Users(filter UserFilter, after string, limit int) ([]User, error) {
	q := tx.scoped(tx.db, "partner", "domain").Where("address > ?", after)
	if filter.Partner != "" {
		q = q.Where("partner = ?", filter.Partner)
	}
	if filter.Domain != "" {
		q = q.Where("domain = ?", filter.Domain)
	}
	var rows []User
	err := q.Order("address").Limit(limit).Find(&rows).Error
	return rows, err
}

// UsersOf returns all users of a domain, by address.
func (tx *Tx) UsersOf(domain string) ([]User, error) {
	var rows []User
	err := tx.scoped(tx.db, "partner", "domain").Where("domain = ?", domain).Order("address").Find(&rows).Error
	return rows, err
}

// InsertUser adds a user; its version becomes 1. A second one of the same address is a conflict on users_pkey.
func (tx *Tx) InsertUser(row *User) error {
	row.Version, row.CreatedAt, row.UpdatedAt = 1, tx.Now, tx.Now
	return tx.db.Create(row).Error
}

// UpdateUser writes a user that LockUser returned, with the next version.
func (tx *Tx) UpdateUser(row *User) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "partner", "domain"), row, read)
}

// DeleteUser deletes a user.
func (tx *Tx) DeleteUser(address string) error {
	return remove[User](tx.scoped(tx.db, "partner", "domain").Where("address = ?", address))
}
