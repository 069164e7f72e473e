package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	smallMessage = 3000
	bigMessage   = 300_000 // past 256 KiB a message is a file of its own; were it none, no rename would come
)

// killPoint is a system call at which relayd is killed, before it is carried out.
type killPoint struct {
	name, calls string
	size        int
	journal     bool // only calls on files of the journal
	samples     []int
}

func killPoints() []killPoint {
	return []killPoint{
		{name: "sync", calls: "fsync,fdatasync", size: smallMessage, samples: []int{1, 2, 9}},
		{name: "sync-big", calls: "fsync,fdatasync", size: bigMessage, samples: []int{1, 2, 3, 4}},
		{name: "log-write", calls: "write,pwrite64,writev,pwritev", size: smallMessage, journal: true, samples: []int{1, 7}},
		{name: "log-write-big", calls: "write,pwrite64,writev,pwritev", size: bigMessage, journal: true, samples: []int{1, 3}},
		{name: "any-write", calls: "write,pwrite64,writev,pwritev", size: smallMessage, samples: []int{5, 23}},
		{name: "any-write-big", calls: "write,pwrite64,writev,pwritev", size: bigMessage, samples: []int{6}},
		{name: "open", calls: "openat", size: bigMessage, samples: []int{1, 2, 5}},
		{name: "rename", calls: "rename,renameat,renameat2", size: bigMessage, samples: []int{1, 2}},
		{name: "remove", calls: "unlink,unlinkat", size: bigMessage, samples: []int{1, 2}},
	}
}

// The edge is killed at chosen system calls of its commits, deliveries and removals: nothing that it acknowledged is lost, and
// nothing arrives in part.
func TestMatrixRow2KilledAtASystemCallTheEdgeLosesNothing(t *testing.T) {
	killAtCalls(t, func(p killPoint) []int { return p.samples })
}

// The same at each of the first forty calls of every kind.
func TestSoakMatrixRow2KilledAtEachSystemCallTheEdgeLosesNothing(t *testing.T) {
	soaking(t)
	killAtCalls(t, func(killPoint) (all []int) {
		for n := range 40 {
			all = append(all, n+1)
		}
		return all
	})
}

func killAtCalls(t *testing.T, chosen func(killPoint) []int) {
	t.Helper()
	const sessions = 4
	r := newTrial(t, trialOptions{})
	killed := 0
	for _, p := range killPoints() {
		for _, n := range chosen(p) {
			r.killAt(p, n, sessions)
			killed++
		}
	}
	r.retry()
	r.empty(kills(killed, sessions))
	r.noStrayBodies()
}

// killAt sends mail until the n-th call of a thread kills the edge, and starts it again.
func (r *trial) killAt(p killPoint, n, sessions int) {
	r.t.Helper()
	var only []string
	if p.journal {
		only = r.journalFiles()
	}
	tr := r.attach(p.calls, fmt.Sprintf("signal=SIGKILL:when=%d", n), only...)
	stop := r.background(r.load(fmt.Sprintf("%s-%d", p.name, n), 100_000, sessions, p.size))
	pid := r.edge.pid()
	died := within(30*time.Second, func() bool { return dead(pid) })
	if died {
		tr.finish(300 * time.Millisecond)
	} else {
		r.t.Errorf("%s: no thread of relayd came to call %d", p.name, n)
		tr.detach()
	}
	r.restart()
	stop()
}

// startPoints are the kinds of calls by which a start changes files.
func startPoints() []killPoint {
	return []killPoint{
		{name: "start-open", calls: "openat", samples: []int{9, 16}},
		{name: "start-sync", calls: "fsync,fdatasync", samples: []int{1, 2}},
		{name: "start-write", calls: "write,pwrite64,writev,pwritev", samples: []int{3, 6}},
		{name: "start-rename", calls: "rename,renameat,renameat2", samples: []int{1}},
		{name: "start-remove", calls: "unlink,unlinkat", samples: []int{1, 3}},
	}
}

// A start after a kill is killed itself, over a queue that waits: the next start has all of it.
func TestMatrixRow2KilledWhileItStartsTheEdgeLosesNothing(t *testing.T) {
	killAtStarts(t, func(p killPoint) []int { return p.samples })
}

// The same at each of the first sixty calls of every kind.
func TestSoakMatrixRow2KilledWhileItStartsTheEdgeLosesNothing(t *testing.T) {
	soaking(t)
	killAtStarts(t, func(killPoint) (all []int) {
		for n := range 60 {
			all = append(all, n+1)
		}
		return all
	})
}

func killAtStarts(t *testing.T, chosen func(killPoint) []int) {
	t.Helper()
	down := "127.0.0.1:" + freePort(t)
	r := newTrial(t, trialOptions{down: down})
	starts, hit := 0, 0
	for _, p := range startPoints() {
		for _, n := range chosen(p) {
			r.send(r.load(fmt.Sprintf("%s-%d", p.name, n), 3, 3, smallMessage))
			r.send(r.load(fmt.Sprintf("%s-big-%d", p.name, n), 1, 1, bigMessage))
			if r.killStart(p, n) {
				hit++
			}
			starts++
			r.restart()
		}
	}
	t.Logf("%d of %d starts were killed by their system calls", hit, starts)
	if hit < starts/4 {
		t.Error("most starts were over before the call came: the test shows little")
	}
	r.openSink(down)
	r.retry()
	r.empty(kills(2*starts, 0))
	r.noStrayBodies()
}

// killStart kills the edge, and a start of it at the n-th call of a thread, or once it is up where no thread comes that far.
func (r *trial) killStart(p killPoint, n int) (hit bool) {
	r.t.Helper()
	r.edge.kill()
	tr := r.trace(p.calls, fmt.Sprintf("signal=SIGKILL:when=%d", n), nil, append([]string{os.Args[0]}, r.edge.args...)...)
	up := within(30*time.Second, func() bool { return tr.over() || fetch("http://"+r.edge.admin+"/healthz") != "" })
	if !up {
		r.t.Fatalf("%s %d: relayd neither died nor came up", p.name, n)
	}
	if tr.over() {
		return true
	}
	owner, err := os.ReadFile(filepath.Join(r.edge.dir, "journal", "owner"))
	must(r.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(owner)))
	must(r.t, err)
	must(r.t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(r.t, "the end of relayd", func() bool { return dead(strconv.Itoa(pid)) })
	tr.finish(300 * time.Millisecond)
	return false
}

// noStrayBodies demands that no body is left once the queue is empty. What a kill left behind goes at the next start.
func (r *trial) noStrayBodies() {
	r.t.Helper()
	if code := r.edge.stop(); code != 0 {
		r.t.Errorf("relayd ended with %d", code)
	}
	r.restart()
	left, err := os.ReadDir(filepath.Join(r.edge.dir, "spool"))
	must(r.t, err)
	if len(left) > 0 {
		r.t.Errorf("%d bodies are left of an empty queue, %s among them", len(left), left[0].Name())
	}
}
