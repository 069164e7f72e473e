package store

import (
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// usageRefusal is how often something was refused for one reason on one day of a domain.
type usageRefusal struct {
	Domain   string    `gorm:"primaryKey"`
	DayStart time.Time `gorm:"primaryKey"`
	Reason   string    `gorm:"primaryKey"`
	Partner  string
	Messages int64
}

func (usageRefusal) TableName() string { return "usage_refusals" }

// senderUsage is what one sender relayed on one day of a domain.
type senderUsage struct {
	Domain     string    `gorm:"primaryKey"`
	DayStart   time.Time `gorm:"primaryKey"`
	Kind       string    `gorm:"primaryKey"`
	Key        string    `gorm:"primaryKey"`
	Messages   int64
	Recipients int64
}

func (senderUsage) TableName() string { return "sender_usage" }

// senderRefusal is how often one sender was refused for one reason on one day of a domain.
type senderRefusal struct {
	Domain   string    `gorm:"primaryKey"`
	DayStart time.Time `gorm:"primaryKey"`
	Kind     string    `gorm:"primaryKey"`
	Key      string    `gorm:"primaryKey"`
	Reason   string    `gorm:"primaryKey"`
	Messages int64
}

func (senderRefusal) TableName() string { return "sender_refusals" }

type refusalKey struct {
	dayKey
	reason string
}

type senderKey struct {
	dayKey
	kind, sender, reason string
}

// rowKey sorts as the columns of a key do, one after the other: leases lock the days in that order too.
func rowKey(domain string, start time.Time, rest ...string) string {
	return strings.Join(append([]string{domain, start.UTC().Format(time.RFC3339)}, rest...), "\x00")
}

// inOrder returns the values of a map by a key of theirs.
func inOrder[K comparable, V any](rows map[K]*V, key func(*V) string) []*V {
	byKey := make(map[string]*V, len(rows))
	for _, row := range rows {
		byKey[key(row)] = row
	}
	list := make([]*V, 0, len(rows))
	for _, k := range sortedKeys(byKey) {
		list = append(list, byKey[k])
	}
	return list
}

// addUp inserts rows, or adds the named columns to those that are there.
func addUp[T any](tx *Tx, rows []*T, columns ...string) error {
	if len(rows) == 0 {
		return nil
	}
	statement := &gorm.Statement{DB: tx.db}
	if err := statement.Parse(new(T)); err != nil {
		return err
	}
	conflict := clause.OnConflict{}
	for _, field := range statement.Schema.PrimaryFields {
		conflict.Columns = append(conflict.Columns, clause.Column{Name: field.DBName})
	}
	sums := map[string]any{}
	for _, column := range columns {
		sums[column] = gorm.Expr(statement.Schema.Table + "." + column + " + excluded." + column)
	}
	conflict.DoUpdates = clause.Assignments(sums)
	return tx.db.Clauses(conflict).CreateInBatches(rows, 500).Error
}

// refusedSender is the key that a refused sender is counted by: its own, or the empty one when so many are told apart on
// the day already that strangers must be making them up.
func (c *counting) refusedSender(day *QuotaDay, key senderKey) (string, error) {
	crowded, known := c.crowded[key.dayKey]
	if !known {
		var count int64
		err := c.tx.db.Raw(`SELECT COUNT(*) FROM (SELECT 1 FROM sender_refusals WHERE domain = ? AND day_start = ? LIMIT ?) AS told`,
			day.Domain, day.DayStart, maxSenderKeys).Row().Scan(&count)
		if err != nil {
			return "", err
		}
		crowded = count == maxSenderKeys
		c.crowded[key.dayKey] = crowded
	}
	if !crowded {
		return key.sender, nil
	}
	var count int64
	err := c.tx.db.Model(&senderRefusal{}).Where("domain = ? AND day_start = ? AND kind = ? AND key = ?",
		day.Domain, day.DayStart, key.kind, key.sender).Limit(1).Count(&count).Error
	if err != nil || count > 0 {
		return key.sender, err
	}
	return "", nil
}
