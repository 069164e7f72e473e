package e2e

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"activerelay/relayd/bench"
)

// gated counts the connections that are open at once. While it is shut nothing that is sent arrives.
type gated struct {
	net.Listener

	mu         sync.Mutex
	open, peak int
	gate       chan struct{} // closed = through
}

func (g *gated) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open++
	g.peak = max(g.peak, g.open)
	return &gatedConn{Conn: conn, g: g}, nil
}

func (g *gated) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate, g.peak = make(chan struct{}), g.open
}

func (g *gated) letThrough() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.gate:
	default:
		close(g.gate)
	}
}

func (g *gated) passage() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate
}

func (g *gated) most() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peak
}

type gatedConn struct {
	net.Conn
	g      *gated
	closed sync.Once
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		<-c.g.passage()
	}
	return n, err
}

func (c *gatedConn) Close() error {
	c.closed.Do(func() {
		c.g.mu.Lock()
		defer c.g.mu.Unlock()
		c.g.open--
	})
	return c.Conn.Close()
}

// What an operator allows of connections to a destination is in force for mail that already waits as for new mail, and so is
// the end of it.
func TestADestinationNeverHasMoreConnectionsThanTheOperatorAllows(t *testing.T) {
	const messages = 12
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	doors := &gated{Listener: listener}
	doors.shut()
	sink := bench.NewSink(doors, nil)
	defer sink.Close()
	defer doors.letThrough()
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink.Addr())
	s.ctl("destination-limit", "set", "127.0.0.1", "--max-connections", "1", "--reason", "asked for by their postmaster")
	s.synced()
	send := func(run string) {
		d := dial(t, edge.relay, "127.0.0.1")
		for i := range messages {
			queuedID(t, d.send("anna@example.com", fmt.Sprintf("%s%d@example.net", run, i), letter("anna@example.com", "")))
		}
	}
	send("limited")
	eventually(t, "a connection", func() bool { return doors.most() == 1 })
	doors.letThrough()
	eventually(t, "all messages over it", func() bool { return sink.Messages() == messages })
	if most := doors.most(); most != 1 {
		t.Errorf("%d connections were open at once, want 1", most)
	}

	doors.shut()
	send("freed") // nothing of it arrives, and still the rest goes out over more connections
	s.ctl("destination-limit", "delete", "127.0.0.1", "--yes")
	eventually(t, "several connections", func() bool { return doors.most() > 1 })
	doors.letThrough()
	eventually(t, "all messages", func() bool { return sink.Messages() == 2*messages })
}
