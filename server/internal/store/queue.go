package store

import (
	"time"

	"gorm.io/gorm"
)

// The states of what waits in an edge's queue.
const (
	Queued      = "queued"
	Held        = "held"
	Quarantined = "quarantined"
)

// QueuedMessage is what one message has in the queue of an edge for one destination, the domain of recipients. It is made
// of the events of the edge, so it is as old as they are.
type QueuedMessage struct {
	MessageID   string `gorm:"primaryKey"`
	Destination string `gorm:"primaryKey"`
	Edge        string `gorm:"primaryKey"`
	// Partner and Domain are whose the message was when it was accepted.
	Partner string
	Domain  string
	// Sender is the envelope sender; empty is the null one.
	Sender string
	// Recipients are those that were accepted, Remaining those that are not settled.
	Recipients int64
	Remaining  int64
	State      string
	Attempts   int64
	// NextAttemptAt is nil before the first attempt.
	NextAttemptAt *time.Time
	LastReply     string
	RemoteHost    string
	// TLS is the channel of the last attempt, DelayReason why it failed. Empty is unknown.
	TLS         string
	DelayReason string
	AcceptedAt  time.Time
	ChangedAt   time.Time
}

// QueueFilter narrows what waits. Empty fields do not.
type QueueFilter struct {
	Partner, Domain, Destination, Sender, State, Edge string
	// NullSender keeps messages with the null sender only.
	NullSender bool
	MessageIDs []string
}

// QueueCursor is a place in a list of what waits. The zero cursor is its beginning.
type QueueCursor struct{ MessageID, Destination, Edge string }

// queued narrows to what the tenant may see and the filter names.
func (tx *Tx) queued(filter QueueFilter) *gorm.DB {
	q := tx.scoped(tx.db.Model(&QueuedMessage{}), "partner", "domain")
	for _, is := range []struct{ column, value string }{
		{"partner", filter.Partner},
		{"domain", filter.Domain},
		{"destination", filter.Destination},
		{"state", filter.State},
		{"edge", filter.Edge},
	} {
		if is.value != "" {
			q = q.Where(is.column+" = ?", is.value)
		}
	}
	if filter.Sender != "" {
		q = q.Where("LOWER(sender) = LOWER(?)", filter.Sender)
	}
	if filter.NullSender {
		q = q.Where("sender = ''")
	}
	if len(filter.MessageIDs) > 0 {
		q = q.Where("message_id IN ?", filter.MessageIDs)
	}
	return q
}

// QueuedMessages returns at most limit of what waits after a place, oldest message first.
func (tx *Tx) QueuedMessages(filter QueueFilter, after QueueCursor, limit int) ([]QueuedMessage, error) {
	q := tx.queued(filter)
	if after != (QueueCursor{}) {
		q = q.Where("message_id > ? OR message_id = ? AND (destination > ? OR destination = ? AND edge > ?)",
			after.MessageID, after.MessageID, after.Destination, after.Destination, after.Edge)
	}
	var rows []QueuedMessage
	err := q.Order("message_id, destination, edge").Limit(limit).Find(&rows).Error
	return rows, err
}

// QueuedMessage returns what one message has in the queue, by destination; ErrNotFound where it has nothing.
func (tx *Tx) QueuedMessage(id string) ([]QueuedMessage, error) {
	var rows []QueuedMessage
	err := tx.queued(QueueFilter{MessageIDs: []string{id}}).Order("destination, edge").Find(&rows).Error
	if err == nil && len(rows) == 0 {
		err = ErrNotFound
	}
	return rows, err
}

// CountQueued returns how many messages wait.
func (tx *Tx) CountQueued(filter QueueFilter) (int64, error) {
	var count int64
	err := tx.queued(filter).Distinct("message_id").Count(&count).Error
	return count, err
}

// DeleteStaleQueued forgets what should have been tried since an instant and was not told of: its end was lost together with
// events of the edge. Were it alive after all, its next attempt would tell of it. What is held tells nothing, and stays.
func (tx *Tx) DeleteStaleQueued(since time.Time) (int64, error) {
	result := tx.db.Where("state = ? AND changed_at < ?", Queued, since).Delete(&QueuedMessage{})
	return result.RowsAffected, result.Error
}

// edgesWith returns the edges on which something waits, in order.
func (tx *Tx) edgesWith(filter QueueFilter) ([]string, error) {
	var edges []string
	err := tx.queued(filter).Distinct("edge").Order("edge").Pluck("edge", &edges).Error
	return edges, err
}
