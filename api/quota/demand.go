package quota

import "math"

// How an edge stocks itself.
const (
	// stockMinutes of its recent peak rate is what an edge aims to hold.
	stockMinutes = 15
	// One reserveFraction-th (5 %) of the limit is kept for every domain that
	// relayed through the edge within a day, so that an outage of the control
	// plane finds it stocked. All reserves together take at most half.
	reserveFraction = 20
)

// Demand is what an edge knows when it sizes an ask for one domain and day.
type Demand struct {
	// Limit in force, in units.
	Limit int64
	// Held is what the edge holds.
	Held int64
	// PeakPerMinute is the most units spent in one recent minute.
	PeakPerMinute int64
	// RelayedLately: the domain relayed through this edge in the last 24 hours.
	RelayedLately bool
	// Edges share the limit. 0 counts as 1.
	Edges int64
	// Message is what the message that waits needs, in units. 0 means that none
	// waits.
	Message int64
	// NearLimit: the last answer gave less than was wanted, or the control
	// plane recalled units. It holds until the day ends or the limit rises.
	NearLimit bool
}

// Ask sizes the next call. Far from the limit the edge stocks up. Near it the
// edge asks for exactly the units of one message, all or nothing, and gives
// back what it holds: fragments left lying on many edges would be units that
// nobody can use.
func (d Demand) Ask() Ask {
	if !d.NearLimit {
		return Ask{Want: min(max(d.stock(), d.reserve(), d.Message), max(d.Limit, d.Message))}
	}
	if d.Message <= d.Held {
		return Ask{Want: d.Message, Return: max(d.Held-d.Message, 0)}
	}
	return Ask{Want: d.Message, AtLeast: d.Message, Return: max(d.Held, 0)}
}

func (d Demand) stock() int64 {
	if d.PeakPerMinute > math.MaxInt64/stockMinutes {
		return d.Limit
	}
	return d.PeakPerMinute * stockMinutes
}

func (d Demand) reserve() int64 {
	if !d.RelayedLately || d.Limit <= 0 {
		return 0
	}
	return min(d.Limit/reserveFraction, d.Limit/2/max(d.Edges, 1))
}
