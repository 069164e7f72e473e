package deliver_test

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/bench"
	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"

	"github.com/prometheus/client_golang/prometheus"
)

// Matrix row 46: whatever the network does, every message arrives whole, and
// twice only where the reply after its final dot was lost.
func TestRow46MailGetsThroughABadNetworkOnceForEachLostReply(t *testing.T) {
	for i, c := range []struct {
		name     string
		commands []string // run with the server's side of the network
		slow     string   // how both directions are slowed down
		delay    time.Duration
		cut      int // so many of 100 replies are lost together with their connection
		messages int
		size     int
	}{
		{
			name: "30 percent of all packets are lost", messages: 20, size: 5 << 10,
			commands: []string{
				"nft add rule inet test in numgen random mod 100 < 30 drop",
				"nft add rule inet test out numgen random mod 100 < 30 drop",
			},
		},
		{
			name: "every tenth packet is answered with a reset", messages: 40, size: 20 << 10,
			commands: []string{"nft add rule inet test in tcp flags & syn != syn numgen random mod 100 < 10 reject with tcp reset"},
		},
		{
			name: "1 Mbit/s and 400 ms", messages: 10, size: 20 << 10, delay: 200 * time.Millisecond,
			slow: "tbf rate 1mbit burst 10k latency 400ms",
		},
		{name: "connections are cut with a reply on the way", messages: 60, size: 1 << 10, cut: 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := relaytest.NewNetwork(t, i)
			l := &letters{t: t, sent: make(map[string]int), lost: make(map[string]int), got: make(map[string]int)}
			sink := bench.ServeSink(n.Listen(), bench.SinkOptions{Received: l.arrived})
			defer sink.Close()
			at := netip.MustParseAddrPort(sink.Addr())
			if c.delay > 0 || c.cut > 0 {
				at = detour(t, at, c.delay, c.cut)
			}
			for _, command := range c.commands {
				n.Inside(command)
			}
			if c.slow != "" {
				n.Do("tc qdisc add dev " + n.Near + " root " + c.slow)
				n.Inside("tc qdisc add dev " + n.Far + " root " + c.slow)
			}
			l.send(at, c.messages, c.size)
			l.judge(c.messages)
		})
	}
}

// detour is a way to at on which every byte takes so long, in each direction,
// and on which so many of 100 replies are lost together with their connection.
func detour(t *testing.T, at netip.AddrPort, delay time.Duration, cut int) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", at.String())
			if err != nil {
				_ = near.Close()
				continue
			}
			running.Go(func() { carry(far, near, delay, 0) })
			running.Go(func() { carry(near, far, delay, cut) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return netip.MustParseAddrPort(listener.Addr().String())
}

// carry copies until either side is closed.
func carry(to, from net.Conn, delay time.Duration, cut int) {
	type parcel struct {
		bytes []byte
		due   time.Time
	}
	under := make(chan parcel, 1000)
	go func() {
		defer close(under)
		for {
			block := make([]byte, 4096)
			n, err := from.Read(block)
			if err != nil {
				return
			}
			under <- parcel{bytes: block[:n], due: time.Now().Add(delay)}
		}
	}()
	for p := range under {
		<-time.After(time.Until(p.due))
		if rand.IntN(100) < cut {
			_ = from.Close()
			_ = to.Close()
		}
		if _, err := to.Write(p.bytes); err != nil {
			_ = from.Close()
		}
	}
	_ = to.Close()
}

// letters are messages on their way, and what became of each, by id.
type letters struct {
	t *testing.T

	mu sync.Mutex
	// sent counts attempts, lost those whose final reply was lost, got copies
	// at the server.
	sent, lost, got map[string]int
	damaged         int
}

func (l *letters) arrived(a bench.Arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got[a.ID]++
	if a.Damaged {
		l.damaged++
	}
}

// send tries each message until it is delivered, ten at a time.
func (l *letters) send(at netip.AddrPort, messages, size int) {
	l.t.Helper()
	registry := prometheus.NewRegistry()
	s := newSender(l.t, func(c *deliver.Config) {
		c.AllowTargetNetworks = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} }
		c.Metrics = registry
		c.Timeouts.Setup = 10 * time.Second
	})
	waiting := make(chan string, messages)
	for i := range messages {
		waiting <- fmt.Sprintf("letter-%d", i)
	}
	close(waiting)
	var workers sync.WaitGroup
	for range 10 {
		workers.Go(func() {
			for id := range waiting {
				l.deliver(s, at, id, size)
			}
		})
	}
	workers.Wait()
	if counted := counter(l.t, registry, "relayd_deliver_uncertain_total"); counted != l.total(l.lost) {
		l.t.Errorf("the metric counts %d lost replies, the results %d", counted, l.total(l.lost))
	}
}

func (l *letters) deliver(s *deliver.Sender, at netip.AddrPort, id string, size int) {
	body := strings.Repeat(strings.Repeat(id+" ", 5)+"\r\n", size/60)
	text := fmt.Sprintf("X-Load-Id: %s\r\nX-Load-Sum: %08x\r\n\r\n%s", id, crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)), body)
	job := jobByMX(text, "b@y.test")
	job.MessageID, job.Route = id, queue.Route{Host: at.Addr().String(), Port: at.Port()}
	for l.t.Context().Err() == nil {
		r := s.Attempt(l.t.Context(), job)[0]
		l.mu.Lock()
		l.sent[id]++
		if r.Uncertain {
			l.lost[id]++
		}
		l.mu.Unlock()
		if r.Class == queue.Delivered {
			return
		}
		if r.Class == queue.PermFail {
			l.t.Errorf("%s: %s %q (%v)", id, brief(r), r.Text, r.Err)
			return
		}
	}
}

func (l *letters) total(of map[string]int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, one := range of {
		n += one
	}
	return n
}

func (l *letters) judge(messages int) {
	l.t.Helper()
	l.t.Logf("%d messages: %d attempts, %d lost replies, %d copies", messages, l.total(l.sent), l.total(l.lost), l.total(l.got))
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range messages {
		id := fmt.Sprintf("letter-%d", i)
		if n := l.got[id]; n < 1 || n > 1+l.lost[id] {
			l.t.Errorf("%s arrived %d times, with %d lost replies", id, n, l.lost[id])
		}
	}
	if l.damaged > 0 || len(l.got) != messages {
		l.t.Errorf("%d messages arrived, %d damaged", len(l.got), l.damaged)
	}
}

func counter(t *testing.T, registry *prometheus.Registry, name string) int {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
