package store

import "time"

// DestinationLimit is how much each edge sends to a recipient domain or a smarthost.
type DestinationLimit struct {
	Destination string `gorm:"primaryKey"`
	// MaxConnections 0 means what the edges have for any destination.
	MaxConnections int
	// MessagesPerMinute 0 means no limit.
	MessagesPerMinute int
	Reason            string
	Version           int64
	CreatedAt         time.Time
	UpdatedAt         time.Time
}

// DestinationLimit returns the limits of one destination.
func (tx *Tx) DestinationLimit(destination string) (DestinationLimit, error) {
	var row DestinationLimit
	err := tx.scoped(tx.db, "", "").Where("destination = ?", destination).Take(&row).Error
	return row, err
}

// LockDestinationLimit returns the limits of one destination, which nobody else can change until the commit.
func (tx *Tx) LockDestinationLimit(destination string) (DestinationLimit, error) {
	var row DestinationLimit
	err := tx.locked(tx.scoped(tx.db, "", "")).Where("destination = ?", destination).Take(&row).Error
	return row, err
}

// DestinationLimits returns at most limit limits after a destination, by destination.
func (tx *Tx) DestinationLimits(after string, limit int) ([]DestinationLimit, error) {
	var rows []DestinationLimit
	err := tx.scoped(tx.db, "", "").Where("destination > ?", after).Order("destination").Limit(limit).Find(&rows).Error
	return rows, err
}

// AllDestinationLimits returns every limit, by destination.
func (tx *Tx) AllDestinationLimits() ([]DestinationLimit, error) {
	return tx.DestinationLimits("", -1)
}

// InsertDestinationLimit adds limits; their version becomes 1.
func (tx *Tx) InsertDestinationLimit(row *DestinationLimit) error {
	row.Version, row.CreatedAt, row.UpdatedAt = 1, tx.Now, tx.Now
	return tx.db.Create(row).Error
}

// UpdateDestinationLimit writes limits that LockDestinationLimit returned, with the next version.
func (tx *Tx) UpdateDestinationLimit(row *DestinationLimit) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "", ""), row, read)
}

// DeleteDestinationLimit deletes the limits of a destination.
func (tx *Tx) DeleteDestinationLimit(destination string) error {
	return remove[DestinationLimit](tx.scoped(tx.db, "", "").Where("destination = ?", destination))
}
