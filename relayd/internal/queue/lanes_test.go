package queue

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// drawUnit makes a unit of a few customers and destinations.
func drawUnit(t *rapid.T, n int) unit {
	return unit{
		entry:       &entry{id: fmt.Sprint(n)},
		customer:    rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "customer"),
		destination: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "destination"),
	}
}

// startable says by brute force whether any waiting unit could start now.
func startable(l Limits, waiting, flying []unit) bool {
	perCustomer, perDestination := map[string]int{}, map[string]int{}
	for _, u := range flying {
		perCustomer[u.customer]++
		perDestination[u.destination]++
	}
	for _, u := range waiting {
		if len(flying) < l.Attempts && perCustomer[u.customer] < l.PerCustomer && perDestination[u.destination] < l.PerDestination {
			return true
		}
	}
	return false
}

func TestSlotsAreNeverExceededAndNeverLeftIdle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{
			Attempts:       rapid.IntRange(1, 8).Draw(t, "attempts"),
			PerDestination: rapid.IntRange(1, 4).Draw(t, "per destination"),
			PerCustomer:    rapid.IntRange(1, 4).Draw(t, "per customer"),
		}
		l := newLanes(limits)
		var waiting, flying []unit
		take := func() {
			could := startable(limits, waiting, flying)
			u, ok := l.pick()
			if ok != could {
				t.Fatalf("pick said %v, and %v is right (waiting %d, flying %d)", ok, could, len(waiting), len(flying))
			}
			if !ok {
				return
			}
			for i := range waiting {
				if waiting[i].entry == u.entry {
					waiting = append(waiting[:i], waiting[i+1:]...)
					break
				}
			}
			flying = append(flying, u)
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				u := drawUnit(t, len(waiting)+len(flying))
				l.push(u)
				waiting = append(waiting, u)
			},
			"pick": func(*rapid.T) { take() },
			"done": func(t *rapid.T) {
				if len(flying) == 0 {
					t.Skip("nothing under way")
				}
				i := rapid.IntRange(0, len(flying)-1).Draw(t, "which")
				l.done(flying[i])
				flying = append(flying[:i], flying[i+1:]...)
			},
			"": func(t *rapid.T) {
				perCustomer, perDestination := map[string]int{}, map[string]int{}
				for _, u := range flying {
					perCustomer[u.customer]++
					perDestination[u.destination]++
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
				if l.waiting != len(waiting) || l.flying != len(flying) || len(flying) > limits.Attempts {
					t.Fatalf("counted %d waiting and %d under way, want %d and %d", l.waiting, l.flying, len(waiting), len(flying))
				}
			},
		})
		// Whatever happened, everything can still be finished.
		for len(waiting)+len(flying) > 0 {
			for startable(limits, waiting, flying) {
				take()
			}
			l.done(flying[0])
			flying = flying[1:]
		}
		if len(l.customers)+len(l.destinations)+l.turns.Len() != 0 {
			t.Fatalf("%d customers, %d destinations, %d turns are left over", len(l.customers), len(l.destinations), l.turns.Len())
		}
	})
}

func TestCustomersTakeTurns(t *testing.T) {
	l := newLanes(Limits{Attempts: 1000, PerDestination: 1000, PerCustomer: 1000})
	for i := range 50 {
		l.push(unit{entry: &entry{id: fmt.Sprint(i)}, customer: "flood", destination: fmt.Sprint(i)})
	}
	for _, c := range []string{"a", "b"} {
		l.push(unit{entry: &entry{id: c}, customer: c, destination: "x"})
	}
	var order []string
	for range 4 {
		u, _ := l.pick()
		order = append(order, u.customer)
	}
	if got := fmt.Sprint(order); got != "[flood a b flood]" {
		t.Errorf("order %s", got)
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
