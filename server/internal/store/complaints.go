package store

import (
	"time"

	"gorm.io/gorm/clause"
)

// Complaint is one abuse report, resolved to what it is about.
type Complaint struct {
	ID           string `gorm:"primaryKey"`
	ReceivedAt   time.Time
	FeedbackType string
	MessageID    string
	Domain       string
	Partner      string
	// UserAddress is empty where the client was allowed by its address.
	UserAddress   string
	ClientAddress string
	Edge          string
	Sender        string
	Reporter      string
	Comment       string
	// RelayIP is the id of the relay IP that held the client address when the complaint came; empty where a user had
	// authenticated, or where there was none.
	RelayIP string
	// Counts is false for what is no complaint about abuse, and for mail whose user or relay IP was disabled already.
	Counts bool
	// Disabled is what this complaint disabled, as "kind/key".
	Disabled  Strings
	CreatedAt time.Time
}

// Complaint returns one complaint.
func (tx *Tx) Complaint(id string) (Complaint, error) {
	var row Complaint
	err := tx.scoped(tx.db, "partner", "domain").Where("id = ?", id).Take(&row).Error
	return row, err
}

// ComplaintBy returns what a reporter complained about a message.
func (tx *Tx) ComplaintBy(messageID, reporter string) (Complaint, error) {
	var row Complaint
	err := tx.scoped(tx.db, "partner", "domain").
		Where("message_id = ? AND reporter = ?", messageID, reporter).Take(&row).Error
	return row, err
}

// ComplaintFilter narrows a list of complaints. Empty fields do not.
type ComplaintFilter struct{ Partner, Domain string }

// Complaints returns at most limit complaints filed before the one with the id before, newest first. An empty before
// starts at the newest.
func (tx *Tx) Complaints(filter ComplaintFilter, before string, limit int) ([]Complaint, error) {
	q := tx.scoped(tx.db, "partner", "domain")
	if filter.Partner != "" {
		q = q.Where("partner = ?", filter.Partner)
	}
	if filter.Domain != "" {
		q = q.Where("domain = ?", filter.Domain)
	}
	if before != "" {
		q = q.Where("id < ?", before)
	}
	var rows []Complaint
	err := q.Order("id DESC").Limit(limit).Find(&rows).Error
	return rows, err
}

// InsertComplaint adds a complaint and reports whether it was new: the same report again changes nothing.
func (tx *Tx) InsertComplaint(row *Complaint) (bool, error) {
	row.CreatedAt = tx.Now
	result := tx.db.Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "message_id"}, {Name: "reporter"}}, DoNothing: true,
	}).Create(row)
	return result.RowsAffected == 1, result.Error
}

// SetComplaintDisabled notes what a complaint disabled.
func (tx *Tx) SetComplaintDisabled(row *Complaint) error {
	return tx.db.Model(row).Select("disabled").Updates(row).Error
}

// ComplaintScope says whose complaints are counted, from the smallest up: a user, else a relay IP, else a domain, else
// a partner. Fields of a smaller scope are empty in a larger one.
type ComplaintScope struct{ Partner, Domain, User, RelayIP string }

// CountComplaints returns how many complaints count against a scope that were received after an instant.
func (tx *Tx) CountComplaints(scope ComplaintScope, after time.Time) (int64, error) {
	q := tx.scoped(tx.db.Model(&Complaint{}), "partner", "domain").
		Where("counts AND received_at > ? AND partner = ?", after, scope.Partner)
	if scope.Domain != "" {
		q = q.Where("domain = ?", scope.Domain)
	}
	if scope.User != "" {
		q = q.Where("user_address = ?", scope.User)
	}
	if scope.RelayIP != "" {
		q = q.Where("relay_ip = ?", scope.RelayIP)
	}
	var count int64
	err := q.Count(&count).Error
	return count, err
}
