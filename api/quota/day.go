package quota

import (
	"time"
	_ "time/tzdata" // zones for machines that have none: both ends must agree on a day
)

// minDay is the shortest day after a change of zone.
const minDay = 12 * time.Hour

// Day is the span from Start up to, and without, End.
type Day struct {
	Start, End time.Time
}

// Contains reports whether t lies in the day.
func (d Day) Contains(t time.Time) bool {
	return !t.Before(d.Start) && t.Before(d.End)
}

// IsZero reports whether d is no day at all.
func (d Day) IsZero() bool { return d.Start.IsZero() && d.End.IsZero() }

// Date is the local date by which people call the day: that of its last
// instant, since a day after a change of zone may start on the date before.
func (d Day) Date(loc *time.Location) (year int, month time.Month, day int) {
	return d.End.Add(-1).In(loc).Date()
}

// DayOf is the day that contains now in a zone. It starts at the first instant
// of its local date. That is not always midnight: Havana 2026-03-08 starts at
// 01:00. Where clocks are set back over midnight a date is left and entered
// again; what has begun stays begun. A date that a zone leaves out has no day.
func DayOf(now time.Time, loc *time.Location) Day {
	year, month, day := now.In(loc).Date()
	start, end := firstInstant(year, month, day, loc), firstInstant(year, month, day+1, loc)
	for !now.Before(end) {
		day++
		start, end = end, firstInstant(year, month, day+1, loc)
	}
	return Day{Start: start, End: end}
}

// NextDay is the day after running in a zone that may be another than the one
// in which running was made. It starts where running ends and lasts to the
// first midnight of the zone that is at least 12 hours away.
func NextDay(running Day, loc *time.Location) Day {
	earliest := running.End.Add(minDay)
	year, month, day := earliest.In(loc).Date()
	end := firstInstant(year, month, day, loc)
	for end.Before(earliest) {
		day++
		end = firstInstant(year, month, day, loc)
	}
	return Day{Start: running.End.In(loc), End: end}
}

// Advance is the day that contains now, given the last known day of the domain
// and the zone that is in force. A running day is kept as it was made; a zero
// one means that nothing is known yet.
func Advance(last Day, now time.Time, loc *time.Location) Day {
	if last.IsZero() {
		return DayOf(now, loc)
	}
	if now.Before(last.End) {
		return last
	}
	// The first day after the last one may be longer or shorter than the
	// zone's; it ends at a midnight, so all later ones are the zone's own.
	if next := NextDay(last, loc); now.Before(next.End) {
		return next
	}
	return DayOf(now, loc)
}

// firstInstant is the first instant whose local date is the given one or a
// later one. Dates overflow as in [time.Date].
func firstInstant(year int, month time.Month, day int, loc *time.Location) time.Time {
	// Seconds that a clock would show at midnight, were its zone UTC.
	midnight := time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix()
	// No zone is, or was, more than 26 hours ahead of UTC.
	segment := time.Unix(midnight, 0).Add(-26 * time.Hour).In(loc)
	for {
		_, offset := segment.Zone()
		first := max(segment.Unix(), midnight-int64(offset))
		_, end := segment.ZoneBounds()
		if end.IsZero() || first < end.Unix() {
			return time.Unix(first, 0).In(loc)
		}
		segment = end
	}
}
