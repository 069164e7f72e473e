package quota

import (
	"math"
	"testing"
	"time"
)

func TestTheLimitIsAThousandOrFiftyForEachUser(t *testing.T) {
	cases := []struct {
		name                  string
		users, floor, perUser int64
		want                  int64
	}{
		{name: "no users", users: 0, floor: DefaultFloor, perUser: DefaultPerUser, want: 1000},
		{name: "the floor still", users: 20, floor: DefaultFloor, perUser: DefaultPerUser, want: 1000},
		{name: "just over the floor", users: 21, floor: DefaultFloor, perUser: DefaultPerUser, want: 1050},
		{name: "many users", users: 40_000, floor: DefaultFloor, perUser: DefaultPerUser, want: 2_000_000},
		{name: "other settings", users: 10, floor: 5, perUser: 3, want: 30},
		{name: "no floor, no users", users: 0, floor: 0, perUser: 50, want: 0},
		{name: "nothing for each user", users: 10, floor: 7, perUser: 0, want: 7},
		{name: "negative figures", users: -5, floor: -1, perUser: -2, want: 0},
		{name: "too large to multiply", users: math.MaxInt64, floor: 1, perUser: 2, want: math.MaxInt64},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := Limit(c.users, c.floor, c.perUser); got != c.want {
				t.Fatalf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestAnOverrideHoldsUntilItExpires(t *testing.T) {
	expires := instant(t, "2026-12-01T00:00:00Z")
	override := &Override{Limit: 5, ExpiresAt: expires}
	if got := LimitAt(1000, override, expires.Add(-1)); got != 5 {
		t.Errorf("before its end: %d", got)
	}
	if got := LimitAt(1000, override, expires); got != 1000 {
		t.Errorf("at its end: %d", got)
	}
	if got := LimitAt(1000, nil, expires); got != 1000 {
		t.Errorf("without one: %d", got)
	}
}

func TestARiseCountsAtOnceAndAFallFromTheNextDay(t *testing.T) {
	day := DayOf(instant(t, "2026-11-22T12:00:00Z"), time.UTC)
	evening, morning := day.Start.Add(-time.Hour), day.Start.Add(time.Hour)
	cases := []struct {
		name     string
		standing Standing
		computed int64
		now      time.Time
		want     int64
	}{
		{name: "rise", standing: Standing{Limit: 1000, Granted: 10}, computed: 2000, now: morning, want: 2000},
		{name: "fall", standing: Standing{Limit: 1000, Granted: 10}, computed: 500, now: morning, want: 1000},
		{name: "fall before any unit", standing: Standing{Limit: 1000}, computed: 500, now: morning, want: 1000},
		{name: "fall before the day begins", standing: Standing{Limit: 1000}, computed: 500, now: evening, want: 500},
		{name: "fall before the day begins, but units are out", standing: Standing{Limit: 1000, Granted: 1}, computed: 500, now: evening, want: 1000},
		{name: "rise before the day begins", standing: Standing{Limit: 1000, Granted: 1}, computed: 1500, now: evening, want: 1500},
		{name: "at the first instant", standing: Standing{Limit: 1000}, computed: 500, now: day.Start, want: 1000},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := c.standing.InForce(c.computed, day, c.now); got != c.want {
				t.Fatalf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestNoticesAreDueAtEightyPercentAndAtTheLimit(t *testing.T) {
	cases := []struct {
		limit, used, warn int64
		want              Level
		percent           int64
	}{
		{limit: 1000, used: 0, warn: 80, want: LevelQuiet, percent: 0},
		{limit: 1000, used: 799, warn: 80, want: LevelQuiet, percent: 79},
		{limit: 1000, used: 800, warn: 80, want: LevelWarning, percent: 80},
		{limit: 1000, used: 999, warn: 80, want: LevelWarning, percent: 99},
		{limit: 1000, used: 1000, warn: 80, want: LevelReached, percent: 100},
		{limit: 1000, used: 999, warn: 0, want: LevelQuiet, percent: 99},
		{limit: 3, used: 2, warn: 80, want: LevelQuiet, percent: 66},
		{limit: 0, used: 0, warn: 80, want: LevelReached, percent: 100},
		{limit: math.MaxInt64, used: math.MaxInt64 / 10 * 9, warn: 80, want: LevelWarning, percent: 90},
	}
	for _, c := range cases {
		if got := LevelOf(c.limit, c.used, c.warn); got != c.want {
			t.Errorf("%d of %d, warned at %d: %q, want %q", c.used, c.limit, c.warn, got, c.want)
		}
		if got := Percent(c.limit, c.used); got != c.percent {
			t.Errorf("%d of %d: %d percent, want %d", c.used, c.limit, got, c.percent)
		}
	}
}
