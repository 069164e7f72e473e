package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"gorm.io/gorm/clause"

	"activerelay/migrations"
)

// QueueCounts is how much waits. An item is one message for one destination.
type QueueCounts struct {
	Items, Recipients, Queued, Held, Quarantined int64
	// OldestID is the id of the oldest message; empty where nothing waits.
	OldestID string
}

// OldestAge is how long the oldest message has waited; 0 where nothing waits.
func (c QueueCounts) OldestAge(now time.Time) time.Duration {
	id, err := ulid.ParseStrict(c.OldestID)
	if err != nil {
		return 0
	}
	return max(0, now.Sub(ulid.Time(id.Time())))
}

// QueueGroup is what waits and has one thing in common.
type QueueGroup struct {
	Key string
	QueueCounts
	// DelayReason and LastReply are of the latest attempt of any of them.
	DelayReason, LastReply string
}

// QueueSummary is what waits, the largest groups first.
type QueueSummary struct {
	Groups []QueueGroup
	// GroupsTotal counts those that are not shown, too.
	GroupsTotal int64
	Total       QueueCounts
}

// queueSums are the sums of a group of rows, in the order of the fields of QueueCounts.
const queueSums = "COUNT(*) AS items, COALESCE(SUM(remaining), 0) AS recipients, " +
	"COALESCE(SUM(CASE WHEN state = 'queued' THEN 1 ELSE 0 END), 0) AS queued, " +
	"COALESCE(SUM(CASE WHEN state = 'held' THEN 1 ELSE 0 END), 0) AS held, " +
	"COALESCE(SUM(CASE WHEN state = 'quarantined' THEN 1 ELSE 0 END), 0) AS quarantined, " +
	"COALESCE(MIN(message_id), '') AS oldest_id"

// SummariseQueue counts what waits, grouped by one of the columns "destination", "domain", "partner", "edge" and "state", and
// returns the top largest groups. It reads every row that fits, once.
func (tx *Tx) SummariseQueue(filter QueueFilter, by string, top int) (QueueSummary, error) {
	var rows []struct {
		QueueGroup
		Latest string
	}
	// The empty text keeps SQLite from walking an index of the column and looking up each row by itself.
	err := tx.queued(filter).Select(by + " || '' AS key, " + queueSums + ", " + tx.latestReply() + " AS latest").
		Clauses(clause.GroupBy{Columns: []clause.Column{{Name: "1", Raw: true}}}).Find(&rows).Error
	if err != nil {
		return QueueSummary{}, err
	}
	summary := QueueSummary{GroupsTotal: int64(len(rows)), Groups: make([]QueueGroup, len(rows))}
	for i, row := range rows {
		if _, told, found := strings.Cut(row.Latest, "\n"); found {
			row.DelayReason, row.LastReply, _ = strings.Cut(told, "\n")
		}
		summary.Groups[i] = row.QueueGroup
		summary.Total.add(row.QueueCounts)
	}
	slices.SortFunc(summary.Groups, func(a, b QueueGroup) int {
		return cmp.Or(cmp.Compare(b.Items, a.Items), cmp.Compare(a.Key, b.Key))
	})
	summary.Groups = summary.Groups[:min(top, len(summary.Groups))]
	return summary, nil
}

// latestReply is the greatest of "second, reason, reply" of those that were answered: the latest.
func (tx *Tx) latestReply() string {
	second := "substr(changed_at, 1, 19)"
	if tx.store.dialect == migrations.Postgres {
		second = "CAST(EXTRACT(EPOCH FROM changed_at) AS BIGINT)"
	}
	return "COALESCE(MAX(CASE WHEN last_reply <> '' THEN " + second + " || '\n' || delay_reason || '\n' || last_reply END), '')"
}

func (c *QueueCounts) add(other QueueCounts) {
	c.Items += other.Items
	c.Recipients += other.Recipients
	c.Queued += other.Queued
	c.Held += other.Held
	c.Quarantined += other.Quarantined
	if c.OldestID == "" || other.OldestID < c.OldestID {
		c.OldestID = other.OldestID
	}
}
