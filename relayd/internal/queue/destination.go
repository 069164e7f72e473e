package queue

import (
	"container/heap"
	"math"
	"strings"
	"time"
)

// DestinationLimit bounds what one destination gets; 0 means the default.
type DestinationLimit struct {
	// Attempts is how many attempts may be under way at once. 0 means
	// Limits.PerDestination. An eighth of what is in force, rounded down, is for
	// sender domains that have none under way.
	Attempts int
	// PerMinute is how many attempts may begin in a minute, evenly spaced. 0
	// means no bound.
	PerMinute int
}

// destination is where attempts go that share a fate: a smarthost with its
// user, or the mail servers of a domain. What it can take is learned from what
// comes of attempts.
//
// The window is how many attempts may be under way, from 1 to the limit. It
// begins at firstWindow. An attempt that reached the server adds the reciprocal
// of the window, so one more after a window full of successes. One that found no
// connection, or was answered 421, halves it, but once for all that were under
// way together: they tell of the same moment. After that it grows slower by
// regrowth, since the server has shown how much it takes.
//
// Where the window has reached the limit, an eighth of it is for customers who have
// nothing under way there. Below the limit nothing is kept: what a server has not
// been seen to take is tried by those who have much mail for it, and they are the
// ones who are put off if it refuses.
//
// deadAfter failures in a row, and the destination is dead: its mail is deferred
// without being tried, for the cause of the last failure, and only one probe at a
// time is made, with a wait that doubles from firstProbe to lastProbe. A probe
// that reaches the server opens the destination, and all that waits for it is
// due.
type destination struct {
	way     way
	lanes   map[*customer]*lane
	parked  turns[*lane] // those that are not empty and could not start
	flying  int
	busy    int // lanes that are not empty
	started uint64

	window   float64
	narrowed uint64  // what was started up to it narrows the window no more
	growth   float64 // for each success, divided by the window
	failures int     // in a row
	died     uint64  // what was started after it is a probe
	probes   int     // in a row that failed
	cause    *Result // of the last failure; nil = none
	opens    int64   // no probe starts before, in nanoseconds of Unix time; 0 = open
	began    int64   // when the last attempt did that counted by the minute
	used     int64   // when it was last heard of
	alarm    int64   // what counts of lanes.alarms; 0 = nothing
	alone    bool    // one at a time, whatever is learned
	spare    bool    // in lanes.spare
}

const (
	firstWindow = 5
	regrowth    = 0.1
	deadAfter   = 5
	firstProbe  = 30 * time.Second
	lastProbe   = 16 * time.Minute
	// memory is for how long what was learned is kept without mail.
	memory = int64(time.Hour)
)

// verdict is what an attempt says about its destination.
type verdict struct {
	kind   verdictKind
	result Result // of a failure
}

type verdictKind uint8

const (
	saysNothing verdictKind = iota
	wasReached
	notReached
)

// judge sees what an attempt says about its destination.
func judge(results []Result) (v verdict) {
	for i := range results {
		r := &results[i]
		switch {
		case r.Class == Delivered, r.Code != 0 && r.Code != 421,
			r.Class == PermFail && r.Host != "": // it was not asked, for what its EHLO said
			return verdict{kind: wasReached}
		case r.Code == 421, strings.HasPrefix(r.Enhanced, "4.4.") && r.Class == TempFail:
			v = verdict{kind: notReached, result: *r}
		}
	}
	return v
}

func (d *destination) dead() bool { return d.failures >= deadAfter }

func (d *destination) empty() bool { return d.flying == 0 && d.busy == 0 }

// remembers reports whether d knows something that a new one would not.
func (d *destination) remembers(now time.Time) bool {
	if d.opens > now.UnixNano() || now.UnixNano()-d.began < int64(time.Minute) {
		return true
	}
	return (d.failures > 0 || d.growth < 1) && now.UnixNano()-d.used < memory
}

func (l *lanes) destination(w way) *destination {
	d := l.destinations[w]
	if d == nil {
		d = &destination{way: w, lanes: make(map[*customer]*lane), window: firstWindow, growth: 1, alone: w.suspect}
		l.destinations[w] = d
	}
	return d
}

// limitOf is what d may get at most.
func (l *lanes) limitOf(d *destination) DestinationLimit {
	var limit DestinationLimit
	if l.limit != nil && !d.alone {
		limit = l.limit(d.way.limited())
	}
	if limit.Attempts <= 0 {
		limit.Attempts = l.limits.PerDestination
	}
	if d.alone || d.dead() {
		limit.Attempts = 1
	}
	return limit
}

// limited reports whether an operator has set limits for d.
func (l *lanes) limited(d *destination) bool {
	return l.limit != nil && !d.alone && l.limit(d.way.limited()) != DestinationLimit{}
}

// mayStart reports whether another attempt of way may begin now.
func (l *lanes) mayStart(way *lane) bool { return way.flying < l.free(way.destination).below() }

// freeSlots are how many attempts to a destination may begin now, and how many of
// them are for customers who have none under way there.
type freeSlots struct{ slots, kept int }

// below is what a customer must have fewer attempts under way there than to start
// another.
func (f freeSlots) below() int {
	switch {
	case f.slots <= 0:
		return 0
	case f.slots <= f.kept:
		return 1
	}
	return math.MaxInt
}

// free is what may begin to d now. If the moment is what forbids it, an alarm is
// set for when it does not.
func (l *lanes) free(d *destination) (f freeSlots) {
	limit := l.limitOf(d)
	opens := d.opens
	if limit.PerMinute > 0 {
		opens = max(opens, d.began+int64(time.Minute)/int64(limit.PerMinute))
	}
	if opens != 0 {
		if l.now().UnixNano() < opens {
			l.setAlarm(d, opens)
			return freeSlots{}
		}
		d.opens = 0
	}
	most := min(int(d.window), limit.Attempts)
	f = freeSlots{slots: most - d.flying}
	if most == limit.Attempts {
		f.kept = most / 8
	}
	if limit.PerMinute > 0 && f.slots > 1 { // one begins at a time
		if f.slots > f.kept {
			f.kept = 0
		}
		f.slots = 1
	}
	return f
}

// start takes a slot of way's destination.
func (l *lanes) start(way *lane) {
	d := way.destination
	way.flying++
	d.flying++
	d.started++
	if l.limitOf(d).PerMinute > 0 {
		d.began = l.now().UnixNano()
	}
}

// land gives back the slot that way took.
func (d *destination) land(way *lane) {
	parked := way.queued
	if parked {
		d.parked.remove(&way.turn)
	}
	way.flying--
	d.flying--
	if parked {
		d.parked.add(&way.turn)
	}
}

// learn changes what is thought of d after an attempt, the number-th that was
// started.
func (l *lanes) learn(d *destination, number uint64, v verdict) {
	switch v.kind {
	case wasReached:
		if d.failures > 0 {
			if d.dead() {
				l.revive(d)
			}
			d.failures, d.probes, d.cause = 0, 0, nil
		}
		// A limit ends the growth; what was learned is kept for when it is lifted.
		if most := float64(l.limitOf(d).Attempts); d.window < most {
			d.window = min(d.window+d.growth/d.window, most)
		}
	case notReached:
		now := l.now()
		d.used, d.cause = now.UnixNano(), new(v.result)
		if number > d.narrowed {
			d.window, d.growth, d.narrowed = max(1, d.window/2), regrowth, d.started
		}
		switch {
		case d.alone:
		case !d.dead():
			if d.failures++; d.dead() {
				l.bury(d, now)
			}
		case number > d.died:
			d.probes++
			d.opens = now.Add(l.untilProbe(d.probes)).UnixNano()
		}
	}
}

// untilProbe is the wait before the next probe, with a jitter of a fifth: what
// fails together does not come back together.
func (l *lanes) untilProbe(failed int) time.Duration {
	wait := firstProbe << min(failed, 10)
	return time.Duration(float64(min(wait, lastProbe)) * (0.8 + 0.4*l.random()))
}

// bury is the beginning of d being dead: all that waits for it is deferred.
func (l *lanes) bury(d *destination, now time.Time) {
	l.dead++
	d.died, d.probes = d.started, 0
	d.opens = now.Add(l.untilProbe(0)).UnixNano()
	for c, way := range d.lanes {
		if way.units.len() == 0 {
			continue
		}
		c.dead++
		l.takeExcess(c)
		c.waiting -= way.units.len()
		l.pace(c)
		for i := range way.units.len() {
			l.asleep.pushBack(way.units.at(i))
		}
	}
	if l.asleep.len() > 0 || d.busy > 0 {
		l.setAlarm(d, d.opens)
		l.wake()
	}
}

// revive is the end of d being dead. What waits for it goes on in its lanes.
func (l *lanes) revive(d *destination) {
	l.dead--
	d.opens = 0
	for c, way := range d.lanes {
		if way.units.len() > 0 {
			c.dead--
			c.waiting += way.units.len()
		}
	}
}

// probe lets the dead destinations that e waits for be probed now.
func (l *lanes) probe(e *entry) {
	if e.lane == nil {
		return
	}
	for s := (&seat{lane: e.lane, next: e.seats}); s != nil; s = s.next {
		if d := s.lane.destination; d.dead() {
			d.opens = 0
			l.unpark(d)
		}
	}
}

// alarms are destinations by when they open.
type alarms []alarm

type alarm struct {
	at          int64
	destination *destination
}

// setAlarm makes d be looked at when it opens, or before.
func (l *lanes) setAlarm(d *destination, opens int64) {
	if d.alarm != 0 && d.alarm <= opens {
		return
	}
	d.alarm = opens
	heap.Push(&l.alarms, alarm{at: opens, destination: d})
	if l.alarms[0].destination == d {
		l.wake()
	}
}

// ring lets the destinations whose moment has come go on.
func (l *lanes) ring(now int64) {
	for len(l.alarms) > 0 && l.alarms[0].at <= now {
		a := heap.Pop(&l.alarms).(alarm)
		if d := a.destination; a.at == d.alarm { // else an earlier one took its place
			d.alarm = 0
			l.unpark(d) // sets another alarm if the moment was put off
		}
	}
}

// Len implements heap.Interface.
func (a alarms) Len() int { return len(a) }

// Less implements heap.Interface.
func (a alarms) Less(i, j int) bool { return a[i].at < a[j].at }

// Swap implements heap.Interface.
func (a alarms) Swap(i, j int) { a[i], a[j] = a[j], a[i] }

// Push implements heap.Interface.
func (a *alarms) Push(x any) { *a = append(*a, x.(alarm)) }

// Pop implements heap.Interface.
func (a *alarms) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}
