package queue

import (
	"fmt"
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

// startable says by brute force whether any waiting part could start now.
func startable(l *lanes, waiting, flying []part) bool {
	perCustomer, perDestination := map[string]int{}, map[string]int{}
	for _, p := range flying {
		perCustomer[p.customer]++
		perDestination[p.destination]++
	}
	for _, p := range waiting {
		d := l.destination(way{domain: p.destination})
		if d.opens > l.now().UnixNano() {
			continue
		}
		most := min(l.limits.PerDestination, int(d.window))
		if d.dead() {
			most = 1
		}
		n, free := perCustomer[p.customer], l.limits.Attempts-len(flying)
		room := n == 0 && free > 0 || n < free-l.limits.Attempts/4
		if room && n < l.limits.PerCustomer && perDestination[p.destination] < most {
			return true
		}
	}
	return false
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

func TestSlotsAreNeverExceededAndNeverLeftIdle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{
			Attempts:       rapid.IntRange(1, 12).Draw(t, "attempts"),
			PerDestination: rapid.IntRange(1, 6).Draw(t, "per destination"),
			PerCustomer:    rapid.IntRange(1, 4).Draw(t, "per customer"),
		}
		l := lanesOf(limits)
		clock := time.Unix(1e9, 0)
		l.now = func() time.Time { return clock }
		verdicts := rapid.SampledFrom([]verdict{{}, {kind: wasReached}, {kind: notReached}})
		var waiting, flying []part
		take := func() {
			could := startable(l, waiting, flying)
			u, ok := l.pick()
			if ok != could {
				t.Fatalf("pick said %v, and %v is right (waiting %d, flying %d)", ok, could, len(waiting), len(flying))
			}
			if !ok {
				return
			}
			for i, p := range waiting {
				if p.entry == u.entry {
					p.unit = u
					waiting = append(waiting[:i], waiting[i+1:]...)
					flying = append(flying, p)
					break
				}
			}
		}
		push := func(customer, destination string) {
			p := part{entry: &entry{index: -1}, customer: customer, destination: destination}
			p.push(l)
			waiting = append(waiting, p)
		}
		customers, destinations := []string{"a", "b", "c", "d", "e"}, []string{"x", "y", "z"}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				push(rapid.SampledFrom(customers).Draw(t, "customer"), rapid.SampledFrom(destinations).Draw(t, "destination"))
			},
			"push to all": func(t *rapid.T) {
				for _, d := range destinations {
					push(rapid.SampledFrom(customers).Draw(t, "customer"), d)
				}
			},
			"pick": func(*rapid.T) { take() },
			"pick all": func(*rapid.T) {
				for startable(l, waiting, flying) {
					take()
				}
				take()
			},
			"done": func(t *rapid.T) {
				if len(flying) == 0 {
					t.Skip("nothing under way")
				}
				i := rapid.IntRange(0, len(flying)-1).Draw(t, "which")
				l.done(flying[i].unit, verdicts.Draw(t, "verdict"))
				flying = append(flying[:i], flying[i+1:]...)
			},
			"time": func(*rapid.T) {
				clock = clock.Add(20 * time.Second)
				l.ring(clock.UnixNano())
			},
			"": func(t *rapid.T) {
				perCustomer, perDestination := map[string]int{}, map[string]int{}
				for _, p := range flying {
					perCustomer[p.customer]++
					perDestination[p.destination]++
				}
				for _, c := range l.customers {
					lanes, dead := c.countLanes(l)
					if c.lanes != lanes || c.dead != dead {
						t.Fatalf("customer %s: counted %d lanes, %d dead, want %d and %d", c.name, c.lanes, c.dead, lanes, dead)
					}
				}
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
				if free := limits.Attempts - len(flying); free+len(perCustomer) < min(limits.Attempts, limits.Attempts/4+1) {
					t.Fatalf("%d customers leave %d slots free", len(perCustomer), free)
				}
				if l.waiting != len(waiting) || l.flying != len(flying) || len(flying) > limits.Attempts {
					t.Fatalf("counted %d waiting and %d under way, want %d and %d", l.waiting, l.flying, len(waiting), len(flying))
				}
			},
		})
		// Whatever happened, everything can still be finished.
		for len(waiting)+len(flying) > 0 {
			for startable(l, waiting, flying) {
				take()
			}
			if len(flying) == 0 {
				clock = clock.Add(lastProbe)
				l.ring(clock.UnixNano())
				continue
			}
			l.done(flying[0].unit, verdict{})
			flying = flying[1:]
		}
		clock = clock.Add(2 * time.Hour)
		l.sweep()
		if len(l.customers)+len(l.destinations)+l.dead != 0 || l.turns.first(limits.PerCustomer) != nil {
			t.Fatalf("%d customers, %d destinations, %d dead are left over", len(l.customers), len(l.destinations), l.dead)
		}
	})
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
