package quota

// Counters are the life of one lease: one domain, one day, one edge. Each only
// ever grows.
type Counters struct {
	// Granted units were lent to the edge.
	Granted int64
	// Spent units paid for accepted messages.
	Spent int64
	// Returned units were given back unspent and are never spent again.
	Returned int64
}

// Held is what the edge may still spend.
func (c Counters) Held() int64 { return c.Granted - c.Spent - c.Returned }

// Net is what the lease takes of the limit.
func (c Counters) Net() int64 { return c.Granted - c.Returned }

// Merge keeps the larger value of each counter. It is commutative, associative
// and idempotent, which is what makes lost and repeated calls harmless.
func (c Counters) Merge(other Counters) Counters {
	return Counters{
		Granted:  max(c.Granted, other.Granted),
		Spent:    max(c.Spent, other.Spent),
		Returned: max(c.Returned, other.Returned),
	}
}

// Valid reports whether the counters can be those of a lease. An edge's own
// view is always valid; a merge of two views is not when one of them is forged
// or set back.
func (c Counters) Valid() bool {
	return c.Granted >= 0 && c.Spent >= 0 && c.Returned >= 0 && c.Spent <= c.Granted-c.Returned
}

// Behind reports whether any counter of c is smaller than in other: within one
// boot of an edge that proves that its state was set back.
func (c Counters) Behind(other Counters) bool {
	return c.Granted < other.Granted || c.Spent < other.Spent || c.Returned < other.Returned
}

// Ask is what an edge wants of one lease.
type Ask struct {
	// Want is how many unspent units it aims to hold, not how many more: the
	// same ask twice grants nothing twice.
	Want int64
	// AtLeast makes the ask all or nothing: hold this many after the call, or
	// get none. 0 means take what there is.
	AtLeast int64
	// Return is how many held units it gives back in the same call, before
	// anything is granted.
	Return int64
}

// Grantable is how many more units may be lent: want, or what the limit leaves
// over netGranted, the sum of granted less returned over all edges.
func Grantable(limit, netGranted, want int64) int64 {
	return max(min(want, limit-netGranted), 0)
}

// Grant is how many units to lend to an edge that holds held.
func Grant(limit, netGranted, held int64, ask Ask) int64 {
	units := Grantable(limit, netGranted, max(ask.Want, ask.AtLeast)-held)
	if held+units < ask.AtLeast {
		return 0
	}
	return units
}
