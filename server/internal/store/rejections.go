package store

import (
	"strings"
	"time"

	"gorm.io/gorm/clause"
)

// EventPolicyRejected is about a policy document that the edge does not understand in all its parts. The edge goes on to
// later revisions all the same, so what it enforces does not tell.
const EventPolicyRejected = "policy-rejected"

// Rejection is the revision of a policy document that an edge rejected last, and what it does not understand in it.
type Rejection struct {
	Document   string `gorm:"primaryKey"`
	Edge       string `gorm:"primaryKey"`
	Revision   int64
	OccurredAt time.Time
	Detail     string
}

// LastRejection is the latest of the rejected documents that an edge still holds, and how many those are.
type LastRejection struct {
	Rejection
	Standing int64
}

// keepRejections keeps the rejections among some events, the last of each document, and returns those that were not reported
// before. One of a document that is not known any more is not kept: the edge is about to hear that it is gone.
func (tx *Tx) keepRejections(edge *Edge, events []Event) ([]Rejection, error) {
	told := map[string]Rejection{}
	for i := range events {
		if e := &events[i]; e.Kind == EventPolicyRejected {
			document, detail, _ := strings.Cut(e.Detail, ": ")
			told[document] = Rejection{
				Document: document, Edge: edge.ID, Revision: e.PolicyRevision, OccurredAt: e.Time.UTC().Truncate(time.Microsecond), Detail: detail,
			}
		}
	}
	if len(told) == 0 {
		return nil, nil
	}
	keys := sortedKeys(told)
	var before []Rejection
	if err := tx.db.Where("edge = ? AND document IN ?", edge.ID, keys).Find(&before).Error; err != nil {
		return nil, err
	}
	for _, row := range before {
		if told[row.Document].Revision == row.Revision {
			delete(told, row.Document)
		}
	}
	var known []string
	if err := tx.db.Model(&Document{}).Where("key IN ?", keys).Order("key").Pluck("key", &known).Error; err != nil {
		return nil, err
	}
	var fresh, kept []Rejection
	for _, key := range sortedKeys(told) {
		fresh = append(fresh, told[key])
	}
	for _, key := range known {
		if row, isNew := told[key]; isNew {
			kept = append(kept, row)
		}
	}
	if len(kept) == 0 {
		return fresh, nil
	}
	return fresh, tx.db.Clauses(clause.OnConflict{UpdateAll: true}).CreateInBatches(kept, 500).Error
}

// LastRejections returns the last rejections of edges that hold a rejected document, by edge. A document that was written, or
// deleted, since then is held until the edge enforces that; where it rejects that too, it reports it.
func (tx *Tx) LastRejections(edges []string) (map[string]LastRejection, error) {
	var rows []LastRejection
	err := tx.db.Raw(`SELECT * FROM (
		SELECT r.*, COUNT(*) OVER (PARTITION BY r.edge) AS standing,
			ROW_NUMBER() OVER (PARTITION BY r.edge ORDER BY r.revision DESC, r.document) AS place
		FROM rejections AS r JOIN documents AS d ON d.key = r.document JOIN edges AS e ON e.id = r.edge
		WHERE r.edge IN ? AND (d.revision = r.revision OR d.revision > e.enforced_revision)
	) AS told WHERE place = 1`, edges).Scan(&rows).Error
	last := make(map[string]LastRejection, len(rows))
	for _, row := range rows {
		last[row.Edge] = row
	}
	return last, err
}
