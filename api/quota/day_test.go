package quota

import (
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestADayStartsAtTheFirstInstantOfItsDate(t *testing.T) {
	cases := []struct {
		name, zone, now, start, end string
		hours                       time.Duration
	}{
		{name: "UTC", zone: "UTC", now: "2026-11-22T09:00:00Z", start: "2026-11-22T00:00:00Z", end: "2026-11-23T00:00:00Z", hours: 24},
		{name: "Berlin in winter", zone: "Europe/Berlin", now: "2026-11-22T23:30:00Z", start: "2026-11-23T00:00:00+01:00", end: "2026-11-24T00:00:00+01:00", hours: 24},
		{name: "Berlin, 23 hours", zone: "Europe/Berlin", now: "2026-03-29T12:00:00Z", start: "2026-03-29T00:00:00+01:00", end: "2026-03-30T00:00:00+02:00", hours: 23},
		{name: "Berlin, 25 hours", zone: "Europe/Berlin", now: "2026-10-25T12:00:00Z", start: "2026-10-25T00:00:00+02:00", end: "2026-10-26T00:00:00+01:00", hours: 25},
		{name: "Havana without a midnight", zone: "America/Havana", now: "2026-03-08T12:00:00Z", start: "2026-03-08T01:00:00-04:00", end: "2026-03-09T00:00:00-04:00", hours: 23},
		{name: "Havana, the day before", zone: "America/Havana", now: "2026-03-08T04:59:59Z", start: "2026-03-07T00:00:00-05:00", end: "2026-03-08T01:00:00-04:00", hours: 24},
		{name: "Havana, midnight twice", zone: "America/Havana", now: "2026-11-01T05:30:00Z", start: "2026-11-01T00:00:00-04:00", end: "2026-11-02T00:00:00-05:00", hours: 25},
		{name: "Santiago without a midnight", zone: "America/Santiago", now: "2026-09-06T12:00:00Z", start: "2026-09-06T01:00:00-03:00", end: "2026-09-07T00:00:00-03:00", hours: 23},
		{name: "Santiago, back before midnight", zone: "America/Santiago", now: "2026-04-05T03:30:00Z", start: "2026-04-04T00:00:00-03:00", end: "2026-04-05T00:00:00-04:00", hours: 25},
		{name: "Lord Howe, half an hour", zone: "Australia/Lord_Howe", now: "2026-10-04T00:00:00Z", start: "2026-10-04T00:00:00+10:30", end: "2026-10-05T00:00:00+11:00", hours: 0},
		{name: "Apia leaves a date out", zone: "Pacific/Apia", now: "2011-12-30T09:59:59Z", start: "2011-12-29T00:00:00-10:00", end: "2011-12-31T00:00:00+14:00", hours: 24},
		// Clocks went from 00:01 back to 23:01: what had begun stays begun.
		{name: "St John's enters a date twice", zone: "America/St_Johns", now: "2006-10-29T03:00:00Z", start: "2006-10-29T00:00:00-02:30", end: "2006-10-30T00:00:00-03:30", hours: 25},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			day := DayOf(instant(t, c.now), zone(t, c.zone))
			if got := day.Start.Format(time.RFC3339); got != c.start {
				t.Errorf("starts %s, want %s", got, c.start)
			}
			if got := day.End.Format(time.RFC3339); got != c.end {
				t.Errorf("ends %s, want %s", got, c.end)
			}
			if length := day.End.Sub(day.Start); c.hours != 0 && length != c.hours*time.Hour {
				t.Errorf("lasts %s, want %d hours", length, c.hours)
			}
			if !day.Contains(instant(t, c.now)) || day.Contains(day.End) {
				t.Error("does not contain its instants, or contains its end")
			}
		})
	}
}

func zoneNames(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadFile("testdata/zones.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(list))
}

// TestDaysTileTimeInEveryZone walks the days round every change of every zone
// of the time zone database from 1970 to 2040.
func TestDaysTileTimeInEveryZone(t *testing.T) {
	from, to := instant(t, "1970-01-05T00:00:00Z"), instant(t, "2040-01-01T00:00:00Z")
	names := zoneNames(t)
	if len(names) < 400 {
		t.Fatalf("only %d zones", len(names))
	}
	days := 0
	for _, name := range names {
		loc := zone(t, name)
		for at := from; at.Before(to); {
			days += checkTiles(t, at.Add(-49*time.Hour), 5, loc)
			_, change := at.In(loc).ZoneBounds()
			if change.IsZero() {
				break
			}
			at = change
		}
	}
	t.Logf("%d days in %d zones", days, len(names))
}

// checkTiles checks count days from the one that contains start.
func checkTiles(t *testing.T, start time.Time, count int, loc *time.Location) int {
	t.Helper()
	day := DayOf(start, loc)
	for range count {
		checkDay(t, day, loc)
		next := DayOf(day.End, loc)
		if !next.Start.Equal(day.End) {
			t.Fatalf("%s: the day from %s ends at %s, the next starts at %s", loc, day.Start, day.End, next.Start)
		}
		if after := NextDay(day, loc); after != next {
			t.Fatalf("%s: after the day to %s comes %v by one rule and %v by the other", loc, day.End, after, next)
		}
		day = next
	}
	return count
}

func checkDay(t *testing.T, day Day, loc *time.Location) {
	t.Helper()
	for _, inside := range []time.Time{day.Start, day.Start.Add(day.End.Sub(day.Start) / 2), day.End.Add(-1)} {
		if again := DayOf(inside, loc); again != day {
			t.Fatalf("%s: %s is in the day %v, but that day says %v", loc, inside, day, again)
		}
	}
	if length := day.End.Sub(day.Start); length < minDay || length > 49*time.Hour {
		t.Fatalf("%s: the day from %s lasts %s", loc, day.Start, length)
	}
	year, month, date := day.Date(loc)
	y, m, d := day.Start.Date()
	if labelled, started := time.Date(year, month, date, 0, 0, 0, 0, time.UTC), time.Date(y, m, d, 0, 0, 0, 0, time.UTC); !labelled.Equal(started) {
		t.Fatalf("%s: the day from %s is called %s", loc, day.Start, labelled)
	}
}

// TestDaysAgreeWithAClockReadMinuteByMinute is the oracle: a day starts when a
// clock first shows its date, found by looking at the clock each minute.
func TestDaysAgreeWithAClockReadMinuteByMinute(t *testing.T) {
	for _, c := range []struct{ zone, from, to string }{
		{zone: "America/Havana", from: "2026-03-06T00:00:00Z", to: "2026-03-11T00:00:00Z"},
		{zone: "America/Havana", from: "2026-10-30T00:00:00Z", to: "2026-11-04T00:00:00Z"},
		{zone: "America/Santiago", from: "2026-09-04T00:00:00Z", to: "2026-09-09T00:00:00Z"},
		{zone: "America/Santiago", from: "2026-04-02T00:00:00Z", to: "2026-04-08T00:00:00Z"},
		{zone: "America/St_Johns", from: "2006-10-27T00:00:00Z", to: "2006-11-01T00:00:00Z"},
		{zone: "America/St_Johns", from: "2006-04-01T00:00:00Z", to: "2006-04-05T00:00:00Z"},
		{zone: "Pacific/Apia", from: "2011-12-27T00:00:00Z", to: "2012-01-02T00:00:00Z"},
		{zone: "Pacific/Kwajalein", from: "1993-08-18T00:00:00Z", to: "1993-08-24T00:00:00Z"},
		{zone: "Africa/Monrovia", from: "1972-01-05T00:00:00Z", to: "1972-01-09T00:00:00Z"},
	} {
		loc := zone(t, c.zone)
		latest, start := "", time.Time{}
		for at := instant(t, c.from); at.Before(instant(t, c.to)); at = at.Add(time.Minute) {
			if date := at.In(loc).Format(time.DateOnly); date > latest {
				if latest == "" {
					latest = date
					continue
				}
				latest, start = date, at
			}
			if start.IsZero() {
				continue
			}
			// A zone change off the minute is seen up to a minute late.
			if got := DayOf(at, loc).Start; got.After(start) || start.Sub(got) >= time.Minute {
				t.Fatalf("%s: at %s the day started %s, the clock says %s", c.zone, at, got, start)
			}
		}
		if start.IsZero() {
			t.Fatalf("%s: no day starts in the span", c.zone)
		}
	}
}

func TestAZoneChangeWaitsForTheEndOfTheDay(t *testing.T) {
	cases := []struct {
		name, now, from, to string
		wantStart, wantEnd  string
	}{
		{
			name: "eastwards, midnight too near", now: "2026-11-22T12:00:00Z", from: "America/New_York", to: "Europe/Berlin",
			// New York's day ends 06:00 in Berlin; Berlin's next midnight is 18 h away.
			wantStart: "2026-11-23T06:00:00+01:00", wantEnd: "2026-11-24T00:00:00+01:00",
		},
		{
			name: "westwards", now: "2026-11-22T12:00:00Z", from: "Europe/Berlin", to: "America/New_York",
			// Berlin's day ends 18:00 in New York; the midnight 6 h away is skipped.
			wantStart: "2026-11-22T18:00:00-05:00", wantEnd: "2026-11-24T00:00:00-05:00",
		},
		{
			name: "exactly twelve hours", now: "2026-11-22T12:00:00Z", from: "UTC", to: "Etc/GMT-12",
			wantStart: "2026-11-23T12:00:00+12:00", wantEnd: "2026-11-24T00:00:00+12:00",
		},
		{
			name: "no change", now: "2026-11-22T12:00:00Z", from: "Europe/Berlin", to: "Europe/Berlin",
			wantStart: "2026-11-23T00:00:00+01:00", wantEnd: "2026-11-24T00:00:00+01:00",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			running := DayOf(instant(t, c.now), zone(t, c.from))
			to := zone(t, c.to)
			if got := Advance(running, instant(t, c.now), to); got != running {
				t.Fatalf("the running day changed to %v", got)
			}
			next := Advance(running, running.End, to)
			if got := next.Start.Format(time.RFC3339); got != c.wantStart {
				t.Errorf("starts %s, want %s", got, c.wantStart)
			}
			if got := next.End.Format(time.RFC3339); got != c.wantEnd {
				t.Errorf("ends %s, want %s", got, c.wantEnd)
			}
		})
	}
}

// TestDaysTileTimeThroughZoneChanges: whatever the zones and the instants at
// which somebody looks, each day follows the one before it without gap or
// overlap, and only the day after a change may have an odd length.
func TestDaysTileTimeThroughZoneChanges(t *testing.T) {
	names := zoneNames(t)
	rapid.Check(t, func(r *rapid.T) {
		loc := zone(t, rapid.SampledFrom(names).Draw(r, "zone"))
		now := time.Unix(rapid.Int64Range(0, 2_200_000_000).Draw(r, "start"), 0)
		day := Advance(Day{}, now, loc)
		for range 20 {
			if rapid.Bool().Draw(r, "change zone") {
				loc = zone(t, rapid.SampledFrom(names).Draw(r, "zone"))
			}
			now = day.End.Add(time.Duration(rapid.Int64Range(0, int64(11*time.Hour)).Draw(r, "late")))
			next := Advance(day, now, loc)
			if !next.Start.Equal(day.End) || !next.Contains(now) {
				r.Fatalf("after %v, seen at %s in %s: %v", day, now, loc, next)
			}
			if length := next.End.Sub(next.Start); length < minDay || length > minDay+49*time.Hour {
				r.Fatalf("the day %v lasts %s", next, length)
			}
			if start := DayOf(next.End, loc).Start; !start.Equal(next.End) {
				r.Fatalf("the day %v does not end at a start of a day of %s", next, loc)
			}
			day = next
		}
	})
}

func TestALongSilenceEndsInTheZonesOwnDay(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	old := DayOf(instant(t, "2026-01-01T12:00:00Z"), zone(t, "Asia/Tokyo"))
	now := instant(t, "2026-11-22T12:00:00Z")
	if got, want := Advance(old, now, berlin), DayOf(now, berlin); got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func BenchmarkDayOf(b *testing.B) {
	loc := zone(b, "Europe/Berlin")
	now := time.Unix(1_795_000_000, 0)
	b.ReportAllocs()
	for b.Loop() {
		DayOf(now, loc)
	}
}
