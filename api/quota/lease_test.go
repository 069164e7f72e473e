package quota

import (
	"testing"

	"pgregory.net/rapid"
)

func TestGrantsStayWithinTheLimitAndTheAsk(t *testing.T) {
	cases := []struct {
		name       string
		limit, net int64
		held       int64
		ask        Ask
		want       int64
	}{
		{name: "room enough", limit: 1000, net: 0, ask: Ask{Want: 50}, want: 50},
		{name: "top up to the aim", limit: 1000, net: 50, held: 20, ask: Ask{Want: 50}, want: 30},
		{name: "repeated call", limit: 1000, net: 50, held: 50, ask: Ask{Want: 50}, want: 0},
		{name: "holds more than the aim", limit: 1000, net: 90, held: 90, ask: Ask{Want: 50}, want: 0},
		{name: "what is left", limit: 1000, net: 990, ask: Ask{Want: 50}, want: 10},
		{name: "nothing left", limit: 1000, net: 1000, ask: Ask{Want: 50}, want: 0},
		{name: "limit fell below what is out", limit: 500, net: 900, ask: Ask{Want: 50}, want: 0},
		{name: "all of it", limit: 1000, net: 995, ask: Ask{Want: 5, AtLeast: 5}, want: 5},
		{name: "or nothing", limit: 1000, net: 996, ask: Ask{Want: 5, AtLeast: 5}, want: 0},
		{name: "at least counts what is held", limit: 1000, net: 997, held: 2, ask: Ask{Want: 5, AtLeast: 5}, want: 3},
		{name: "at least without a want", limit: 1000, net: 0, ask: Ask{AtLeast: 5}, want: 5},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := Grant(c.limit, c.net, c.held, c.ask); got != c.want {
				t.Fatalf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestMergingIsOrderlessAndRepeatable(t *testing.T) {
	counters := rapid.Custom(func(r *rapid.T) Counters {
		small := rapid.Int64Range(0, 50)
		return Counters{Granted: small.Draw(r, "g"), Spent: small.Draw(r, "s"), Returned: small.Draw(r, "r")}
	})
	rapid.Check(t, func(r *rapid.T) {
		a, b, c := counters.Draw(r, "a"), counters.Draw(r, "b"), counters.Draw(r, "c")
		if a.Merge(b) != b.Merge(a) || a.Merge(a) != a || a.Merge(b).Merge(c) != a.Merge(b.Merge(c)) {
			r.Fatalf("%v %v %v", a, b, c)
		}
		if m := a.Merge(b); m.Behind(a) || m.Behind(b) {
			r.Fatalf("the merge %v is behind %v or %v", m, a, b)
		}
	})
}

// call is one lease call on its way.
type call struct {
	edge     int
	sequence int64
	counters Counters
	ask      Ask
}

// answer is one reply on its way.
type answer struct {
	edge    int
	granted int64
}

// fleet is a control plane, its edges and the network between them, reduced to
// what decides: who counted what, and which calls and replies are under way.
type fleet struct {
	limit    int64
	known    []Counters // the control plane's rows
	seen     []int64    // highest sequence answered, by edge
	edges    []Counters // each edge's own, durable
	sequence []int64
	calls    []call
	replies  []answer
	accepted int64 // the oracle: messages really accepted
}

func newFleet(limit int64, edges int) *fleet {
	return &fleet{
		limit: limit, known: make([]Counters, edges), seen: make([]int64, edges),
		edges: make([]Counters, edges), sequence: make([]int64, edges),
	}
}

// send puts a call on the wire; what it returns is durable before it leaves.
func (f *fleet) send(edge int, ask Ask) {
	f.edges[edge].Returned += ask.Return
	f.sequence[edge]++
	f.calls = append(f.calls, call{edge: edge, sequence: f.sequence[edge], counters: f.edges[edge], ask: ask})
}

// serve handles one call as the control plane does.
func (f *fleet) serve(c call) {
	if c.sequence < f.seen[c.edge] {
		return
	}
	f.seen[c.edge] = c.sequence
	row := f.known[c.edge].Merge(c.counters)
	f.known[c.edge] = row
	net := int64(0)
	for _, k := range f.known {
		net += k.Net()
	}
	row.Granted += Grant(f.limit, net, row.Held(), c.ask)
	f.known[c.edge] = row
	f.replies = append(f.replies, answer{edge: c.edge, granted: row.Granted})
}

func (f *fleet) hear(a answer) {
	f.edges[a.edge] = f.edges[a.edge].Merge(Counters{Granted: a.granted})
}

// accept spends n at an edge if it may; the message and the spend are one.
func (f *fleet) accept(edge int, n int64) bool {
	if f.edges[edge].Held() < n {
		return false
	}
	f.edges[edge].Spent += n
	f.accepted += n
	return true
}

func (f *fleet) check(r *rapid.T) {
	if f.accepted > f.limit {
		r.Fatalf("accepted %d of %d", f.accepted, f.limit)
	}
	net := int64(0)
	for i, k := range f.known {
		net += k.Net()
		if !f.edges[i].Valid() {
			r.Fatalf("edge %d has the impossible counters %+v", i, f.edges[i])
		}
		if !k.Valid() {
			r.Fatalf("the control plane has the impossible counters %+v of edge %d", k, i)
		}
	}
	if net > f.limit {
		r.Fatalf("%d lent of %d", net, f.limit)
	}
}

// TestNoInterleavingOverspends runs random interleavings of asks, spends,
// returns, rises of the limit, and of calls and replies that are lost,
// repeated and late, against an oracle that counts accepted messages.
func TestNoInterleavingOverspends(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := newFleet(rapid.Int64Range(0, 60).Draw(r, "limit"), rapid.IntRange(1, 4).Draw(r, "edges"))
		anyEdge := rapid.IntRange(0, len(f.edges)-1)
		units := rapid.Int64Range(1, 12)
		r.Repeat(map[string]func(*rapid.T){
			"ask": func(r *rapid.T) {
				edge := anyEdge.Draw(r, "edge")
				f.send(edge, Demand{
					Limit: f.limit, Held: f.edges[edge].Held(), PeakPerMinute: units.Draw(r, "peak") / 6,
					RelayedLately: rapid.Bool().Draw(r, "lately"), Message: units.Draw(r, "message") - 1,
					NearLimit: rapid.Bool().Draw(r, "near"),
				}.Ask())
			},
			"ask for anything": func(r *rapid.T) {
				edge := anyEdge.Draw(r, "edge")
				f.send(edge, Ask{
					Want: units.Draw(r, "want") * 10, AtLeast: units.Draw(r, "least") - 1,
					Return: min(units.Draw(r, "return")-1, f.edges[edge].Held()),
				})
			},
			"accept":               func(r *rapid.T) { f.accept(anyEdge.Draw(r, "edge"), units.Draw(r, "units")) },
			"call arrives":         func(r *rapid.T) { f.serve(draw(r, &f.calls, true)) },
			"call arrives, stays":  func(r *rapid.T) { f.serve(draw(r, &f.calls, false)) },
			"call is lost":         func(r *rapid.T) { draw(r, &f.calls, true) },
			"reply arrives":        func(r *rapid.T) { f.hear(draw(r, &f.replies, true)) },
			"reply arrives, stays": func(r *rapid.T) { f.hear(draw(r, &f.replies, false)) },
			"reply is lost":        func(r *rapid.T) { draw(r, &f.replies, true) },
			"the limit rises":      func(r *rapid.T) { f.limit += units.Draw(r, "rise") },
			"everything under way": func(*rapid.T) { f.settle() },
			"":                     f.check,
		})
	})
}

// draw picks something under way, in any order, and may leave a copy behind.
func draw[T any](r *rapid.T, underWay *[]T, remove bool) T {
	if len(*underWay) == 0 {
		r.Skip("nothing under way")
	}
	i := rapid.IntRange(0, len(*underWay)-1).Draw(r, "which")
	picked := (*underWay)[i]
	if remove {
		*underWay = append((*underWay)[:i:i], (*underWay)[i+1:]...)
	}
	return picked
}

// settle delivers everything under way in order.
func (f *fleet) settle() {
	for len(f.calls)+len(f.replies) > 0 {
		calls, replies := f.calls, f.replies
		f.calls, f.replies = nil, nil
		for _, c := range calls {
			f.serve(c)
		}
		for _, a := range replies {
			f.hear(a)
		}
	}
}

// TestEveryUnitIsUsableWhileAllAreReachable: with every edge and the control
// plane reachable, and more mail than the limit, exactly the limit is accepted,
// even if units lie on edges that have no mail.
func TestEveryUnitIsUsableWhileAllAreReachable(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := newFleet(rapid.Int64Range(0, 400).Draw(r, "limit"), rapid.IntRange(1, 16).Draw(r, "edges"))
		near := make([]bool, len(f.edges))
		ask := func(edge int, message int64) {
			f.send(edge, Demand{
				Limit: f.limit, Held: f.edges[edge].Held(), RelayedLately: true, PeakPerMinute: 1,
				Edges: int64(len(f.edges)), Message: message, NearLimit: near[edge],
			}.Ask())
			f.settle()
		}
		for range len(f.edges) { // stock all of them
			ask(rapid.IntRange(0, len(f.edges)-1).Draw(r, "edge"), 0)
		}
		for offered := int64(0); offered < f.limit+20; offered++ {
			edge := rapid.IntRange(0, len(f.edges)-1).Draw(r, "edge")
			if f.accept(edge, 1) {
				continue
			}
			if ask(edge, 1); f.accept(edge, 1) {
				continue
			}
			// Fell short: recall what the others hold, then ask once more.
			for other := range near {
				near[other] = true
				if other != edge {
					ask(other, 0)
				}
			}
			if ask(edge, 1); f.accept(edge, 1) != (f.accepted <= f.limit && offered < f.limit) {
				r.Fatalf("message %d of a limit of %d: %d accepted", offered+1, f.limit, f.accepted)
			}
		}
		if f.accepted != f.limit {
			r.Fatalf("accepted %d of %d", f.accepted, f.limit)
		}
	})
}

func TestASetBackOrForgedCounterIsNoticed(t *testing.T) {
	before := Counters{Granted: 10, Spent: 4, Returned: 1}
	if !(Counters{Granted: 10, Spent: 3, Returned: 1}).Behind(before) {
		t.Error("fewer spent is not behind")
	}
	if (Counters{Granted: 12, Spent: 4, Returned: 1}).Behind(before) || before.Behind(before) {
		t.Error("more granted, or the same, is behind")
	}
	for _, bad := range []Counters{
		{Granted: 1, Spent: 2}, {Granted: 2, Spent: 1, Returned: 2}, {Granted: -1}, {Spent: -1}, {Granted: 1, Returned: -1},
	} {
		if bad.Valid() {
			t.Errorf("%+v is valid", bad)
		}
	}
	if !before.Valid() || before.Held() != 5 || before.Net() != 9 {
		t.Errorf("%+v holds %d, net %d", before, before.Held(), before.Net())
	}
}
