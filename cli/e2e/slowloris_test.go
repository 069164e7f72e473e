package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// Matrix row 14: two thousand connections, as many as the edge takes, are held by clients that say a byte a second or only NOOP,
// from many addresses, and dial again when they are let go. A real client is served all the while, and memory stays bounded.
//
// Beside other tests and under the race detector, on two cores, the slowest of these few messages took up to nine seconds: there half
// of them must be served within two seconds, and each within thirty.
func TestRow14ARealClientIsServedBesideTwoThousandSlowOnes(t *testing.T) {
	slowloris(t, 8*time.Second, 50)
}

// The same for longer and without the race detector: 99 of 100 messages within two seconds, and at most 200 MiB resident.
func TestSoakRow14ARealClientIsServedBesideTwoThousandSlowOnes(t *testing.T) {
	soaking(t)
	edge := slowloris(t, 90*time.Second, 99)
	peak := edge.memoryLine(t, "VmHWM")
	t.Logf("at most %d MiB were resident", peak>>20)
	if peak > 200<<20 {
		t.Errorf("%d MiB were resident, want 200 MiB at most", peak>>20)
	}
}

// slowloris demands that so many percent of a real client's messages take at most two seconds, and answers the edge.
func slowloris(t *testing.T, span time.Duration, percent int) *edgeProcess {
	t.Helper()
	const drip, noop = 2000, 200
	raiseOpenFiles(t, 2*(drip+noop)+500)
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
	s := newStack(t)
	edge := s.addEdge()
	s.seed(mx.Addr().String())
	s.ctl("settings", "update", "--quota-floor", "1000000")
	s.synced()
	before := edge.memory(t)

	attack := startSlowClients(t, edge.relay, drip, noop)
	eventually(t, "slow clients that were let go", func() bool { return attack.told("421 4.4.2") > 0 && attack.told("421 4.7.0") > 0 })
	var took []time.Duration
	var peak int64
	deferred := 0
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for began := time.Now(); time.Since(began) < span || len(took) < 20; {
		start := time.Now()
		for !sendOne(t, edge.relay) { // a mail server tries again
			deferred++
			<-again.C
			if time.Since(start) > 30*time.Second {
				t.Fatal("a real client was turned away for 30 s")
			}
		}
		took = append(took, time.Since(start))
		peak = max(peak, edge.memory(t))
	}
	attack.stop()
	slices.Sort(took)
	t.Logf("%d messages, %d times turned away; median %v, p99 %v; slow clients dialled %d times and were told %v; memory %d MiB, before %d MiB",
		len(took), deferred, took[len(took)/2], took[len(took)*99/100], attack.dialled.Load(), attack.all(), peak>>20, before>>20)
	if p := took[len(took)*percent/100]; p > 2*time.Second {
		t.Errorf("percentile %d of a real client is %v, want 2 s at most", percent, p)
	}
	// Each costs about 10 KiB while it is waited for; the rest is garbage, of refusals above all, and what mail takes.
	if peak-before > 100<<20 {
		t.Errorf("memory grew from %d MiB to %d MiB", before>>20, peak>>20)
	}
	eventually(t, "every message at the next hop", func() bool { return len(mx.Messages()) >= len(took) })
	return edge
}

// raiseOpenFiles lets this process, and those that it starts, have so many files open.
func raiseOpenFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur >= n {
		return
	}
	if limit.Max < n {
		t.Skipf("SKIPPED %s: it needs %d open files, the machine allows %d", t.Name(), n, limit.Max)
	}
	limit.Cur = n
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
}

// memory is what Go holds of the system for an edge, in bytes. Resident memory would be about the race detector, which takes more
// for each goroutine than the edge does.
func (e *edgeProcess) memory(t *testing.T) int64 {
	t.Helper()
	return int64(e.metric(t, "go_memstats_sys_bytes") - e.metric(t, "go_memstats_heap_released_bytes"))
}

// slowClients hold connections, each from one of many addresses.
type slowClients struct {
	server  string
	over    chan struct{}
	ended   sync.WaitGroup
	dialled atomic.Int64

	mu   sync.Mutex
	ends map[string]int // by the code that a connection ended with
}

func startSlowClients(t *testing.T, server string, drip, noop int) *slowClients {
	a := &slowClients{server: server, over: make(chan struct{}), ends: map[string]int{}}
	for i := range drip + noop {
		from := fmt.Sprintf("127.0.1.%d", 1+i%80)
		a.ended.Go(func() {
			// They do not all dial at once, which would measure the backlog of the socket.
			wait := time.NewTimer(time.Duration(i%drip) * time.Second / time.Duration(drip))
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-a.over:
			}
			for a.goesOn() {
				a.hold(from, i >= drip)
			}
		})
	}
	t.Cleanup(func() { a.stop() })
	return a
}

func (a *slowClients) goesOn() bool {
	select {
	case <-a.over:
		return false
	default:
		return true
	}
}

func (a *slowClients) stop() {
	if a.goesOn() {
		close(a.over)
	}
	a.ended.Wait()
}

func (a *slowClients) told(code string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ends[code]
}

func (a *slowClients) all() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprint(a.ends)
}

// hold says one byte a second, or one NOOP, until the server has enough; then it waits a second.
func (a *slowClients) hold(from string, noop bool) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	dialer := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", a.server)
	if err != nil {
		a.note(err.Error())
		<-tick.C
		return
	}
	a.dialled.Add(1)
	told, greeted := make(chan string, 1), make(chan struct{}, 1)
	go func() {
		in, last := bufio.NewReaderSize(conn, 512), "no 421"
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				told <- last
				return
			}
			if strings.HasPrefix(line, "220 ") {
				greeted <- struct{}{}
			}
			if strings.HasPrefix(line, "421") && len(line) > 9 {
				last = "421 " + line[4:9]
			}
		}
	}()
	for hello := false; ; {
		select {
		case <-greeted:
			hello = true
			if noop {
				_, _ = io.WriteString(conn, "EHLO client.example\r\n") // the reader sees the end
			}
		case <-tick.C:
			switch {
			case hello && noop:
				_, _ = io.WriteString(conn, "NOOP\r\n")
			case hello:
				_, _ = io.WriteString(conn, "X")
			}
		case last := <-told:
			conn.Close()
			a.note(last)
			select {
			case <-tick.C:
			case <-a.over:
			}
			return
		case <-a.over:
			conn.Close()
			<-told
			return
		}
	}
}

func (a *slowClients) note(end string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends[end]++
}

// sendOne sends a message over a connection of its own, as a mail server does; false is a 421 instead of a greeting.
func sendOne(t *testing.T, server string) bool {
	t.Helper()
	conn, err := net.DialTimeout("tcp", server, 30*time.Second)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(60*time.Second)))
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220") {
		return false
	}
	for _, say := range []struct{ line, want string }{
		{"EHLO mail.example.com", "250"},
		{"MAIL FROM:<anna@example.com>", "250"},
		{"RCPT TO:<bob@example.net>", "250"},
		{"DATA", "354"},
		{letter("anna@example.com", "") + ".", "250"},
		{"QUIT", "221"},
	} {
		if _, err := io.WriteString(conn, say.line+"\r\n"); err != nil {
			t.Fatalf("a real client cannot send %.20q: %v", say.line, err)
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, say.want) {
				t.Fatalf("a real client was answered %q (%v) to %.20q", line, err, say.line)
			}
			if line[3] == ' ' {
				break
			}
		}
	}
	return true
}
