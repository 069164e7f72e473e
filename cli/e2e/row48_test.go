package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/relayd/bench"
)

// Matrix row 48: neither a destination that is dead, with a heap of mail for it, nor a customer that floods delays the mail of
// another customer. An edge that has both is measured beside one that has neither, message by message in turn, so that whatever
// else the machine does happens to both.
func TestRow48ADeadDestinationAndAFloodDelayNobodyElse(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs=%v", hangs), func(t *testing.T) { besideTrouble(t, trouble{queued: 2000, probes: 60, hangs: hangs}, 5) })
	}
}

// The long form prints what the share of 20 % is held to.
func TestSoakRow48ADeadDestinationAndAFloodDelayNobodyElse(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED soak: run make soak")
	}
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs=%v", hangs), func(t *testing.T) { besideTrouble(t, trouble{queued: 20_000, probes: 1000, hangs: hangs}, 3) })
	}
}

// trouble is what an edge has beside the customer that is measured.
type trouble struct {
	queued int  // messages for the dead destination
	probes int  // messages of the other customer, in each round
	hangs  bool // the destination accepts connections and says nothing; else it refuses them
}

// besideTrouble fails where the 95th percentile is more than factor times what it is at an edge that has no trouble, and more
// than a second.
func besideTrouble(t *testing.T, with trouble, factor float64) {
	arrivals := &arrivals{waiting: map[string]chan time.Time{}}
	mxPort := freePort(t)
	for host, takes := range map[string]time.Duration{"127.0.0.11": 0, "127.0.0.13": 0, "127.0.0.14": 20 * time.Millisecond} {
		listener, err := net.Listen("tcp", host+":"+mxPort)
		must(t, err)
		sink := bench.NewSink(listener, func(id string) {
			<-time.After(takes)
			arrivals.note(id)
		})
		t.Cleanup(func() { sink.Close() })
	}
	if with.hangs {
		hang(t, "127.0.0.12:"+mxPort)
	}
	dns := nameServer(t, map[string]string{
		"good.example": "@ MX 10 mx\nmx A 127.0.0.11\n", "dead.example": "@ MX 10 mx\nmx A 127.0.0.12\n", "busy.example": "@ MX 10 mx\nmx A 127.0.0.13\n",
		"slow.example": "@ MX 10 mx\nmx A 127.0.0.14\n",
	})
	s := newStack(t)
	calm := s.addEdge("--resolver", dns, "--mx-port", mxPort)
	loaded := s.addEdge("--resolver", dns, "--mx-port", mxPort)
	s.seed("127.0.0.11:" + mxPort)
	s.deleteRoutes()
	s.ctl("settings", "update", "--quota-floor", "10000000")
	s.ctl("partner", "put", "flood", "--name", "Flood", "--support-contact", "x@flood.example")
	s.ctl("domain", "put", "flood.example", "--partner", "flood")
	s.ctl("relay-ip", "request", "--domain", "flood.example", "--address", "127.0.0.1")
	s.synced()

	heap := bench.Load{Server: loaded.relay, From: "a@flood.example", To: "x@dead.example", Messages: with.queued, Sessions: 10, SizeBytes: 2000, RunID: "dead"}
	outcome, err := bench.Send(t.Context(), heap)
	must(t, err)
	if outcome.Accepted != with.queued {
		t.Fatalf("accepted %d of %d: %v", outcome.Accepted, with.queued, outcome.Replies)
	}
	rounds := []struct{ name, to, flood string }{
		{name: "a dead destination", to: "good.example"},
		{name: "a dead destination and a flood for another", to: "good.example", flood: "busy.example"},
		{name: "a dead destination, once more", to: "good.example"},
		{name: "a dead destination and a flood for the same, which takes 20 ms for each message", to: "slow.example", flood: "slow.example"},
	}
	for _, round := range rounds {
		stop := func() int { return 0 }
		if round.flood != "" {
			stop = flood(t, loaded.relay, "x@"+round.flood)
		}
		times := probe(t, arrivals, with.probes, "bob@"+round.to, calm, loaded)
		flooded := stop()
		a, b := times[0], times[1]
		t.Logf("%s, with %d messages in its queue and %d of a flood: p50 %v, p95 %v; without: p50 %v, p95 %v; p95 %+.0f %%", round.name,
			int(loaded.metric(t, "relayd_queue_messages")), flooded, b[len(b)/2], b[len(b)*95/100], a[len(a)/2], a[len(a)*95/100],
			100*(float64(b[len(b)*95/100])/float64(a[len(a)*95/100])-1))
		if p := b[len(b)*95/100]; float64(p) > factor*float64(a[len(a)*95/100]) && p > time.Second {
			t.Errorf("beside %s the 95th percentile is %v, without %v", round.name, p, a[len(a)*95/100])
		}
	}
	if n := int(loaded.metric(t, "relayd_queue_messages")); n < with.queued {
		t.Errorf("%d messages are queued for the dead destination, want %d", n, with.queued)
	}
}

// probe sends messages of the other customer through each edge in turn and answers how long each took from MAIL until it
// arrived, in ascending order.
func probe(t *testing.T, arrivals *arrivals, n int, to string, edges ...*edgeProcess) (times [][]time.Duration) {
	t.Helper()
	times = make([][]time.Duration, len(edges))
	var sessions []*dialog
	for _, e := range edges {
		sessions = append(sessions, dial(t, e.relay, "127.0.0.1"))
	}
	for i := range n {
		for j, e := range edges {
			id := fmt.Sprintf("probe-%s-%d-%d", e.args[5], time.Now().UnixNano(), i)
			arrived := arrivals.expect(id)
			must(t, sessions[j].conn.SetDeadline(time.Now().Add(60*time.Second)))
			began := time.Now()
			if r := sessions[j].send("anna@example.com", to, letter("anna@example.com", "X-Load-Id: "+id+"\r\n")); r.code != 250 {
				t.Fatal(r)
			}
			select {
			case at := <-arrived:
				times[j] = append(times[j], at.Sub(began))
			case <-time.After(60 * time.Second):
				t.Fatalf("%s has not arrived after 60 s", id)
			}
		}
	}
	for j := range times {
		slices.Sort(times[j])
	}
	return times
}

// arrivals tells when a message arrived.
type arrivals struct {
	mu      sync.Mutex
	waiting map[string]chan time.Time
}

func (a *arrivals) expect(id string) <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	arrived := make(chan time.Time, 1)
	a.waiting[id] = arrived
	return arrived
}

func (a *arrivals) note(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if arrived, ok := a.waiting[id]; ok {
		arrived <- time.Now()
		delete(a.waiting, id)
	}
}

// flood sends as fast as four connections can, to a destination that takes everything; stop ends it and answers how many
// messages it were.
func flood(t *testing.T, relay, to string) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	var outcome bench.Outcome
	sending.Go(func() {
		outcome, _ = bench.Send(ctx, bench.Load{
			Server: relay, From: "a@flood.example", To: to, Messages: 10_000_000, Sessions: 4, SizeBytes: 5000, RunID: "flood",
		})
	})
	return func() int {
		cancel()
		sending.Wait()
		return outcome.Accepted
	}
}

// hang is a server that takes every connection and says nothing, and counts those that are open.
func hang(t *testing.T, listen string) (addr string, open *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", listen)
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	open = new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				conn.Close()
				open.Add(-1)
			}()
		}
	}()
	return listener.Addr().String(), open
}
