package e2e

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/bench"
)

// What an operator allows in a minute is spread over it: of messages that come together the second goes out a second after the
// first, and so on. A busy machine makes them later, never earlier.
func TestADestinationGetsNoMoreMessagesAMinuteThanTheOperatorAllows(t *testing.T) {
	const messages, perMinute = 4, 60
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var mu sync.Mutex
	var arrivals []time.Time
	sink := bench.ServeSink(listener, bench.SinkOptions{Received: func(bench.Arrival) {
		mu.Lock()
		defer mu.Unlock()
		arrivals = append(arrivals, time.Now())
	}})
	defer sink.Close()
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink.Addr())
	s.ctl("destination-limit", "set", "127.0.0.1", "--messages-per-minute", fmt.Sprint(perMinute), "--reason", "asked for by their postmaster")
	s.synced()
	d := dial(t, edge.relay, "127.0.0.1")
	began := time.Now()
	for i := range messages {
		queuedID(t, d.send("anna@example.com", fmt.Sprintf("limited%d@example.net", i), letter("anna@example.com", "")))
	}
	eventually(t, "all messages", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(arrivals) == messages
	})
	mu.Lock()
	defer mu.Unlock()
	for i, at := range arrivals {
		if since := at.Sub(began); since < time.Duration(i)*time.Minute/perMinute {
			t.Errorf("message %d arrived %v after the first was sent, want %d s at least", i+1, since, i)
		}
	}
}
