package quota

import (
	"math"
	"time"
)

// The platform's defaults: a domain relays max(1000, users × 50) a day.
const (
	DefaultFloor   = 1000
	DefaultPerUser = 50
)

// Limit is the daily limit that follows from the licensed users: floor, or
// perUser for each of them where that is more. Negative figures count as 0.
func Limit(licensedUsers, floor, perUser int64) int64 {
	users, per := max(licensedUsers, 0), max(perUser, 0)
	if per != 0 && users > math.MaxInt64/per {
		return math.MaxInt64
	}
	return max(floor, users*per, 0)
}

// Override is another limit for a while.
type Override struct {
	Limit int64
	// ExpiresAt is the first instant at which it no longer applies.
	ExpiresAt time.Time
}

// LimitAt is the computed limit at an instant: the override while it lasts,
// else what follows from the users. A nil override is none.
func LimitAt(fromUsers int64, override *Override, now time.Time) int64 {
	if override != nil && now.Before(override.ExpiresAt) {
		return max(override.Limit, 0)
	}
	return fromUsers
}

// Standing is what stands written for one day.
type Standing struct {
	// Limit is the limit that was in force so far.
	Limit int64
	// Granted is Σ granted over all edges.
	Granted int64
}

// InForce is the limit in force from now on, given what the rules compute now.
// A rise counts at once and a fall from the next day. A day that has not begun
// follows every change until its first unit is granted, because from then on
// somebody may have acted on it.
func (s Standing) InForce(computed int64, day Day, now time.Time) int64 {
	if now.Before(day.Start) && s.Granted == 0 {
		return computed
	}
	return max(s.Limit, computed)
}

// Level is how near to the limit a domain is, for the notices to its contacts.
type Level string

// The levels, each with one notice a day at the most.
const (
	LevelQuiet   Level = ""
	LevelWarning Level = "quota-warning"
	LevelReached Level = "quota-reached"
)

// LevelOf says which notice is due. warnPercent 0 means no warning. A limit of
// 0 is reached from the start.
func LevelOf(limit, used, warnPercent int64) Level {
	switch {
	case used >= limit:
		return LevelReached
	case warnPercent > 0 && Percent(limit, used) >= warnPercent:
		return LevelWarning
	}
	return LevelQuiet
}

// Percent is used of limit, rounded down; over the limit it is more than 100.
// Of a limit of 0 everything is used.
func Percent(limit, used int64) int64 {
	if limit <= 0 {
		return 100
	}
	if used > math.MaxInt64/100 {
		return used / max(limit/100, 1)
	}
	return used * 100 / limit
}
