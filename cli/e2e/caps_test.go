package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"activerelay/cli/e2e/oracle"
)

// With 256 file descriptors the edge turns connections away that it could not serve, and goes on with the others.
func TestMatrixRow10WithFewFileDescriptorsTheEdgeTurnsClientsAway(t *testing.T) {
	const wanted = 400
	r := newTrial(t, trialOptions{edge: []string{"--max-connections-per-address", fmt.Sprint(wanted)}})
	r.edge.wrap = []string{"prlimit", "--nofile=256:256"}
	r.restart()
	pid := r.edge.pid()
	served, turnedAway, conns := r.crowd(wanted)
	if served < 20 || turnedAway < wanted/4 || served+turnedAway != wanted {
		t.Errorf("of %d clients %d were greeted and %d turned away", wanted, served, turnedAway)
	}
	// As many as are left for others go on, with files for their messages.
	for _, c := range conns[:served*3/4] {
		c.Close()
	}
	r.send(r.load("mixed-crowd", 100, served/2, bigMessage))
	for _, c := range conns {
		c.Close()
	}
	outcome := r.send(r.load("after", 200, 10, smallMessage))
	if outcome.Broken > 0 {
		t.Errorf("%d connections broke once the crowd had gone", outcome.Broken)
	}
	r.empty(oracle.Bounds{})
	if dead(pid) || r.edge.pid() != pid {
		t.Error("relayd ended")
	}
	if log := r.edge.out.String(); strings.Contains(log, "too many open files") {
		t.Error("descriptors ran out")
	}
	t.Logf("%d of %d clients were greeted", served, wanted)
}

// crowd opens connections and answers how many were greeted, and how many were turned away with 421. Those that were greeted stay
// open.
func (r *trial) crowd(n int) (served, turnedAway int, open []net.Conn) {
	r.t.Helper()
	for range n {
		c, err := net.DialTimeout("tcp", r.edge.relay, 10*time.Second)
		must(r.t, err)
		r.t.Cleanup(func() { c.Close() })
		must(r.t, c.SetDeadline(time.Now().Add(10*time.Second)))
		line, err := bufio.NewReader(c).ReadString('\n')
		switch {
		case err == nil && strings.HasPrefix(line, "220"):
			served++
			open = append(open, c)
		case err == nil && strings.HasPrefix(line, "421"):
			turnedAway++
			c.Close()
		default:
			r.t.Errorf("a client was told %q, %v", line, err)
		}
	}
	return served, turnedAway, open
}

// Under a cap of memory the edge takes a load of big messages from many sessions without being ended for it. The cap leaves room
// for the race detector and the other programs in the test's binary.
func TestMatrixRow10UnderAMemoryCapTheEdgeIsNotKilled(t *testing.T) {
	capMemory(t, 640<<20, "", 1000, 60)
}

// The same for relayd as it is built for use, within 128 MiB.
func TestSoakMatrixRow10Within128MiBTheEdgeIsNotKilled(t *testing.T) {
	soaking(t)
	relayd := filepath.Join(t.TempDir(), "relayd")
	build := exec.Command("go", "build", "-o", relayd, "activerelay/relayd/cmd/relayd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	capMemory(t, 128<<20, relayd, 5000, 200)
}

// capMemory runs a relayd, or that of the test's binary, in a control group with a limit.
func capMemory(t *testing.T, limit int64, relayd string, small, big int) {
	t.Helper()
	group := newMemoryGroup(t, limit)
	r := newTrial(t, trialOptions{edge: []string{"--max-connections-per-address", "1000"}})
	enter := "echo $$ >" + group.procs()
	if relayd != "" {
		enter += "; shift; set -- " + relayd + ` "$@"`
	}
	r.edge.wrap = []string{"sh", "-c", enter + `; exec "$@"`, "sh"}
	r.restart()
	pid := r.edge.pid()
	_, _, idle := r.crowd(300)
	r.send(r.load("small", small, 100, 20_000))
	r.send(r.load("big", big, 50, 3_000_000))
	for _, c := range idle {
		c.Close()
	}
	r.send(r.load("mixed-after", 50, 10, smallMessage))
	r.empty(oracle.Bounds{})
	if dead(pid) || r.edge.pid() != pid || group.killed() > 0 {
		t.Errorf("relayd ended; the group counts %d kills", group.killed())
	}
	t.Logf("the group took at most %d of %d MiB, its files included; relayd has %d MiB now", group.peak()>>20, limit>>20, r.resident()>>20)
}

// memoryGroup is a control group of our own within the one that the test is in.
type memoryGroup struct {
	t   *testing.T
	dir string
	v2  bool
}

func newMemoryGroup(t *testing.T, limit int64) *memoryGroup {
	t.Helper()
	g := &memoryGroup{t: t}
	text, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case fields[1] == "memory":
			g.dir = filepath.Join("/sys/fs/cgroup/memory", fields[2])
		case fields[1] == "" && g.dir == "":
			g.dir, g.v2 = filepath.Join("/sys/fs/cgroup", fields[2]), true
		}
	}
	g.dir = filepath.Join(g.dir, fmt.Sprintf("activerelay-test-%d", os.Getpid()))
	if err = os.Mkdir(g.dir, 0o755); err == nil {
		t.Cleanup(func() {
			within(10*time.Second, func() bool { return os.Remove(g.dir) == nil })
		})
		err = os.WriteFile(filepath.Join(g.dir, g.name("memory.max", "memory.limit_in_bytes")), []byte(strconv.FormatInt(limit, 10)), 0o644)
	}
	if err != nil {
		t.Skipf("SKIPPED memory cap: this machine lets nobody make control groups of memory: %v", err)
	}
	return g
}

func (g *memoryGroup) name(v2, v1 string) string {
	if g.v2 {
		return v2
	}
	return v1
}

func (g *memoryGroup) procs() string { return filepath.Join(g.dir, "cgroup.procs") }

func (g *memoryGroup) peak() int64 {
	text, err := os.ReadFile(filepath.Join(g.dir, g.name("memory.peak", "memory.max_usage_in_bytes")))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	must(g.t, err)
	return n
}

// killed is how many processes were ended for the limit.
func (g *memoryGroup) killed() (n int) {
	text, err := os.ReadFile(filepath.Join(g.dir, g.name("memory.events", "memory.oom_control")))
	must(g.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
			fmt.Sscan(value, &n)
		}
	}
	return n
}
