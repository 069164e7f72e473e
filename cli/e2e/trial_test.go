package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/cli/e2e/oracle"
	"activerelay/relayd/bench"
)

// deliveriesAtOnce is how many attempts relayd has under way for one destination.
const deliveriesAtOnce = 20

// trial is a whole system on which faults are tried: control plane, one edge, a sink, and the books of both ends.
type trial struct {
	*stack
	edge  *edgeProcess
	books *oracle.Books
	down  string // see trialOptions

	mu   sync.Mutex
	sink *bench.Sink
}

// trialOptions differ from trial to trial; the zero value is the usual one.
type trialOptions struct {
	// stack is one without edges, where a test has prepared the directory of the first.
	stack *stack
	// down is an address that nobody listens on, to which all mail is routed; [trial.openSink] opens it.
	down string
	// users is a fiftieth of the limit. 0 means 100,000: out of reach.
	users int
	// edge are further arguments of relayd.
	edge []string
}

func newTrial(t *testing.T, o trialOptions) *trial {
	t.Helper()
	if o.stack == nil {
		o.stack = newStack(t)
	}
	if o.users == 0 {
		o.users = 100_000
	}
	r := &trial{stack: o.stack, books: oracle.New(recipients), down: o.down}
	t.Cleanup(r.closeSink)
	target := o.down
	if target == "" {
		r.openSink("127.0.0.1:0")
		target = r.sink.Addr()
	}
	r.edge = r.addEdge(o.edge...)
	r.seed(target)
	host, port, err := net.SplitHostPort(target)
	must(t, err)
	r.ctl("route", "create", "--host", host, "--port", port, "--tls", "none") // of notifications, which no domain sends
	r.ctl("domain", "update", "example.com", "--licensed-users", fmt.Sprint(o.users))
	r.synced()
	return r
}

// recipients are those of a message, by its test id. The mail of a run that is called mixed ends in three ways: delivered twice
// and returned once.
func recipients(testID string) []string {
	if strings.HasPrefix(testID, "mixed") {
		return []string{"bob@example.net", "carl@example.org", "nobody@example.net"}
	}
	return []string{"bob@example.net"}
}

// refuse is what the sink says to recipients.
func refuse(recipient string) string {
	if strings.HasPrefix(recipient, "nobody@") {
		return "550 5.1.1 no such user"
	}
	return ""
}

func (r *trial) openSink(at string) {
	r.t.Helper()
	listener, err := net.Listen("tcp", at)
	must(r.t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sink = bench.ServeSink(listener, bench.SinkOptions{
		Refuse: refuse,
		Received: func(a bench.Arrival) {
			if a.From == "" {
				r.books.Notified(a.Text)
				return
			}
			r.books.Delivered(a.ID, a.QueueID, a.Recipients, a.Damaged)
		},
	})
}

func (r *trial) closeSink() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sink != nil {
		r.sink.Close()
	}
}

// load is mail under the books; run names it within the trial.
func (r *trial) load(run string, messages, sessions, size int) bench.Load {
	to := recipients(run)
	return bench.Load{
		Server: r.edge.relay, From: "anna@example.com", To: to[0], Also: to[1:], Messages: messages, Sessions: sessions, SizeBytes: size,
		RunID: run, RetryAfter: 20 * time.Millisecond, Told: r.books.Told,
	}
}

// send sends a load to its end.
func (r *trial) send(load bench.Load) bench.Outcome {
	r.t.Helper()
	// A hundred messages a second are few even over a journal that is killed all the time.
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute+time.Duration(load.Messages)*10*time.Millisecond)
	defer cancel()
	outcome, err := bench.Send(ctx, load)
	if err != nil {
		r.t.Fatalf("load %s: %v after %d of %d messages; replies %v", load.RunID, err, outcome.Accepted, load.Messages, outcome.Replies)
	}
	return outcome
}

// background sends a load until stop is called, which answers once no message of it is under way.
func (r *trial) background(load bench.Load) (stop func() bench.Outcome) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan bench.Outcome, 1)
	go func() {
		outcome, _ := bench.Send(ctx, load)
		done <- outcome
	}()
	return func() bench.Outcome {
		cancel()
		return <-done
	}
}

// state is what relayctl says of queue and quota.
func (r *trial) state() oracle.State {
	r.t.Helper()
	var queue struct {
		Items []struct {
			MessageID   string `json:"message_id"`
			Destination string
			Recipients  int
		}
	}
	r.ctlJSON(&queue, "queue", "list")
	var quota struct{ Used, Limit int64 }
	r.ctlJSON(&quota, "quota", "show", "example.com")
	now := oracle.State{Used: quota.Used, Limit: quota.Limit}
	for _, item := range queue.Items {
		now.Queue = append(now.Queue, oracle.Waiting{QueueID: item.MessageID, Destination: item.Destination, Recipients: item.Recipients})
	}
	return now
}

// judge compares the books until they agree, for a minute at most, and tells what it found and what it waited for.
func (r *trial) judge(bounds oracle.Bounds) oracle.Verdict {
	r.t.Helper()
	return r.agreed(bounds, func(oracle.State) bool { return true })
}

// empty judges once nothing waits any more.
func (r *trial) empty(bounds oracle.Bounds) oracle.Verdict {
	r.t.Helper()
	return r.agreed(bounds, func(now oracle.State) bool { return len(now.Queue) == 0 })
}

func (r *trial) agreed(bounds oracle.Bounds, settled func(oracle.State) bool) oracle.Verdict {
	r.t.Helper()
	var verdict oracle.Verdict
	var waited string
	began := time.Now()
	agreed := within(90*time.Second, func() bool {
		now := r.state()
		verdict = r.books.Judge(now, bounds)
		if len(verdict.Wrong) == 0 && settled(now) {
			return true
		}
		waited = fmt.Sprintf("%s\n  %d wait in the queue, %d units used", verdict, len(now.Queue), now.Used)
		return false
	})
	if !agreed {
		r.t.Fatal(waited)
	}
	if took := time.Since(began); took > 10*time.Second {
		r.t.Logf("after %s the books agree; until then: %s", took.Round(time.Second), waited)
	}
	r.t.Log(verdict)
	r.noQuarantine()
	return verdict
}

// within polls a condition of real processes for some time.
func within(d time.Duration, holds func() bool) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		}
	}
	return true
}

// noQuarantine demands that the edge has found nothing damaged.
func (r *trial) noQuarantine() {
	r.t.Helper()
	if damaged := r.edgeMetric("relayd_spool_quarantined_total"); damaged != "" && damaged != "0" {
		r.t.Errorf("%s messages are in quarantine", damaged)
	}
	if names, err := filepath.Glob(filepath.Join(r.edge.dir, "*", "quarantine", "*")); err != nil || len(names) > 0 {
		r.t.Errorf("quarantine holds %v (%v)", names, err)
	}
}

// edgeMetric reads one figure of the edge; empty when the edge does not answer.
func (r *trial) edgeMetric(name string) string {
	for line := range strings.Lines(fetch("http://" + r.edge.admin + "/metrics")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// restart starts an edge that has ended, and waits until it takes mail.
func (r *trial) restart() {
	r.t.Helper()
	r.edge.kill()
	r.edge.start()
	r.waitJoined(r.edge.admin)
}

// retry makes all that waits due now: mail whose attempt was cut off by several ends in a row is suspected of being their cause,
// and waits.
func (r *trial) retry() {
	r.t.Helper()
	r.operate("retry", "--domain", "example.com")
}

// kills is what so many kills may cost.
func kills(n, sessions int) oracle.Bounds {
	return oracle.Bounds{Unanswered: n * sessions, Repeated: n * deliveriesAtOnce}
}

// fetch reads a page of a program; empty where it does not answer.
func fetch(url string) string {
	reply, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		return ""
	}
	return string(text)
}
