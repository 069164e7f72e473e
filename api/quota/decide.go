package quota

import "time"

// Unit is what is counted.
type Unit string

// The units. Message is the default: the rule counts mails.
const (
	UnitMessage   Unit = "message"
	UnitRecipient Unit = "recipient"
)

// Plural is the word in sentences: "messages" or "recipients".
func (u Unit) Plural() string {
	if u == UnitRecipient {
		return "recipients"
	}
	return "messages"
}

// Cost is what one message costs.
func (u Unit) Cost(recipients int) int64 {
	if u == UnitRecipient {
		return int64(recipients)
	}
	return 1
}

// Outcome answers whether units may be spent.
type Outcome string

// The outcomes.
const (
	// Granted: the edge holds the units and may spend them.
	Granted Outcome = "granted"
	// Reached: the units that all edges reported leave too few.
	Reached Outcome = "reached"
	// Unavailable: nobody knows just now. Never a "limit reached".
	Unavailable Outcome = "unavailable"
)

// Holding is what an edge knows when it must decide about one message.
type Holding struct {
	Day  Day
	Unit Unit
	// Limit in force, in units.
	Limit int64
	// Used is Σ spent over all edges as the control plane last said, and never
	// less than what this edge spent itself.
	Used int64
	// Held is what this edge may spend.
	Held int64
	// Confirmed: Limit and Used come from an answer to a call made for this
	// message. Older figures may miss a rise of the limit.
	Confirmed bool
}

// Decision is the answer, with the figures that a sender is shown.
type Decision struct {
	Outcome   Outcome
	Unit      Unit
	Limit     int64
	Used      int64
	Remaining int64
	ResetsAt  time.Time
}

// Decide says whether n units may be spent now. Units are good only inside
// their day. "Reached" is said only on confirmed figures that leave fewer than
// n; everything else that is not held is "unavailable".
func Decide(h Holding, n int64, now time.Time) Decision {
	d := Decision{
		Outcome: Unavailable, Unit: h.Unit, Limit: h.Limit, Used: h.Used,
		Remaining: max(h.Limit-h.Used, 0), ResetsAt: h.Day.End,
	}
	switch {
	case !h.Day.Contains(now):
	case n <= h.Held:
		d.Outcome = Granted
	case h.Confirmed && n > d.Remaining:
		d.Outcome = Reached
	}
	return d
}

// Answer is the control plane's word on an ask after it granted: held is what
// the edge holds now, n what it needs at the least.
func Answer(limit, used, held, n int64) Outcome {
	switch {
	case held >= n:
		return Granted
	case n > limit-used:
		return Reached
	}
	return Unavailable
}
