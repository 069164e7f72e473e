package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// part is a message with one destination, as the tests of lanes know it.
type part struct {
	entry                 *entry
	customer, destination string
	unit                  unit // once it has a slot
}

func (p part) push(l *lanes) {
	l.push(p.entry, l.customer(p.customer), way{domain: p.destination})
}

func lanesOf(limits Limits) *lanes {
	return newLanes(Config{Limits: limits, Now: time.Now, Random: func() float64 { return 0.5 }}, func() {})
}

func TestSlotsAreNeverExceededAndNeverLeftIdle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &lanesModel{clock: time.Unix(1e9, 0), lanes: lanesOf(Limits{
			Attempts:       rapid.IntRange(1, 40).Draw(t, "attempts"),
			PerDestination: rapid.IntRange(1, 20).Draw(t, "per destination"),
			PerCustomer:    rapid.IntRange(1, 12).Draw(t, "per customer"),
		})}
		m.lanes.now = func() time.Time { return m.clock }
		t.Repeat(m.actions())
		m.finishAll(t)
		m.clock = m.clock.Add(2 * time.Hour)
		l := m.lanes
		l.sweep()
		if len(l.customers)+len(l.destinations)+l.dead != 0 || l.turns.first(l.limits.PerCustomer) != nil {
			t.Fatalf("%d customers, %d destinations, %d dead are left over", len(l.customers), len(l.destinations), l.dead)
		}
	})
}

// lanesModel keeps beside the lanes, as plain lists, what should be in them.
type lanesModel struct {
	lanes           *lanes
	clock           time.Time
	waiting, flying []part
}

func (m *lanesModel) actions() map[string]func(*rapid.T) {
	customers := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
	destinations := []string{"x", "y", "z"}
	verdicts := rapid.SampledFrom([]verdict{{}, {kind: wasReached}, {kind: notReached}})
	return map[string]func(*rapid.T){
		"": m.check,
		"push": func(t *rapid.T) {
			m.push(customers.Draw(t, "customer"), rapid.SampledFrom(destinations).Draw(t, "destination"))
		},
		"push to all": func(t *rapid.T) {
			for _, d := range destinations {
				m.push(customers.Draw(t, "customer"), d)
			}
		},
		"push many": func(t *rapid.T) {
			customer, destination := customers.Draw(t, "customer"), rapid.SampledFrom(destinations).Draw(t, "destination")
			for range 20 {
				m.push(customer, destination)
			}
		},
		"widen": func(t *rapid.T) {
			d := m.lanes.destination(way{domain: rapid.SampledFrom(destinations).Draw(t, "destination")})
			d.window = float64(m.lanes.limits.PerDestination)
			m.lanes.unpark(d)
		},
		"pick": m.pick,
		"pick all": func(t *rapid.T) {
			for m.startable() {
				m.pick(t)
			}
			m.pick(t)
		},
		"done": func(t *rapid.T) {
			if len(m.flying) == 0 {
				t.Skip("nothing under way")
			}
			m.done(rapid.IntRange(0, len(m.flying)-1).Draw(t, "which"), verdicts.Draw(t, "verdict"))
		},
		"time": func(*rapid.T) { m.pass(20 * time.Second) },
	}
}

func (m *lanesModel) push(customer, destination string) {
	p := part{entry: &entry{index: -1}, customer: customer, destination: destination}
	p.push(m.lanes)
	m.waiting = append(m.waiting, p)
}

func (m *lanesModel) pick(t *rapid.T) {
	could := m.startable()
	u, ok := m.lanes.pick()
	if ok != could {
		t.Fatalf("pick said %v, and %v is right (waiting %d, flying %d)", ok, could, len(m.waiting), len(m.flying))
	}
	if !ok {
		return
	}
	i := slices.IndexFunc(m.waiting, func(p part) bool { return p.entry == u.entry })
	if i < 0 {
		t.Fatalf("what was picked does not wait")
	}
	p := m.waiting[i]
	p.unit = u
	m.waiting = slices.Delete(m.waiting, i, i+1)
	m.flying = append(m.flying, p)
}

func (m *lanesModel) done(i int, v verdict) {
	m.lanes.done(m.flying[i].unit, v)
	m.flying = slices.Delete(m.flying, i, i+1)
}

func (m *lanesModel) pass(d time.Duration) {
	m.clock = m.clock.Add(d)
	m.lanes.ring(m.clock.UnixNano())
}

// finishAll shows that everything can still be finished, whatever happened.
func (m *lanesModel) finishAll(t *rapid.T) {
	for len(m.waiting)+len(m.flying) > 0 {
		for m.startable() {
			m.pick(t)
		}
		if len(m.flying) == 0 {
			m.pass(lastProbe)
			continue
		}
		m.done(0, verdict{})
	}
}

// underWay counts by brute force what flies.
func (m *lanesModel) underWay() (perCustomer, perDestination map[string]int, perLane map[[2]string]int) {
	perCustomer, perDestination, perLane = map[string]int{}, map[string]int{}, map[[2]string]int{}
	for _, p := range m.flying {
		perCustomer[p.customer]++
		perDestination[p.destination]++
		perLane[[2]string{p.customer, p.destination}]++
	}
	return perCustomer, perDestination, perLane
}

// startable says by brute force whether any waiting part could start now.
func (m *lanesModel) startable() bool {
	l := m.lanes
	perCustomer, perDestination, perLane := m.underWay()
	for _, p := range m.waiting {
		d := l.destination(way{domain: p.destination})
		if d.opens > l.now().UnixNano() {
			continue
		}
		most := min(l.limits.PerDestination, int(d.window))
		if d.dead() {
			most = 1
		}
		n, free := perCustomer[p.customer], l.limits.Attempts-len(m.flying)
		room := n == 0 && free > 0 || n < free-l.limits.Attempts/4
		there := most - perDestination[p.destination]
		kept := 0
		if most == l.limits.PerDestination {
			kept = most / 8
		}
		roomThere := there > kept || there > 0 && perLane[[2]string{p.customer, p.destination}] == 0
		if room && n < l.limits.PerCustomer && roomThere {
			return true
		}
	}
	return false
}

// check compares the lanes with the lists and both with the limits.
func (m *lanesModel) check(t *rapid.T) {
	l, limits := m.lanes, m.lanes.limits
	if l.waiting != len(m.waiting) || l.flying != len(m.flying) || len(m.flying) > limits.Attempts {
		t.Fatalf("counted %d waiting and %d under way, want %d and %d", l.waiting, l.flying, len(m.waiting), len(m.flying))
	}
	for _, c := range l.customers {
		lanes, dead := c.countLanes(l)
		if c.lanes != lanes || c.dead != dead {
			t.Fatalf("customer %s: counted %d lanes, %d dead, want %d and %d", c.name, c.lanes, c.dead, lanes, dead)
		}
	}
	perCustomer, perDestination, _ := m.underWay()
	for name, n := range perCustomer {
		if n > limits.PerCustomer {
			t.Fatalf("customer %s has %d under way", name, n)
		}
	}
	for name, n := range perDestination {
		if n > limits.PerDestination {
			t.Fatalf("destination %s has %d under way", name, n)
		}
	}
	if free := limits.Attempts - len(m.flying); free+len(perCustomer) < min(limits.Attempts, limits.Attempts/4+1) {
		t.Fatalf("%d customers leave %d slots free", len(perCustomer), free)
	}
}

// countLanes counts by brute force the lanes of c that are not empty, and how many of them are of dead destinations.
func (c *customer) countLanes(l *lanes) (all, dead int) {
	for _, d := range l.destinations {
		if way := d.lanes[c]; way != nil && way.units.len() > 0 {
			all++
			if d.dead() {
				dead++
			}
		}
	}
	return all, dead
}

func TestASlotThatACustomerCannotUseAfterAllIsAnothers(t *testing.T) {
	l := lanesOf(Limits{Attempts: 10, PerDestination: 1, PerCustomer: 1})
	push := func(customer, destination string) {
		part{entry: &entry{index: -1}, customer: customer, destination: destination}.push(l)
	}
	push("c", "x")
	push("d", "y")
	x, _ := l.pick()
	y, _ := l.pick()
	for _, c := range []string{"a", "b"} {
		push(c, "x")
		push(c, "y")
	}
	if u, ok := l.pick(); ok {
		t.Fatalf("%s got a second slot of %s", u.lane.customer.name, u.lane.destination.way.domain)
	}
	l.done(x, verdict{})
	l.done(y, verdict{}) // both are for a, who has waited longest and may start one
	_, first := l.pick()
	_, second := l.pick()
	if !first || !second {
		t.Errorf("of two free slots are used: %v, %v", first, second)
	}
}

// endless gives a customer more mail than he may try at once.
func endless(l *lanes, customer int) {
	for n := range l.limits.PerCustomer + 1 {
		part{entry: &entry{}, customer: fmt.Sprint(customer), destination: fmt.Sprintf("%d.%d", customer, n)}.push(l)
	}
}

// startAll starts what may be started.
func startAll(l *lanes) (started int) {
	for _, ok := l.pick(); ok; _, ok = l.pick() {
		started++
	}
	return started
}

func TestCustomersShareTheSlotsAndLeaveRoomForOthers(t *testing.T) {
	for _, test := range []struct{ customers, each, free int }{
		{customers: 1, each: 100, free: 300}, // as many as one may have
		{customers: 2, each: 100, free: 200},
		{customers: 3, each: 75, free: 175},
		{customers: 4, each: 60, free: 160},
		{customers: 10, each: 27, free: 127},
		{customers: 100, each: 2, free: 102},
		{customers: 399, each: 1, free: 1},
		{customers: 500, each: 0, free: 0},
	} {
		l := lanesOf(Config{}.withDefaults().Limits)
		for i := range test.customers {
			endless(l, i)
		}
		startAll(l)
		for _, c := range l.customers {
			if c.flying != test.each && c.flying != test.each+1 {
				t.Errorf("one of %d customers has %d under way, want %d", test.customers, c.flying, test.each)
			}
		}
		if free := l.limits.Attempts - l.flying; free != test.free {
			t.Errorf("%d customers leave %d slots free, want %d", test.customers, free, test.free)
		}
	}
}

func TestOneAfterTheOtherAHundredCustomersWhoseAttemptsNeverEndAreStartedAtOnce(t *testing.T) {
	l := lanesOf(Config{}.withDefaults().Limits)
	for i := range 101 {
		if endless(l, i); startAll(l) == 0 {
			t.Fatalf("customer %d waits for the others", i+1)
		}
	}
}

func TestAFloodKeepsNobodyElseWaitingAtItsOwnDestination(t *testing.T) {
	for _, test := range []struct{ limit, takes, flood int }{
		{limit: 20, takes: 20, flood: 18},
		{limit: 8, takes: 8, flood: 7},
		{limit: 7, takes: 7, flood: 7},
		{limit: 20, takes: 19, flood: 19}, // it has not been seen to take more: that is not tried with others' mail
	} {
		l := lanesOf(Limits{Attempts: 400, PerDestination: test.limit, PerCustomer: 100})
		l.destination(way{domain: "x"}).window = float64(test.takes)
		push := func(customer string, n int) {
			for range n {
				part{entry: &entry{index: -1}, customer: customer, destination: "x"}.push(l)
			}
		}
		push("flood", 50)
		first, _ := l.pick()
		if started := 1 + startAll(l); started != test.flood {
			t.Errorf("of %d at once the flood has %d, want %d", test.takes, started, test.flood)
		}
		for n := range test.takes - test.flood {
			push(fmt.Sprint("customer ", n), 2)
			if started := startAll(l); started != 1 {
				t.Errorf("customer %d beside the flood: %d started, want one at once and the other when others have finished", n, started)
			}
		}
		push("late", 1)
		if startAll(l) != 0 {
			t.Errorf("more than %d at once", test.takes)
		}
		l.done(first, verdict{})
		if u, _ := l.pick(); u.lane == nil || u.lane.customer.name != "late" {
			t.Errorf("what has become free of %d is not for him who has none under way there", test.takes)
		}
	}
}

func TestMoreCustomersThanSlotsTakeTurns(t *testing.T) {
	l := lanesOf(Config{}.withDefaults().Limits)
	for i := range 500 {
		endless(l, i)
	}
	started := map[string]int{}
	var flying []unit
	for range 3 * 500 {
		for u, ok := l.pick(); ok; u, ok = l.pick() {
			started[u.lane.customer.name]++
			flying = append(flying, u)
		}
		l.done(flying[0], verdict{})
		flying = flying[1:]
	}
	for i := range 500 {
		if n := started[fmt.Sprint(i)]; n < 3 || n > 4 {
			t.Errorf("customer %d was started %d times where others were 3 or 4 times", i, n)
		}
	}
}

func TestCustomersTakeTurns(t *testing.T) {
	l := lanesOf(Limits{Attempts: 1000, PerDestination: 1000, PerCustomer: 1000})
	for i := range 50 {
		part{entry: &entry{}, customer: "flood", destination: fmt.Sprint(i)}.push(l)
	}
	for _, c := range []string{"a", "b"} {
		part{entry: &entry{}, customer: c, destination: "x"}.push(l)
	}
	var order []string
	for range 4 {
		u, _ := l.pick()
		order = append(order, u.lane.customer.name)
	}
	if got := fmt.Sprint(order); got != "[flood a b flood]" {
		t.Errorf("order %s", got)
	}
}

// kill fails attempts for a destination until it is dead, with so much mail left for it.
func kill(t *testing.T, l *lanes, customer, destination string, left int) {
	t.Helper()
	for range deadAfter + left {
		part{entry: &entry{index: -1}, customer: customer, destination: destination}.push(l)
	}
	for range deadAfter {
		u, ok := l.pick()
		if !ok {
			t.Fatalf("%s: nothing could be tried", destination)
		}
		u.entry.stand(u.lane)
		l.done(u, verdict{kind: notReached})
	}
}

func TestMailForManyDeadDestinationsKeepsOtherMailOfTheCustomerFromNothing(t *testing.T) {
	l := lanesOf(Limits{Attempts: 10, PerDestination: 10, PerCustomer: 10})
	for i := range maxCustomerLanes + 100 {
		kill(t, l, "a", fmt.Sprint(i), 1)
	}
	part{entry: &entry{}, customer: "a", destination: "alive"}.push(l)
	if u, ok := l.pick(); !ok || u.lane.destination.way.domain != "alive" {
		t.Errorf("mail for a destination that is alive is not tried")
	}
}

func TestLanesOfDeadDestinationsAreBounded(t *testing.T) {
	l := lanesOf(Limits{Attempts: 10, PerDestination: 10, PerCustomer: 10})
	clock := time.Unix(1e9, 0)
	l.now = func() time.Time { return clock }
	for i := range maxDeadLanes + 100 {
		kill(t, l, "a", fmt.Sprint(i), 0)
		part{entry: &entry{}, customer: "a", destination: fmt.Sprint(i)}.push(l)
	}
	c := l.customers["a"]
	if c.dead != maxDeadLanes || c.lanes != maxDeadLanes {
		t.Fatalf("%d lanes, %d of dead destinations", c.lanes, c.dead)
	}
	// One that has no lane is probed by its mail when that is due again.
	clock = clock.Add(time.Minute)
	last := way{domain: fmt.Sprint(maxDeadLanes + 99)}
	if d := l.push(&entry{}, c, last); d.busy != 1 || d.lanes[c].units.len() != 1 {
		t.Errorf("nothing waits for a probe")
	}
	if d := l.push(&entry{}, l.customer("b"), last); d.busy != 2 {
		t.Errorf("another customer has no lane")
	}
}

func TestAServerWhoseEHLORuledTheMessageOutWasReached(t *testing.T) {
	for _, c := range []struct {
		result Result
		want   verdictKind
	}{
		{Result{Class: PermFail, Enhanced: "5.3.4", Host: "mx.test[192.0.2.1]:25"}, wasReached},
		{Result{Class: PermFail, Enhanced: "5.4.6"}, saysNothing},
		{Result{Class: TempFail, Enhanced: "4.4.1", Host: "mx.test[192.0.2.1]:25"}, notReached},
	} {
		if got := judge([]Result{c.result}).kind; got != c.want {
			t.Errorf("%+v: %d, want %d", c.result, got, c.want)
		}
	}
}

func TestBackoffGrowsToAnHourWithJitter(t *testing.T) {
	for _, c := range []struct {
		attempt int
		random  float64
		want    string
	}{
		{attempt: 1, random: 0.5, want: "1m0s"},
		{attempt: 2, random: 0.5, want: "2m0s"},
		{attempt: 3, random: 0.5, want: "4m0s"},
		{attempt: 6, random: 0.5, want: "32m0s"},
		{attempt: 7, random: 0.5, want: "1h4m0s"},
		{attempt: 500, random: 0.5, want: "1h4m0s"},
		{attempt: 1, random: 0, want: "48s"},
		{attempt: 0, random: 0.5, want: "1m0s"},
		{attempt: -3, random: 0.5, want: "1m0s"},
	} {
		if got := Backoff(c.attempt, c.random); got.String() != c.want {
			t.Errorf("attempt %d, random %v: %v, want %s", c.attempt, c.random, got, c.want)
		}
	}
}
