// Package quota is the arithmetic of the daily relay limit: how large it is,
// from which instant to which a day lasts, how units are lent to edges, and
// what a sender is told.
//
// It sits beside the wire types because the meaning of "1000 a day, from this
// instant to that" is contract. If the control plane and an edge rounded a day
// differently, a customer would see a report that disagrees with a refusal.
//
// # Days
//
// A [Day] is a half-open span of instants, and is known by the instant at which
// it starts. The days of a zone tile time: each starts where the one before it
// ended, whatever the zone does at midnight. Counters are keyed by the start, so
// nothing has to be reset at midnight and nothing can fail to be.
//
// # Leases
//
// For each domain, day and edge there are three counters that only grow:
// granted, spent and returned ([Counters]). Both sides of a call keep the larger
// value of each, so lost, repeated and late messages change nothing that was not
// already true. The control plane grants only while the sum of granted less
// returned stays within the limit ([Grantable]), and an edge spends only what it
// holds. So the sum spent never exceeds the limit:
//
//	Σ spent ≤ Σ (granted − returned) ≤ limit
//
// The package reads no clock and keeps no state: both come in as arguments.
package quota
