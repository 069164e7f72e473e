package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/bench"
)

// tally counts messages by their id.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func newTally() *tally { return &tally{counts: map[string]int{}} }

func (t *tally) add(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[id]++
}

func (t *tally) distinct() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.counts)
}

func (t *tally) snapshot() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	copied := make(map[string]int, len(t.counts))
	for id, n := range t.counts {
		copied[id] = n
	}
	return copied
}

// Twenty kills of edge and control plane under load, while 5,000 messages of a domain with a limit of 6,000 are sent: every
// acknowledged message arrives, and what was accepted, arrived and counted stays within the limit.
func TestNothingAcknowledgedIsLostWhenEdgeAndControlPlaneAreKilled(t *testing.T) {
	crashRun(t, crashPlan{messages: 5000, kills: 20, licensedUsers: 120})
}

// The same at the length of a soak: 100,000 messages, 50 kills.
func TestSoakNothingAcknowledgedIsLostOverFiftyKills(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED soak: run make soak")
	}
	crashRun(t, crashPlan{messages: 100_000, kills: 50, licensedUsers: 2400})
}

type crashPlan struct {
	messages, kills int
	licensedUsers   int // the limit is 50 times that
}

func crashRun(t *testing.T, plan crashPlan) {
	t.Helper()
	acknowledged, arrived := newTally(), newTally()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	sink := bench.NewSink(listener, arrived.add)
	defer sink.Close()
	s := newStack(t)
	edge := s.addEdge()
	s.seed(sink.Addr())
	s.ctl("domain", "update", "example.com", "--licensed-users", fmt.Sprint(plan.licensedUsers))
	s.synced()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	var outcome bench.Outcome
	var sending sync.WaitGroup
	sending.Go(func() {
		outcome, err = bench.Send(ctx, bench.Load{
			Server: edge.relay, From: "anna@example.com", To: "bob@example.net", Messages: plan.messages, Sessions: 8, SizeBytes: 2000,
			RunID: "crash", RetryAfter: 50 * time.Millisecond, Acknowledged: acknowledged.add,
		})
	})
	killed := s.killWhile(acknowledged, edge, plan)
	sending.Wait()
	must(t, err)
	if killed < plan.kills {
		t.Fatalf("only %d of %d kills happened under load", killed, plan.kills)
	}
	if outcome.Accepted != plan.messages {
		t.Fatalf("accepted %d of %d; replies %v", outcome.Accepted, plan.messages, outcome.Replies)
	}
	// An independent count: what was acknowledged is compared with what arrived, not with what the edge believes.
	sent := acknowledged.snapshot()
	missing := func() (ids []string) {
		got := arrived.snapshot()
		for id := range sent {
			if got[id] == 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	eventually(t, "arrival of every acknowledged message", func() bool { return len(missing()) == 0 })
	s.crashCounts(edge, sink, outcome, plan)
}

// killWhile kills edge and control plane in turn, each kill after its share of the messages.
func (s *stack) killWhile(acknowledged *tally, edge *edgeProcess, plan crashPlan) (killed int) {
	s.t.Helper()
	share := plan.messages / (plan.kills + 1)
	for killed < plan.kills {
		goal := (killed+1)*share - rand.IntN(share/2+1)
		eventually(s.t, fmt.Sprintf("message %d", goal), func() bool { return acknowledged.distinct() >= goal })
		victim := edge.process
		if killed%4 == 3 {
			victim = s.server
		}
		victim.kill()
		victim.start()
		killed++
	}
	return killed
}

// crashCounts compares the books: a message is doubled at most where a kill cut off a reply, and every unit is accounted for.
func (s *stack) crashCounts(edge *edgeProcess, sink *bench.Sink, outcome bench.Outcome, plan crashPlan) {
	t := s.t
	t.Helper()
	limit := int64(plan.licensedUsers * 50)
	doubled := sink.Messages() - int64(plan.messages)
	// For each kill: the sessions that waited for a reply, and the deliveries whose mark was not written yet.
	bound := int64(plan.kills) * (8 + 40)
	if doubled < 0 || doubled > bound {
		t.Errorf("%d messages arrived for %d acknowledged: %d doubled, at most %d may be", sink.Messages(), plan.messages, doubled, bound)
	}
	var quota struct{ Used, Limit int64 }
	eventually(t, "a count at the control plane", func() bool {
		s.ctlJSON(&quota, "quota", "show", "example.com")
		return quota.Used >= int64(outcome.Accepted)
	})
	if quota.Used > limit || quota.Limit != limit {
		t.Errorf("used %d of %d (limit %d)", quota.Used, quota.Limit, limit)
	}
	t.Logf("%d kills, %d broken connections, %d doubled, %d units for %d acknowledged", plan.kills, outcome.Broken, doubled, quota.Used, outcome.Accepted)
	if names, err := filepath.Glob(filepath.Join(edge.dir, "*", "quarantine", "*")); err != nil || len(names) > 0 {
		t.Errorf("quarantine holds %v (%v)", names, err)
	}
}

// A second edge on the same data refuses to start, at once and in clear words (matrix row 9).
func TestMatrixRow9ASecondEdgeOnTheSameDataRefusesToStart(t *testing.T) {
	s := newStack(t)
	edge := s.addEdge()
	cmd := command("relayd", "--server", s.url, "--data-dir", edge.dir, "--listen", "127.0.0.1:0", "--admin-listen", "")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatal("the second edge did not end")
	}
	if code := cmd.ProcessState.ExitCode(); code == 0 || !strings.Contains(out.String(), "in use") || !strings.Contains(out.String(), edge.dir) {
		t.Errorf("exit %d and\n%s", code, out.String())
	}
}
