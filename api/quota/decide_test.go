package quota

import (
	"testing"
	"time"
)

func TestWhatASenderIsToldDependsOnWhatIsKnown(t *testing.T) {
	day := DayOf(instant(t, "2026-11-22T12:00:00Z"), time.UTC)
	noon := day.Start.Add(12 * time.Hour)
	cases := []struct {
		name    string
		holding Holding
		units   int64
		now     time.Time
		want    Outcome
	}{
		{name: "held", holding: Holding{Limit: 1000, Used: 10, Held: 1}, units: 1, now: noon, want: Granted},
		{name: "held, though the control plane is away", holding: Holding{Limit: 1000, Used: 1000, Held: 5}, units: 5, now: noon, want: Granted},
		{name: "not held, others may hold it", holding: Holding{Limit: 1000, Used: 990, Confirmed: true}, units: 1, now: noon, want: Unavailable},
		{name: "used up", holding: Holding{Limit: 1000, Used: 1000, Confirmed: true}, units: 1, now: noon, want: Reached},
		{name: "too few for this message", holding: Holding{Limit: 1000, Used: 998, Confirmed: true}, units: 3, now: noon, want: Reached},
		{name: "just enough for this message", holding: Holding{Limit: 1000, Used: 998, Confirmed: true}, units: 2, now: noon, want: Unavailable},
		{name: "used up as of an old answer", holding: Holding{Limit: 1000, Used: 1000}, units: 1, now: noon, want: Unavailable},
		{name: "held for a day that is over", holding: Holding{Limit: 1000, Held: 100, Confirmed: true}, units: 1, now: day.End, want: Unavailable},
		{name: "held for a day to come", holding: Holding{Limit: 1000, Held: 100}, units: 1, now: day.Start.Add(-1), want: Unavailable},
		{name: "a limit of nothing", holding: Holding{Confirmed: true}, units: 1, now: noon, want: Reached},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.holding.Day = day
			got := Decide(c.holding, c.units, c.now)
			if got.Outcome != c.want {
				t.Fatalf("got %s, want %s", got.Outcome, c.want)
			}
			if got.Limit != c.holding.Limit || got.Used != c.holding.Used || !got.ResetsAt.Equal(day.End) {
				t.Fatalf("figures %+v", got)
			}
			if got.Remaining != max(got.Limit-got.Used, 0) {
				t.Fatalf("remaining %d of %d with %d used", got.Remaining, got.Limit, got.Used)
			}
		})
	}
}

func TestTheControlPlaneSaysReachedOnlyWhenReportsLeaveTooFew(t *testing.T) {
	cases := []struct {
		name                   string
		limit, used, held, min int64
		want                   Outcome
	}{
		{name: "granted", limit: 1000, used: 100, held: 10, min: 1, want: Granted},
		{name: "nothing needed", limit: 1000, used: 1000, held: 0, min: 0, want: Granted},
		{name: "others hold the rest", limit: 1000, used: 999, held: 0, min: 1, want: Unavailable},
		{name: "used up", limit: 1000, used: 1000, held: 0, min: 1, want: Reached},
		{name: "too few for one message", limit: 1000, used: 995, held: 2, min: 6, want: Reached},
	}
	for _, c := range cases {
		if got := Answer(c.limit, c.used, c.held, c.min); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestUnitsCountMessagesOrRecipients(t *testing.T) {
	if UnitMessage.Cost(7) != 1 || UnitRecipient.Cost(7) != 7 {
		t.Error("wrong cost")
	}
	if UnitMessage.Plural() != "messages" || UnitRecipient.Plural() != "recipients" || Unit("").Plural() != "messages" {
		t.Error("wrong words")
	}
}

func TestAnEdgeStocksUpFarFromTheLimitAndAsksExactlyNearIt(t *testing.T) {
	cases := []struct {
		name   string
		demand Demand
		want   Ask
	}{
		{name: "first message", demand: Demand{Limit: 1000, Message: 1}, want: Ask{Want: 1}},
		{name: "quarter of an hour of the peak", demand: Demand{Limit: 10_000, PeakPerMinute: 20, RelayedLately: true}, want: Ask{Want: 500}},
		{name: "peak above the reserve", demand: Demand{Limit: 10_000, PeakPerMinute: 60, RelayedLately: true}, want: Ask{Want: 900}},
		{name: "reserve of one in twenty", demand: Demand{Limit: 1000, RelayedLately: true}, want: Ask{Want: 50}},
		{name: "all reserves together at most half", demand: Demand{Limit: 1000, RelayedLately: true, Edges: 40}, want: Ask{Want: 12}},
		{name: "never more than the limit", demand: Demand{Limit: 100, PeakPerMinute: 1 << 62}, want: Ask{Want: 100}},
		{name: "idle", demand: Demand{Limit: 1000}, want: Ask{}},
		{name: "a message larger than the limit", demand: Demand{Limit: 5, Message: 9}, want: Ask{Want: 9}},
		{name: "near, idle: give back", demand: Demand{Limit: 1000, Held: 30, PeakPerMinute: 9, RelayedLately: true, NearLimit: true}, want: Ask{Return: 30}},
		{name: "near, message covered", demand: Demand{Limit: 1000, Held: 30, Message: 4, NearLimit: true}, want: Ask{Want: 4, Return: 26}},
		{name: "near, message not covered", demand: Demand{Limit: 1000, Held: 3, Message: 4, NearLimit: true}, want: Ask{Want: 4, AtLeast: 4, Return: 3}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := c.demand.Ask(); got != c.want {
				t.Fatalf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
