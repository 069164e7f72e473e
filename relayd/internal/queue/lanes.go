package queue

import "time"

// unit is one message for one destination, taken out of its lane with a slot:
// what one attempt is about.
type unit struct {
	entry *entry
	lane  *lane
	// number counts what was started to the destination.
	number uint64
}

// lanes hold the units that are due and hand them out by turns. A lane is what
// one customer has for one destination, first come first served.
//
// A customer whose turn it is gives the next of its open lanes. A lane whose
// destination has no free slot for it is parked there and comes back when one is
// free, so that a turn never walks past things that cannot start, however many
// there are. A message in a lane takes the room of a pointer.
//
// A quarter of the slots is for customers who have no attempt under way. Who has
// some may start another while he has fewer than slots are free beside that
// quarter (the dynamic threshold of Choudhury and Hahne). So while N customers
// have mail under way, and N is no more than a quarter of Attempts, one who comes
// later starts at once, whatever theirs is and however long it takes. When each
// has more than he may start they get 3/4*Attempts/(N+1) each, and he gets half of
// that at once. One or two get what PerCustomer lets them have where it is a
// quarter too; three get 75 of 400 each.
//
// At a destination, too, customers take turns, fewest attempts there first. Where
// as many may be under way as its limit says, an eighth (2 of the default of 20,
// none of fewer than 8) is for customers who have none there: they do not wait
// until others have finished.
//
// Nothing is done when the number of free slots changes: customers are queued by
// how many attempts they have under way, and the rule is how far pick looks.
//
// All methods need Queue.mu.
type lanes struct {
	limits          Limits
	backlog         int                                // see Config.Backlog
	limit           func(host string) DestinationLimit // nil = the default for all
	random          func() float64
	now             func() time.Time
	customers       map[string]*customer
	destinations    map[way]*destination
	turns           turns[*customer]
	spare           ring[*destination] // had a free slot and parked lanes when they were last looked at
	alarms          alarms             // destinations that open at a moment
	asleep          ring[*entry]       // wait for a dead destination and are to be told so
	refill          ring[*customer]    // have room for what is in excess
	wake            func()             // the loop looks at alarms and asleep
	idle            int                // customers and destinations, about, that hold nothing
	waiting, flying int
	dead            int // destinations
}

// customer is a sender domain, which takes its turn.
type customer struct {
	turn[*customer] // in lanes.turns

	name    string
	waiting int           // in lanes whose destination is not dead
	lanes   int           // that are not empty
	dead    int           // of them, those of dead destinations
	open    ring[*lane]   // not empty, not parked
	refills bool          // in lanes.refill
	excess  ring[*entry]  // due, but for more destinations than a customer may fill
	paced   chan struct{} // closed when waiting has become small; nil when nobody waits for that
}

type lane struct {
	turn[*lane] // in destination.parked

	customer    *customer
	destination *destination
	units       ring[*entry]
}

// A lane takes more room than a message, so their number is bounded.
const (
	// maxCustomerLanes is how many destinations that are not dead one customer can
	// have mail in turn for. More waits unsorted.
	maxCustomerLanes = 2000
	// maxDeadLanes is how many of his lanes may belong to dead destinations: they
	// keep nothing else waiting. Mail for more comes again by itself when it is due.
	// Lanes that had mail when their destination died go beyond it, and each of them
	// has cost a few attempts.
	maxDeadLanes = 20_000
)

// maxIdle is how many customers and destinations that hold nothing are kept,
// about: most are needed again soon.
const maxIdle = 2000

func newLanes(c Config, wake func()) *lanes {
	return &lanes{
		limits: c.Limits, backlog: c.Backlog, limit: c.DestinationLimit, random: c.Random, now: c.Now, wake: wake,
		customers: make(map[string]*customer), destinations: make(map[way]*destination),
	}
}

// push puts e at the end of its lane for a destination, unless it waits there
// already, and answers the destination. Nothing is done when the customer has
// mail for too many: the answer is then nil, or one that is dead.
func (l *lanes) push(e *entry, c *customer, w way) *destination {
	d := l.destinations[w]
	if !l.roomFor(c, d) {
		if d != nil && d.dead() {
			return d
		}
		return nil
	}
	if d == nil {
		d = l.destination(w)
	}
	way := d.lanes[c]
	if way == nil {
		way = &lane{customer: c, destination: d}
		way.of = way
		d.lanes[c] = way
	}
	if e.sits(way) {
		return d
	}
	if way.units.len() == 0 {
		c.lanes++
		d.busy++
		if d.dead() {
			c.dead++
		}
		c.open.pushBack(way)
	}
	e.sit(way)
	way.units.pushBack(e)
	l.waiting++
	if !d.dead() {
		c.waiting++
	}
	l.giveTurn(c)
	return d
}

// roomFor reports whether c may put mail into his lane for d; a nil one is new.
func (l *lanes) roomFor(c *customer, d *destination) bool {
	switch {
	case d != nil && d.lanes[c] != nil && d.lanes[c].units.len() > 0:
		return true
	case d != nil && d.dead():
		// Where nobody waits it is mail that comes by itself that probes.
		return c.dead < maxDeadLanes || d.busy == 0 && d.opens <= l.now().UnixNano()
	}
	return c.lanes-c.dead < maxCustomerLanes
}

// pick takes out the unit whose turn it is, and its slot.
func (l *lanes) pick() (unit, bool) {
	for {
		next := l.turns.first(l.below())
		if next == nil {
			if l.useSpare() {
				continue
			}
			return unit{}, false
		}
		l.turns.remove(next)
		c := next.of
		way := c.open.popFront()
		d := way.destination
		if !l.mayStart(way) {
			d.parked.add(&way.turn)
			l.giveTurn(c)
			continue
		}
		e := way.units.popFront() // sits there until the attempt begins
		if way.units.len() > 0 {
			c.open.pushBack(way)
		} else {
			d.busy--
			c.lanes--
			if d.dead() {
				c.dead--
			}
			l.takeExcess(c)
		}
		l.waiting--
		if !d.dead() {
			c.waiting--
			l.pace(c)
		}
		l.flying++
		c.flying++
		l.start(way)
		l.giveTurn(c)
		return unit{entry: e, lane: way, number: d.started}, true
	}
}

// below is what a customer must have fewer attempts under way than to start
// another; 0 when no slot is free.
func (l *lanes) below() int {
	free := l.limits.Attempts - l.flying
	return max(free-l.limits.Attempts/4, min(free, 1))
}

// takeExcess lets what is in excess into lanes, if c has fewer now.
func (l *lanes) takeExcess(c *customer) {
	if c.excess.len() > 0 && !c.refills && c.lanes-c.dead < maxCustomerLanes*3/4 {
		c.refills = true
		l.refill.pushBack(c)
		l.wake()
	}
}

// nextExcess takes out a message for which there is room in lanes now; nil when
// there is none.
func (l *lanes) nextExcess() *entry {
	for l.refill.len() > 0 {
		c := l.refill.at(0)
		if c.excess.len() > 0 && c.lanes-c.dead < maxCustomerLanes {
			return c.excess.popFront()
		}
		l.refill.popFront().refills = false
	}
	return nil
}

// done gives back u's slot.
func (l *lanes) done(u unit, v verdict) {
	c, d := u.lane.customer, u.lane.destination
	l.flying--
	if c.queued {
		l.turns.remove(&c.turn)
	}
	c.flying--
	d.land(u.lane)
	l.learn(d, u.number, v)
	l.giveTurn(c)
	l.unpark(d)
	l.retire(c, d)
}

// unpark lets lanes use free slots of d: as many as it takes until each has a
// customer who may start it. Who may not has attempts under way, so it passes no
// more of them than there are slots.
func (l *lanes) unpark(d *destination) {
	free := l.free(d)
	next := d.parked.first(free.below())
	if next == nil {
		return
	}
	for ; next != nil; next = d.parked.first(free.below()) {
		d.parked.remove(next)
		way := next.of
		// First of its customer's lanes: the slot stays idle until its turn.
		way.customer.open.pushFront(way)
		l.giveTurn(way.customer)
		if way.customer.queued && way.customer.flying < max(1, l.below()) {
			free.slots--
		}
	}
	if !d.parked.empty() && !d.spare {
		d.spare = true
		l.spare.pushBack(d)
	}
}

// useSpare looks after a destination whose free slots were meant for customers
// who could not use them after all, since they, or others, have started something
// else meanwhile. It reports whether there was one.
func (l *lanes) useSpare() bool {
	if l.below() == 0 || l.spare.len() == 0 {
		return false
	}
	d := l.spare.popFront()
	d.spare = false
	l.unpark(d)
	return true
}

// giveTurn queues c if it could start something, were there room for it, and is
// not queued yet.
func (l *lanes) giveTurn(c *customer) {
	if !c.queued && c.open.len() > 0 && c.flying < l.limits.PerCustomer {
		l.turns.add(&c.turn)
	}
}

func (l *lanes) customer(name string) *customer {
	c := l.customers[name]
	if c == nil {
		c = &customer{name: name}
		c.of = c
		l.customers[name] = c
	}
	return c
}

func (c *customer) empty() bool { return c.flying == 0 && c.lanes == 0 && c.excess.len() == 0 }

// retire counts what holds nothing any more, and forgets it when it has become
// much.
func (l *lanes) retire(c *customer, d *destination) {
	if c.empty() {
		l.idle++
	}
	if d.empty() {
		l.idle++
	}
	if l.idle > maxIdle {
		l.sweep()
	}
}

func (l *lanes) sweep() {
	l.idle = 0
	now := l.now()
	for key, d := range l.destinations {
		for c, way := range d.lanes {
			if way.units.len() == 0 && (c.empty() || d.empty()) {
				delete(d.lanes, c)
			}
		}
		if d.empty() && !d.remembers(now) {
			if d.dead() {
				l.dead--
			}
			delete(l.destinations, key)
		}
	}
	for name, c := range l.customers {
		if c.empty() && c.paced == nil {
			delete(l.customers, name)
		}
	}
}
