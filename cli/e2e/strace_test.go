package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tracer is an strace that makes system calls of the edge fail, linger or kill.
type tracer struct {
	t   *testing.T
	cmd *exec.Cmd
	log string
	// ended is closed once strace has.
	ended chan struct{}
}

// attach makes the calls of the running edge that are named in calls meet with what inject says (see strace(1)), from now on.
// Calls are counted for each thread. With paths only calls on these files count.
func (r *trial) attach(calls, inject string, paths ...string) *tracer {
	r.t.Helper()
	return r.trace(calls, inject, paths, "-p", r.edge.pid())
}

// trace runs strace with further arguments: whom to attach to, or what to start.
func (r *trial) trace(calls, inject string, paths []string, more ...string) *tracer {
	r.t.Helper()
	tr := &tracer{t: r.t, log: filepath.Join(r.t.TempDir(), "strace.log"), ended: make(chan struct{})}
	args := []string{"-f", "-ttt", "-o", tr.log, "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + inject}
	for _, p := range paths {
		args = append(args, "-P", p)
	}
	tr.cmd = exec.Command(need(r.t, "strace", "strace"), append(args, more...)...)
	tr.cmd.Env = append(os.Environ(), programVariable+"=relayd") // of what strace starts
	said, err := tr.cmd.StderrPipe()
	must(r.t, err)
	must(r.t, tr.cmd.Start())
	r.t.Cleanup(tr.detach)
	lines := bufio.NewReader(said)
	if more[0] != "-p" {
		go tr.await(lines)
		return tr
	}
	for {
		line, err := lines.ReadString('\n')
		switch {
		case strings.Contains(line, "attached"):
			go tr.await(lines)
			return tr
		case strings.Contains(line, "not permitted"):
			r.t.Skipf("SKIPPED faults of system calls: this machine allows no ptrace: %s", line)
		case err != nil:
			r.t.Fatalf("strace does not attach: %q %v", line, err)
		}
	}
}

func (tr *tracer) await(said io.Reader) {
	_, _ = io.Copy(io.Discard, said)
	_ = tr.cmd.Wait()
	close(tr.ended)
}

// over reports whether what strace looked at has ended.
func (tr *tracer) over() bool {
	select {
	case <-tr.ended:
		return true
	default:
		return false
	}
}

// detach ends the faults; an edge that lives goes on.
func (tr *tracer) detach() {
	_ = tr.cmd.Process.Signal(syscall.SIGINT)
	tr.finish(5 * time.Second)
}

// finish waits for the end of strace. Where its process was killed it ends by itself, but not always: sometimes it misses the
// end of a thread and waits for ever.
func (tr *tracer) finish(patience time.Duration) {
	select {
	case <-tr.ended:
	case <-time.After(patience):
		_ = tr.cmd.Process.Kill()
		<-tr.ended
	}
}

var injectedLine = regexp.MustCompile(`(?m)^\d+ +(\d+\.\d+) .*\(INJECTED\)`)

// injected answers when calls met with an error. Calls that killed are not among them.
func (tr *tracer) injected() (times []time.Time) {
	tr.t.Helper()
	log, err := os.ReadFile(tr.log)
	must(tr.t, err)
	for _, match := range injectedLine.FindAllStringSubmatch(string(log), -1) {
		seconds, err := strconv.ParseFloat(match[1], 64)
		must(tr.t, err)
		times = append(times, time.UnixMicro(int64(seconds*1e6)))
	}
	return times
}

// dead reports whether a process has ended, though nobody has waited for it.
func dead(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fields[0] == "Z" || fields[0] == "X"
}

// journalFiles are the files that the journal has now.
func (r *trial) journalFiles() []string {
	r.t.Helper()
	names, err := filepath.Glob(filepath.Join(r.edge.dir, "journal", "*"))
	must(r.t, err)
	return names
}

// soaking skips a test that only make soak runs.
func soaking(t *testing.T) {
	t.Helper()
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED soak: run make soak")
	}
}
