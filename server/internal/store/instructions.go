package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm/clause"
)

// Instruction is something one edge is to do, until it says that it did.
type Instruction struct {
	Edge   string `gorm:"primaryKey"`
	Number int64  `gorm:"primaryKey"`
	Kind   string
	// Body is JSON that depends on the kind.
	Body      string
	CreatedAt time.Time
}

// InstructionSendNotice is the kind whose body is a Notice's mail.
const InstructionSendNotice = "send-notice"

// Notice is a mail to the contacts of a domain; each kind goes out once a day.
type Notice struct {
	ID       string `gorm:"primaryKey"`
	Domain   string
	DayStart time.Time
	// Kind is "quota-warning" or "quota-reached".
	Kind string
	// Edge is the one that was told to send it.
	Edge      string
	CreatedAt time.Time
}

// Instructions returns at most limit instructions of the tenant's edge that it has not acknowledged, in order.
func (tx *Tx) Instructions(limit int) ([]Instruction, error) {
	var rows []Instruction
	err := tx.db.Where("edge = ?", tx.Tenant.Edge).Order("number").Limit(limit).Find(&rows).Error
	return rows, err
}

// InstructionsGiven is how many instructions all edges were given; a change says that there is one to look for.
func (tx *Tx) InstructionsGiven() (given int64, err error) {
	err = tx.db.Raw("SELECT CAST(COALESCE(SUM(instruction_number), 0) AS BIGINT) FROM edges").Row().Scan(&given)
	return given, err
}

// AcknowledgeInstructions forgets the instructions of the tenant's edge up to a number. One that the edge has carried out
// and that is unknown here was given out by a database that was restored since: the next ones are numbered after it, because
// the edge ignores those before. Operates says whether the edge knows operations on the queue: one that does not has passed
// over them, and will tell nothing of them.
func (tx *Tx) AcknowledgeInstructions(number int64, operates bool) error {
	row, err := tx.LockEdge(tx.Tenant.Edge)
	if err != nil {
		return err
	}
	number = min(number, maxCounter)
	if number <= row.InstructionAcknowledged {
		return nil
	}
	if err := tx.db.Where("edge = ? AND number <= ?", row.ID, number).Delete(&Instruction{}).Error; err != nil {
		return err
	}
	if err := tx.acknowledgeQueueOperations(row.ID, number, operates); err != nil {
		return err
	}
	row.InstructionAcknowledged, row.InstructionNumber = number, max(number, row.InstructionNumber)
	return tx.updateEdge(&row, "instruction_acknowledged", "instruction_number")
}

// forgetInstructions takes back what an edge that is retired has not carried out. A notice that it was to send is due again: the
// next edge that reports use of the domain is told to.
func (tx *Tx) forgetInstructions(edge string) error {
	var rows []Instruction
	if err := tx.db.Where("edge = ? AND kind = ?", edge, InstructionSendNotice).Find(&rows).Error; err != nil {
		return err
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		var mail NoticeMail
		if err := json.Unmarshal([]byte(row.Body), &mail); err != nil {
			return fmt.Errorf("instruction %d of %s: %w", row.Number, edge, err)
		}
		ids[i] = mail.ID
	}
	for some := range slices.Chunk(ids, 1000) {
		if err := tx.db.Where("id IN ?", some).Delete(&Notice{}).Error; err != nil {
			return err
		}
	}
	return tx.db.Where("edge = ?", edge).Delete(&Instruction{}).Error
}

// instruct gives an edge that LockEdge returned its next instruction.
func (tx *Tx) instruct(row *Edge, kind, body string) error {
	row.InstructionNumber++
	if err := tx.updateEdge(row, "instruction_number"); err != nil {
		return err
	}
	return tx.db.Create(&Instruction{Edge: row.ID, Number: row.InstructionNumber, Kind: kind, Body: body, CreatedAt: tx.Now}).Error
}

// insertNotice reports whether the notice is the first of its kind on its day.
func (tx *Tx) insertNotice(row *Notice) (bool, error) {
	row.CreatedAt = tx.Now
	result := tx.db.Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "domain"}, {Name: "day_start"}, {Name: "kind"}}, DoNothing: true,
	}).Create(row)
	return result.RowsAffected == 1, result.Error
}
