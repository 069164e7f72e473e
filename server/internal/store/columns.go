package store

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"
)

// Strings is a list kept as JSON in one TEXT column. Nil and empty are both kept as "[]" and come back empty.
type Strings []string

// Value encodes the list.
func (s Strings) Value() (driver.Value, error) {
	if s == nil {
		return "[]", nil
	}
	text, err := json.Marshal([]string(s))
	return string(text), err
}

// Scan decodes the list.
func (s *Strings) Scan(value any) error {
	var text []byte
	switch v := value.(type) {
	case string:
		text = []byte(v)
	case []byte:
		text = v
	default:
		return fmt.Errorf("list column holds %T", value)
	}
	list := []string{}
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("list column: %w", err)
	}
	*s = list
	return nil
}

// GormDataType tells gorm that this is one text column.
func (Strings) GormDataType() string { return "text" }

// The values of an administrative status.
const (
	StatusActive    = "active"
	StatusSuspended = "suspended"
)

// Administrative is whether the provider or partner lets an object relay, apart from abuse.
type Administrative struct {
	Status       string
	StatusReason string
	// StatusSince is when Status last changed.
	StatusSince time.Time
}

// Suspend and Resume change the status; they report whether it changed.
func (a *Administrative) Suspend(reason string, now time.Time) bool {
	changed := a.Status != StatusSuspended
	if changed {
		a.StatusSince = now
	}
	a.Status, a.StatusReason, changed = StatusSuspended, reason, changed || a.StatusReason != reason
	return changed
}

// Resume lifts a suspension; it reports whether there was one.
func (a *Administrative) Resume(now time.Time) bool {
	if a.Status == StatusActive {
		return false
	}
	*a = Administrative{Status: StatusActive, StatusSince: now}
	return true
}

// The values of a relaying state and of what caused it.
const (
	RelayingEnabled  = "enabled"
	RelayingDisabled = "disabled"

	CauseComplaints = "complaints"
	CauseOperator   = "operator"
	CausePartner    = "partner"
)

// Relaying is whether relaying is disabled because of abuse.
type Relaying struct {
	State  string
	Reason string
	// Cause is what disabled it; empty while enabled.
	Cause string
	// Since is when it was disabled; nil while enabled.
	Since *time.Time
	// ClearedAt is when it was last enabled again: complaints before it no longer count. Nil means never.
	ClearedAt *time.Time
}

// Disable disables relaying; it reports whether anything changed.
func (r *Relaying) Disable(cause, reason string, now time.Time) bool {
	if r.State == RelayingDisabled && r.Cause == cause && r.Reason == reason {
		return false
	}
	if r.State != RelayingDisabled {
		r.Since = &now
	}
	r.State, r.Cause, r.Reason = RelayingDisabled, cause, reason
	return true
}

// Enable enables relaying again and clears the complaints up to now. That changes something even where it was enabled.
func (r *Relaying) Enable(now time.Time) bool {
	*r = Relaying{State: RelayingEnabled, ClearedAt: &now}
	return true
}

// Active is the status of a new object.
func Active(now time.Time) Administrative {
	return Administrative{Status: StatusActive, StatusSince: now}
}

// Enabled is the relaying of a new object.
func Enabled() Relaying { return Relaying{State: RelayingEnabled} }
