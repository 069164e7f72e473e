package store

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"activerelay/api/quota"
)

// NoticeMail is what an edge needs to write a notice, in the form of the contract's Notice.
type NoticeMail struct {
	ID             string    `json:"id"`
	Kind           string    `json:"kind"`
	Domain         string    `json:"domain"`
	To             Strings   `json:"to"`
	From           string    `json:"from"`
	Limit          int64     `json:"limit"`
	Used           int64     `json:"used"`
	Unit           string    `json:"unit"`
	ResetsAt       time.Time `json:"resets_at"`
	SupportContact string    `json:"support_contact,omitempty"`
}

// notify has the reporting edge send the notice that a domain's use makes due. Each kind goes out once a day: the row
// in notices decides, so it does not matter how many edges see the limit pass.
func (l *leasing) notify(c *claim, domain Domain) error {
	if len(domain.Contacts) == 0 {
		return nil
	}
	level := quota.LevelOf(c.day.Limit, c.day.Spent, int64(l.rules.settings.NoticePercent))
	if c.answer == quota.Reached {
		level = quota.LevelReached // the last units may be too few for the message that waits
	}
	if level == quota.LevelQuiet {
		return nil
	}
	id, err := ulid.New(ulid.Timestamp(l.tx.Now), rand.Reader)
	if err != nil {
		return fmt.Errorf("notice id: %w", err)
	}
	notice := Notice{ID: "ntc_" + id.String(), Domain: domain.Name, DayStart: c.day.DayStart, Kind: string(level), Edge: l.edge.ID}
	if first, err := l.tx.insertNotice(&notice); err != nil || !first {
		return err
	}
	body, err := json.Marshal(NoticeMail{
		ID: notice.ID, Kind: notice.Kind, Domain: domain.Name, To: domain.Contacts, From: l.rules.settings.NoticeFrom,
		Limit: c.day.Limit, Used: c.day.Spent, Unit: c.day.Unit, ResetsAt: c.day.DayEnd,
		SupportContact: l.rules.partners[domain.Partner].SupportContact,
	})
	if err != nil {
		return fmt.Errorf("notice to %s: %w", domain.Name, err)
	}
	l.instructed = true
	return l.tx.instruct(l.edge, InstructionSendNotice, string(body))
}
