package queue

import "container/list"

// unit is one message for one destination: what one attempt is about.
type unit struct {
	entry       *entry
	customer    string // the sender domain that takes turns
	destination string // Route.Destination
	domain      string // the recipients' domain
	recipients  []int  // indexes in the envelope
}

// lanes hold the units that are due and hand them out by turns. A lane is what
// one customer has for one destination, first come first served.
//
// A customer whose turn it is gives the next of its open lanes. A lane whose
// destination has no free slot is parked there and comes back when one is free,
// so that a turn never walks past things that cannot start, however many there
// are. All methods need Queue.mu.
type lanes struct {
	limits          Limits
	customers       map[string]*customer
	destinations    map[string]*destination
	turns           *list.List // of *customer: those that could start something
	waiting, flying int
}

type customer struct {
	name   string
	flying int
	open   *list.List // of *lane: not empty, not parked
	lanes  map[string]*lane
	turn   *list.Element // in lanes.turns; nil when not there
}

type destination struct {
	name   string
	flying int
	lanes  int
	parked *list.List // of *lane
}

type lane struct {
	customer    *customer
	destination *destination
	units       []unit
}

func newLanes(l Limits) *lanes {
	return &lanes{
		limits: l, customers: make(map[string]*customer), destinations: make(map[string]*destination), turns: list.New(),
	}
}

// push puts u at the end of its lane.
func (l *lanes) push(u unit) {
	c, d := l.customer(u.customer), l.destination(u.destination)
	way := c.lanes[d.name]
	if way == nil {
		way = &lane{customer: c, destination: d}
		c.lanes[d.name] = way
		d.lanes++
		c.open.PushBack(way)
	}
	way.units = append(way.units, u)
	l.waiting++
	l.giveTurn(c)
}

// pick takes out the unit whose turn it is, and its slot.
func (l *lanes) pick() (unit, bool) {
	for l.flying < l.limits.Attempts && l.turns.Len() > 0 {
		c := l.turns.Remove(l.turns.Front()).(*customer)
		c.turn = nil
		way := c.open.Remove(c.open.Front()).(*lane)
		d := way.destination
		if d.flying >= l.limits.PerDestination {
			d.parked.PushBack(way)
			l.giveTurn(c)
			continue
		}
		u := way.units[0]
		way.units = way.units[1:]
		if len(way.units) > 0 {
			c.open.PushBack(way)
		} else {
			delete(c.lanes, d.name)
			d.lanes--
		}
		l.waiting--
		l.flying++
		c.flying++
		d.flying++
		l.giveTurn(c)
		return u, true
	}
	return unit{}, false
}

// done gives back u's slot.
func (l *lanes) done(u unit) {
	c, d := l.customers[u.customer], l.destinations[u.destination]
	l.flying--
	c.flying--
	d.flying--
	l.giveTurn(c)
	l.unpark(d)
	l.forget(c, d)
}

// unpark lets lanes use a free slot of d: as many as it takes until one belongs
// to a customer who may start it.
func (l *lanes) unpark(d *destination) {
	for d.parked.Len() > 0 && d.flying < l.limits.PerDestination {
		way := d.parked.Remove(d.parked.Front()).(*lane)
		// First of its customer's lanes: the slot stays idle until its turn.
		way.customer.open.PushFront(way)
		l.giveTurn(way.customer)
		if way.customer.turn != nil {
			return
		}
	}
}

// giveTurn queues c if it could start something and is not queued yet.
func (l *lanes) giveTurn(c *customer) {
	if c.turn == nil && c.open.Len() > 0 && c.flying < l.limits.PerCustomer {
		c.turn = l.turns.PushBack(c)
	}
}

func (l *lanes) customer(name string) *customer {
	c := l.customers[name]
	if c == nil {
		c = &customer{name: name, open: list.New(), lanes: make(map[string]*lane)}
		l.customers[name] = c
	}
	return c
}

func (l *lanes) destination(name string) *destination {
	d := l.destinations[name]
	if d == nil {
		d = &destination{name: name, parked: list.New()}
		l.destinations[name] = d
	}
	return d
}

// forget drops what holds nothing any more.
func (l *lanes) forget(c *customer, d *destination) {
	if c.flying == 0 && len(c.lanes) == 0 {
		delete(l.customers, c.name)
	}
	if d.flying == 0 && d.lanes == 0 {
		delete(l.destinations, d.name)
	}
}
