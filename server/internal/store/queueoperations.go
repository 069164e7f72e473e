package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// QueueOperation is what an operator or a partner wants done to what waits.
type QueueOperation struct {
	ID string `gorm:"primaryKey"`
	// Action is "retry", "hold", "release" or "cancel".
	Action string
	// Partner is whose mail it is about; empty means everybody's, so only the operator sees it.
	Partner     string
	Domain      string
	Destination string
	// Sender is the envelope sender, "<>" for the null one.
	Sender     string
	MessageIDs Strings
	Reason     string
	// Matched is how many messages fitted when it was asked for.
	Matched   int64
	CreatedAt time.Time
}

// queueOperationEdge is what one edge was told by an operation.
type queueOperationEdge struct {
	Operation      string `gorm:"primaryKey"`
	Edge           string `gorm:"primaryKey"`
	Number         int64
	Messages       int64
	Recipients     int64
	AcknowledgedAt *time.Time
	DoneAt         *time.Time
	// Unable: the edge does not understand the operation. It changed nothing.
	Unable bool
}

func (queueOperationEdge) TableName() string { return "queue_operation_edges" }

// QueueInstruction is the body of an instruction of the kinds "queue-<action>".
type QueueInstruction struct {
	OperationID string   `json:"operation_id"`
	MessageIDs  []string `json:"message_ids,omitempty"`
	Partner     string   `json:"partner,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Destination string   `json:"destination,omitempty"`
	Sender      string   `json:"sender,omitempty"`
	Reason      string   `json:"reason,omitempty"`
}

// queueInstructions begin the kinds of instructions that act on the queue.
const queueInstructions = "queue-"

// filter is what an operation is about.
func (op *QueueOperation) filter() QueueFilter {
	f := QueueFilter{Partner: op.Partner, Domain: op.Domain, Destination: op.Destination, Sender: op.Sender, MessageIDs: op.MessageIDs}
	if f.Sender == "<>" {
		f.Sender, f.NullSender = "", true
	}
	return f
}

// OperateQueue keeps an operation and instructs the edges. An operation about named messages goes to the edges that hold them,
// ErrNotFound where none does. One about whatever fits goes to every edge that may hold such mail: the newest of it is known
// to the edges alone.
func (tx *Tx) OperateQueue(op *QueueOperation) error {
	op.CreatedAt = tx.Now
	var err error
	if op.Matched, err = tx.CountQueued(op.filter()); err != nil {
		return err
	}
	if len(op.MessageIDs) > 0 && op.Matched == 0 {
		return ErrNotFound
	}
	edges, err := tx.edgesFor(op)
	if err != nil {
		return err
	}
	if err := tx.db.Create(op).Error; err != nil {
		return err
	}
	body, err := json.Marshal(QueueInstruction{
		OperationID: op.ID, MessageIDs: op.MessageIDs, Partner: op.Partner, Domain: op.Domain, Destination: op.Destination,
		Sender: op.Sender, Reason: op.Reason,
	})
	if err != nil {
		return fmt.Errorf("encode queue instruction: %w", err)
	}
	system := tx.As(System())
	for _, id := range edges {
		edge, err := system.LockEdge(id)
		switch {
		case errors.Is(err, ErrNotFound) || err == nil && edge.Status != EdgeActive:
			continue
		case err != nil:
			return err
		}
		if err := system.instruct(&edge, queueInstructions+op.Action, string(body)); err != nil {
			return err
		}
		told := queueOperationEdge{Operation: op.ID, Edge: id, Number: edge.InstructionNumber}
		if err := tx.db.Create(&told).Error; err != nil {
			return err
		}
	}
	return nil
}

// edgesFor are the edges that an operation is for, in the order in which they are locked.
func (tx *Tx) edgesFor(op *QueueOperation) ([]string, error) {
	if len(op.MessageIDs) > 0 {
		return tx.edgesWith(op.filter())
	}
	var rows []Edge
	if err := tx.As(System()).edges().Where("status = ?", EdgeActive).Order("id").Find(&rows).Error; err != nil {
		return nil, err
	}
	var ids []string
	for _, row := range rows {
		if op.Partner == "" || row.serves(op.Partner) {
			ids = append(ids, row.ID)
		}
	}
	return ids, nil
}

// QueueProgress is what the edges made of an operation.
type QueueProgress struct {
	// Edges were told; Acknowledged of them have dealt with it; of Done the outcome is known, which is that they changed
	// nothing with the Unable: those do not understand it.
	Edges, Acknowledged, Done, Unable int64
	// Messages and Recipients were changed by those that have told.
	Messages, Recipients int64
	// FinishedAt is when the last edge told; nil before. Where no edge was told of the operation, it is when it was asked for.
	FinishedAt *time.Time
}

// QueueOperation returns one operation and what became of it.
func (tx *Tx) QueueOperation(id string) (QueueOperation, QueueProgress, error) {
	var op QueueOperation
	var progress QueueProgress
	if err := tx.scoped(tx.db, "partner", "").Where("id = ?", id).Take(&op).Error; err != nil {
		return op, progress, err
	}
	var told []queueOperationEdge
	err := tx.db.Where("operation = ?", id).Order("edge").Find(&told).Error
	progress.Edges = int64(len(told))
	for _, edge := range told {
		progress.Messages += edge.Messages
		progress.Recipients += edge.Recipients
		if edge.AcknowledgedAt != nil {
			progress.Acknowledged++
		}
		if edge.DoneAt != nil {
			progress.Done++
			if progress.FinishedAt == nil || edge.DoneAt.After(*progress.FinishedAt) {
				progress.FinishedAt = edge.DoneAt
			}
		}
		if edge.Unable {
			progress.Unable++
		}
	}
	switch {
	case progress.Done < progress.Edges:
		progress.FinishedAt = nil
	case progress.Edges == 0: // no edge may hold such mail, so there was nothing to do
		progress.FinishedAt = &op.CreatedAt
	}
	return op, progress, err
}

// acknowledgeQueueOperations notes which of the queue operations an edge has dealt with, up to the number of an instruction. With
// those an edge that knows no operations is done; should it turn out to know them, what it tells takes the place of this.
func (tx *Tx) acknowledgeQueueOperations(edge string, number int64, operates bool) error {
	err := tx.db.Model(&queueOperationEdge{}).Where("edge = ? AND number <= ? AND acknowledged_at IS NULL", edge, number).
		UpdateColumns(map[string]any{"acknowledged_at": tx.Now}).Error
	if err != nil || operates {
		return err
	}
	return tx.db.Model(&queueOperationEdge{}).Where("edge = ? AND number <= ? AND done_at IS NULL", edge, number).
		UpdateColumns(map[string]any{"done_at": tx.Now, "unable": true}).Error
}

// finishQueueOperation notes what an edge tells of an operation, be it that it cannot carry it out; again, the same.
func (tx *Tx) finishQueueOperation(edge string, e *Event) error {
	return tx.db.Model(&queueOperationEdge{}).Where("operation = ? AND edge = ?", e.Ref, edge).UpdateColumns(map[string]any{
		"messages": e.Messages, "recipients": e.Recipients, "done_at": tx.Now, "unable": e.Kind == EventInstructionUnknown,
	}).Error
}

// leaveQueue forgets what an edge that is retired had in its queue: nobody will tell what becomes of it.
func (tx *Tx) leaveQueue(edge string) error {
	if err := tx.db.Where("edge = ?", edge).Delete(&QueuedMessage{}).Error; err != nil {
		return err
	}
	return tx.db.Model(&queueOperationEdge{}).Where("edge = ? AND done_at IS NULL", edge).
		UpdateColumns(map[string]any{"done_at": tx.Now}).Error
}

// DeleteQueueOperations forgets the operations that were asked for before an instant, and returns how many.
func (tx *Tx) DeleteQueueOperations(before time.Time) (int64, error) {
	var ids []string
	if err := tx.db.Model(&QueueOperation{}).Where("created_at < ?", before).Pluck("id", &ids).Error; err != nil || len(ids) == 0 {
		return 0, err
	}
	for some := range slices.Chunk(ids, 1000) {
		if err := tx.db.Where("operation IN ?", some).Delete(&queueOperationEdge{}).Error; err != nil {
			return 0, err
		}
		if err := tx.db.Where("id IN ?", some).Delete(&QueueOperation{}).Error; err != nil {
			return 0, err
		}
	}
	return int64(len(ids)), nil
}
