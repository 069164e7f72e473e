package store

import (
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"gorm.io/gorm/clause"
)

// The kinds of events that the queue is known from, beside EventAccepted.
const (
	EventDeferred       = "message-deferred"
	EventDelivered      = "message-delivered"
	EventBounced        = "message-bounced"
	EventExpired        = "message-expired"
	EventCancelled      = "message-cancelled"
	EventHeld           = "message-held"
	EventReleased       = "message-released"
	EventQuarantined    = "message-quarantined"
	EventQueueOperation = "queue-operation-done"
	// EventInstructionUnknown is about an operation on the queue where it has a reference.
	EventInstructionUnknown = "instruction-unknown"
)

// queueing follows the queue of one edge through a batch of events. Most mail comes and goes within one batch; of that nothing
// is written.
type queueing struct {
	tx      *Tx
	edge    string
	domains map[string]*Domain
	// repeatTo is the last event that the edge may be telling again.
	repeatTo int64
	// messages are the known rows of each message by destination; a row whose Remaining is 0 has left.
	messages map[string]map[string]*queuedRow
}

// queuedRow is a row with what is to be done about it.
type queuedRow struct {
	QueuedMessage
	saved, changed bool
}

// follow brings the rows of the edge's queue up to the events.
func (q *queueing) follow(events []Event) error {
	if err := q.load(events); err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		if e.Kind == EventQueueOperation || e.Kind == EventInstructionUnknown {
			if err := q.tx.finishQueueOperation(q.edge, e); err != nil {
				return err
			}
			continue
		}
		q.apply(e)
	}
	return q.save()
}

// load reads what is known of the messages. Of one that is accepted nothing is, unless the edge was set back and tells it again.
func (q *queueing) load(events []Event) error {
	q.messages = map[string]map[string]*queuedRow{}
	var ids []string
	for i := range events {
		e := &events[i]
		if e.MessageID == "" || !changesQueue(e.Kind) || q.messages[e.MessageID] != nil {
			continue
		}
		q.messages[e.MessageID] = map[string]*queuedRow{}
		if e.Kind != EventAccepted || e.Sequence <= q.repeatTo {
			ids = append(ids, e.MessageID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	var rows []QueuedMessage
	if err := q.tx.db.Where("message_id IN ? AND edge = ?", ids, q.edge).Find(&rows).Error; err != nil {
		return err
	}
	for _, row := range rows {
		q.messages[row.MessageID][row.Destination] = &queuedRow{QueuedMessage: row, saved: true}
	}
	return nil
}

func changesQueue(kind string) bool {
	switch kind {
	case EventAccepted, EventDeferred, EventDelivered, EventBounced, EventExpired, EventCancelled, EventHeld, EventReleased, EventQuarantined:
		return true
	}
	return false
}

func (q *queueing) apply(e *Event) {
	rows := q.messages[e.MessageID]
	if rows == nil {
		return
	}
	switch e.Kind {
	case EventAccepted:
		q.accept(rows, e)
	case EventDeferred:
		q.deferred(rows, e)
	case EventDelivered, EventBounced, EventExpired, EventCancelled:
		if e.Kind == EventCancelled && e.Recipient == "" { // of a damaged message nobody knows to whom it went
			for _, row := range rows {
				row.Remaining = 0
				row.change(e)
			}
		}
		if row := rows[destinationOf(e)]; row != nil {
			row.Remaining = max(0, row.Remaining-max(1, e.Recipients))
			row.change(e)
		}
	case EventHeld, EventReleased:
		for _, destination := range e.RecipientDomains {
			if row := rows[destination]; row != nil {
				row.State = map[string]string{EventHeld: Held, EventReleased: Queued}[e.Kind]
				row.change(e)
			}
		}
	case EventQuarantined:
		for _, row := range rows {
			row.State = Quarantined
			if e.Detail != "" {
				row.LastReply, row.RemoteHost, row.TLS = e.Detail, "", ""
			}
			row.change(e)
		}
	}
}

func (r *queuedRow) change(e *Event) { r.changed, r.ChangedAt = true, e.Time.UTC() }

// accept makes the rows of a message, anew if it is told again.
func (q *queueing) accept(rows map[string]*queuedRow, e *Event) {
	for _, row := range rows {
		row.Remaining, row.changed = 0, true
	}
	for _, destination := range e.RecipientDomains {
		row := rows[destination]
		if row == nil || row.Remaining == 0 {
			fresh := q.newRow(e, destination, e.Time)
			if fresh == nil {
				return
			}
			fresh.saved = row != nil && row.saved
			rows[destination], row = fresh, fresh
		}
		row.Recipients++
		row.Remaining++
	}
}

// deferred notes an attempt. A message whose acceptance is not known, because its event was lost, becomes known by it.
func (q *queueing) deferred(rows map[string]*queuedRow, e *Event) {
	row := rows[destinationOf(e)]
	if row == nil {
		id, err := ulid.ParseStrict(e.MessageID)
		if err != nil {
			return
		}
		if row = q.newRow(e, destinationOf(e), ulid.Time(id.Time())); row == nil {
			return
		}
		row.Recipients, row.Remaining = 1, 1
		rows[row.Destination] = row
	}
	row.Attempts, row.LastReply, row.RemoteHost = max(row.Attempts, e.Attempts), e.Reply, e.RemoteHost
	row.TLS, row.DelayReason = e.TLS, e.DelayReason
	if !e.NextAttemptAt.IsZero() {
		next := e.NextAttemptAt
		row.NextAttemptAt = &next
	}
	row.change(e)
}

// newRow is nil for a domain that the edge does not serve.
func (q *queueing) newRow(e *Event, destination string, acceptedAt time.Time) *queuedRow {
	domain, served := q.domains[e.Domain]
	if !served || destination == "" {
		return nil
	}
	row := &queuedRow{QueuedMessage: QueuedMessage{
		MessageID: e.MessageID, Destination: destination, Edge: q.edge, Partner: domain.Partner, Domain: domain.Name,
		Sender: e.Sender, State: Queued, AcceptedAt: acceptedAt.UTC().Truncate(time.Microsecond),
	}}
	row.change(e)
	return row
}

// destinationOf is the domain of the recipient that an event is about.
func destinationOf(e *Event) string {
	return e.Recipient[strings.LastIndexByte(e.Recipient, '@')+1:]
}

// save writes what changed and removes what left, in the order of the ids.
func (q *queueing) save() error {
	var changed []QueuedMessage
	var gone []string
	touched := map[string]map[string]*queuedRow{}
	for id, rows := range q.messages {
		for _, row := range rows {
			if row.saved && row.Remaining == 0 || row.changed && row.Remaining > 0 {
				touched[id] = rows
			}
		}
	}
	for _, id := range sortedKeys(touched) {
		rows := touched[id]
		var left []string
		for _, destination := range sortedKeys(rows) {
			row := rows[destination]
			switch {
			case row.Remaining == 0 && row.saved:
				left = append(left, destination)
			case row.Remaining > 0 && row.changed:
				changed = append(changed, row.QueuedMessage)
			}
		}
		switch {
		case len(left) == 0:
		case !slices.ContainsFunc(sortedKeys(rows), func(d string) bool { return rows[d].Remaining > 0 }):
			gone = append(gone, id)
		default:
			err := q.tx.db.Where("message_id = ? AND edge = ? AND destination IN ?", id, q.edge, left).Delete(&QueuedMessage{}).Error
			if err != nil {
				return err
			}
		}
	}
	if len(gone) > 0 {
		if err := q.tx.db.Where("message_id IN ? AND edge = ?", gone, q.edge).Delete(&QueuedMessage{}).Error; err != nil {
			return err
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return q.tx.db.Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "message_id"}, {Name: "destination"}, {Name: "edge"}}, UpdateAll: true,
	}).CreateInBatches(changed, 500).Error
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
