package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/bench"
)

// TestBenchRelay measures relayd beside a tuned Postfix and the bare loop: all three run all the time, each load goes to one
// after the other, and the next round goes the other way round, so that what else the machine does meets all alike. Client,
// sink and disk are the same. It prints a table; `make bench-relay` runs it.
func TestBenchRelay(t *testing.T) {
	if os.Getenv("BENCH") == "" {
		t.Skip("SKIPPED bench: run make bench-relay")
	}
	b := newRelayBench(t)
	loads, rounds := fullLoads(), 3
	if testing.Short() {
		loads, rounds = shortLoads(), 2
	}
	for _, s := range b.systems {
		b.run(s, benchLoad{sessions: 20, size: 5 << 10, keep: true, messages: 400}) // warm up
	}
	results := make(map[benchLoad][]benchRow)
	loads = chosen(t, loads)
	for _, load := range loads {
		rows := make([]benchRow, len(b.systems))
		for round := range rounds {
			for i := range b.systems {
				if round%2 == 1 {
					i = len(b.systems) - 1 - i
				}
				rows[i].name = b.systems[i].name
				rows[i].runs = append(rows[i].runs, b.run(b.systems[i], load))
			}
		}
		results[load] = rows
	}
	printRelayTable(os.Stdout, loads, rounds, results)
	b.printControlPlane(os.Stdout)
	if !testing.Short() {
		b.printIdle(os.Stdout, 5000)
	}
}

// benchLoad is what is sent in one run.
type benchLoad struct {
	sessions, size int
	keep           bool // many messages for each connection; otherwise one
	messages       int  // of the slowest system: see benchSystem.factor
}

func (l benchLoad) String() string {
	shape := "conn"
	if l.keep {
		shape = "keep"
	}
	return fmt.Sprintf("s=%d %d KiB %s", l.sessions, l.size>>10, shape)
}

// fullLoads go from few sessions to many, since Postfix keeps the processes that it once needed.
func fullLoads() []benchLoad {
	var loads []benchLoad
	for _, sessions := range []int{1, 20, 100} {
		for size, messages := range map[int]int{5 << 10: 1600, 50 << 10: 800} {
			for _, keep := range []bool{false, true} {
				loads = append(loads, benchLoad{sessions: sessions, size: size, keep: keep, messages: messages})
			}
		}
	}
	slices.SortStableFunc(loads, func(a, b benchLoad) int {
		if a.sessions != b.sessions {
			return a.sessions - b.sessions
		}
		return a.size - b.size
	})
	return loads
}

func shortLoads() []benchLoad {
	return []benchLoad{
		{sessions: 1, size: 5 << 10, messages: 600},
		{sessions: 20, size: 5 << 10, messages: 1000},
		{sessions: 20, size: 5 << 10, keep: true, messages: 1000},
		{sessions: 20, size: 50 << 10, messages: 500},
	}
}

// chosen keeps the loads whose names the regular expression in LOADS finds; all when it is not set.
func chosen(t *testing.T, loads []benchLoad) []benchLoad {
	t.Helper()
	wanted, err := regexp.Compile(os.Getenv("LOADS"))
	must(t, err)
	loads = slices.DeleteFunc(loads, func(l benchLoad) bool { return !wanted.MatchString(l.String()) })
	if len(loads) == 0 {
		t.Fatalf("LOADS=%q fits no load, such as %q", os.Getenv("LOADS"), benchLoad{sessions: 20, size: 5 << 10, keep: true})
	}
	return loads
}

// benchSystem is one of the relays that are compared.
type benchSystem struct {
	name      string
	addr      string
	processes bench.Processes
	// factor multiplies the messages of a load, so that a run of each system takes about as long.
	factor int
}

// benchFigures are one run.
type benchFigures struct {
	accept, endToEnd float64 // messages a second
	cpu              float64 // seconds for 1,000 messages
	pss              float64 // MiB when the last message had arrived
	p50, p99         float64 // ms of a transaction
}

// benchRow is one system under one load.
type benchRow struct {
	name string
	runs []benchFigures
}

// median answers the middle of one figure over the runs.
func (r benchRow) median(of func(benchFigures) float64) float64 {
	values := make([]float64, len(r.runs))
	for i, run := range r.runs {
		values[i] = of(run)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

func (r benchRow) figures() benchFigures {
	return benchFigures{
		accept:   r.median(func(f benchFigures) float64 { return f.accept }),
		endToEnd: r.median(func(f benchFigures) float64 { return f.endToEnd }),
		cpu:      r.median(func(f benchFigures) float64 { return f.cpu }),
		pss:      r.median(func(f benchFigures) float64 { return f.pss }),
		p50:      r.median(func(f benchFigures) float64 { return f.p50 }),
		p99:      r.median(func(f benchFigures) float64 { return f.p99 }),
	}
}

// relayBench is the three systems and the sink behind them.
type relayBench struct {
	t       *testing.T
	sink    *bench.Sink
	stack   *stack
	systems []*benchSystem

	plane    bench.Processes
	planeCPU time.Duration // during relayd's runs
	relayed  int
}

const (
	benchPostfix = iota
	benchRelayd
	benchCeiling
)

func newRelayBench(t *testing.T) *relayBench {
	t.Helper()
	need(t, "postfix", "postfix")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	sink := bench.NewSink(listener, nil)
	t.Cleanup(func() { sink.Close() })
	b := &relayBench{t: t, sink: sink}

	// Postfix's socket paths must be short.
	dir, err := os.MkdirTemp("/tmp", "pfb")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	postfix, err := bench.StartPostfix(filepath.Join(dir, "p"), sink.Addr())
	must(t, err)
	t.Cleanup(func() { must(t, postfix.Stop()) })

	b.stack = newStack(t)
	fmt.Sscan(b.stack.server.pid(), &b.plane.Root)
	relayd := b.startRelayd()
	b.stack.seed(sink.Addr())
	b.stack.ctl("domain", "update", "example.com", "--licensed-users", "1000000")
	b.stack.synced()

	b.systems = []*benchSystem{
		benchPostfix: {name: "postfix", addr: postfix.Addr(), processes: postfix.Processes(), factor: 1},
		benchRelayd:  relayd,
		benchCeiling: b.startCeiling(),
	}
	return b
}

// startRelayd starts the real binary with what it has by default: policy, quota, header checks, Received, events, mail log
// and metrics. Its log goes to a file on the same disk, as Postfix's does.
func (b *relayBench) startRelayd() *benchSystem {
	b.t.Helper()
	var join struct {
		Token string `json:"token"`
	}
	b.stack.ctlJSON(&join, "join-token", "create")
	addr, admin := "127.0.0.1:"+freePort(b.t), "127.0.0.1:"+freePort(b.t)
	cmd := exec.Command(built(b.t, "relayd"), "--server", b.stack.url, "--data-dir", filepath.Join(b.stack.dir, "edge"), "--name", "bench",
		"--hostname", "bench.relay.example", "--listen", addr, "--admin-listen", admin,
		"--max-connections", "8000", "--max-connections-per-address", "8000")
	cmd.Env = append(os.Environ(), "RELAYD_JOIN_TOKEN="+join.Token)
	b.start(cmd, "relayd.log")
	b.stack.waitJoined(admin)
	return &benchSystem{name: "relayd", addr: addr, processes: bench.Processes{Root: cmd.Process.Pid}, factor: 2}
}

func (b *relayBench) startCeiling() *benchSystem {
	b.t.Helper()
	addr := "127.0.0.1:" + freePort(b.t)
	cmd := exec.Command(built(b.t, "smtpload"), "ceiling", "--listen", addr, "--next", b.sink.Addr(), "--dir", b.t.TempDir())
	b.start(cmd, "ceiling.log")
	waitListening(b.t, addr)
	return &benchSystem{name: "bare loop", addr: addr, processes: bench.Processes{Root: cmd.Process.Pid}, factor: 4}
}

// built answers the path of a program that `make build` has made.
func built(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(root(t), "bin", program)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; run: make build", err)
	}
	return path
}

// start runs a program until the test ends, its output in a file.
func (b *relayBench) start(cmd *exec.Cmd, log string) {
	b.t.Helper()
	path := filepath.Join(b.stack.dir, log)
	file, err := os.Create(path)
	must(b.t, err)
	cmd.Stdout, cmd.Stderr = file, file
	must(b.t, cmd.Start())
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		file.Close()
		if text, err := os.ReadFile(path); b.t.Failed() && err == nil {
			b.t.Logf("%s printed:\n%s", cmd.Path, tail(string(text), 4000))
		}
	})
}

// run sends one load through one system and measures it.
func (b *relayBench) run(s *benchSystem, load benchLoad) benchFigures {
	b.t.Helper()
	messages := load.messages * s.factor
	perConnection := 1
	if load.keep {
		perConnection = 0
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	if s.name == "relayd" {
		defer b.record(s, load)()
	}
	had, cpu, plane := b.sink.Messages(), b.cpu(s.processes), b.cpu(b.plane)
	began := time.Now()
	outcome, err := bench.Send(ctx, bench.Load{
		Server: s.addr, From: "anna@example.com", To: "bob@example.net", Messages: messages, Sessions: load.sessions,
		SizeBytes: load.size, PerConnection: perConnection,
	})
	if err != nil || outcome.Accepted != messages {
		b.t.Fatalf("%s, %s: accepted %d of %d, %v, replies %v", s.name, load, outcome.Accepted, messages, err, outcome.Replies)
	}
	took := b.arrived(ctx, had+int64(messages)).Sub(began)
	pss, _, err := s.processes.Memory()
	must(b.t, err)
	b.settle()
	used := b.cpu(s.processes) - cpu
	if s.name == "relayd" {
		b.planeCPU += b.cpu(b.plane) - plane
		b.relayed += messages
	}
	perThousand := 1000 / float64(messages)
	f := benchFigures{
		accept: float64(messages) / outcome.Elapsed.Seconds(), endToEnd: float64(messages) / took.Seconds(),
		cpu: used.Seconds() * perThousand, pss: float64(pss) / (1 << 20),
		p50: milliseconds(outcome.Percentile(50)), p99: milliseconds(outcome.Percentile(99)),
	}
	b.t.Logf("%-18s %-9s accept %6.0f/s  end to end %6.0f/s  CPU %5.3f s/1000  p99 %6.1f ms", load, s.name, f.accept, f.endToEnd, f.cpu, f.p99)
	return f
}

// record lets perf look at the process during a run when PERF names a directory for what it sees.
func (b *relayBench) record(s *benchSystem, load benchLoad) (stop func()) {
	dir := os.Getenv("PERF")
	if dir == "" {
		return func() {}
	}
	file := filepath.Join(dir, strings.ReplaceAll(load.String(), " ", "-")+".perf")
	cmd := exec.Command("perf", "record", "-q", "-g", "-F", "999", "-o", file, "-p", fmt.Sprint(s.processes.Root))
	must(b.t, cmd.Start())
	return func() {
		must(b.t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait() // perf ends as if interrupted
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (b *relayBench) cpu(p bench.Processes) time.Duration {
	b.t.Helper()
	used, err := p.CPU()
	must(b.t, err)
	return used
}

// arrived waits until the sink has so many messages and answers when that was.
func (b *relayBench) arrived(ctx context.Context, messages int64) time.Time {
	b.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for b.sink.Messages() < messages {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("only %d of %d messages arrived", b.sink.Messages(), messages)
		}
	}
	return time.Now()
}

// settle lets the work that follows a delivery end, so that it counts to the run that caused it.
func (b *relayBench) settle() {
	timer := time.NewTimer(300 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
}

func printRelayTable(w io.Writer, loads []benchLoad, rounds int, results map[benchLoad][]benchRow) {
	fmt.Fprintf(w, "\nMedians of %d runs; conn: one message for each connection, keep: many.\n\n", rounds)
	fmt.Fprintln(w, "| load | system | accept msg/s | end to end msg/s | × Postfix | % of bare loop | CPU s/1000 | Postfix ÷ it | PSS MiB | p50 ms | p99 ms | p99 ÷ Postfix's |")
	fmt.Fprintln(w, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, load := range loads {
		rows := results[load]
		postfix, ceiling := rows[benchPostfix].figures(), rows[benchCeiling].figures()
		for _, row := range rows {
			f := row.figures()
			fmt.Fprintf(w, "| %s | %s | %.0f | %.0f | %.2f | %.0f | %.3f | %.1f | %.0f | %.2f | %.2f | %.2f |\n", load, row.name, f.accept, f.endToEnd,
				f.endToEnd/postfix.endToEnd, 100*f.endToEnd/ceiling.endToEnd, f.cpu, postfix.cpu/max(f.cpu, 1e-9), f.pss, f.p50, f.p99, f.p99/postfix.p99)
		}
	}
}

// printControlPlane says what relayd costs elsewhere: events and leases are work of the control plane, which shares the
// machine in this benchmark.
func (b *relayBench) printControlPlane(w io.Writer) {
	fmt.Fprintf(w, "\nThe control plane used %.3f s of CPU for 1,000 messages of relayd, on the same machine.\n",
		b.planeCPU.Seconds()*1000/float64(b.relayed))
}

// printIdle says what connections cost that do nothing.
func (b *relayBench) printIdle(w io.Writer, connections int) {
	b.t.Helper()
	s := b.systems[benchRelayd]
	before, _, err := s.processes.Memory()
	must(b.t, err)
	for range connections {
		conn, err := net.Dial("tcp", s.addr)
		must(b.t, err)
		defer conn.Close()
		in := bufio.NewReaderSize(conn, 512)
		_, err = in.ReadString('\n')
		must(b.t, err)
		_, err = io.WriteString(conn, "EHLO idle.example\r\n")
		must(b.t, err)
		for line := "250-"; strings.HasPrefix(line, "250-"); {
			line, err = in.ReadString('\n')
			must(b.t, err)
		}
	}
	after, _, err := s.processes.Memory()
	must(b.t, err)
	fmt.Fprintf(w, "%d idle connections after EHLO: relayd's PSS went from %d to %d MiB, %.1f KiB each.\n", connections,
		before>>20, after>>20, float64(after-before)/1024/float64(connections))
}
