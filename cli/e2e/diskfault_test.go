package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/cli/e2e/oracle"
	"activerelay/relayd/bench"
)

// After a sync that failed, the edge acknowledges nothing any more, says so to senders and to monitoring, and ends. The next start
// has everything that was acknowledged.
func TestMatrixRow4AFailedSyncEndsAllAcknowledgement(t *testing.T) {
	for _, f := range []struct {
		name, when string
		size       int
	}{
		{name: "only-the-first", when: "when=1", size: smallMessage},
		{name: "from-the-third-on", when: "when=3+", size: smallMessage},
		{name: "file", when: "when=2", size: bigMessage},
	} {
		t.Run(f.name, func(t *testing.T) { failSync(t, f.when, f.size) })
	}
}

// acknowledgements notes when each 250 came, beside the books.
type acknowledgements struct {
	mu      sync.Mutex
	times   []time.Time
	refused map[string]int
}

func (a *acknowledgements) beside(told func(id, reply string)) func(id, reply string) {
	return func(id, reply string) {
		told(id, reply)
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case strings.HasPrefix(reply, "250"):
			a.times = append(a.times, time.Now())
		case reply != "":
			a.refused[reply]++
		}
	}
}

func failSync(t *testing.T, when string, size int) {
	const sessions = 8
	r := newTrial(t, trialOptions{})
	r.send(r.load("before", 20, sessions, size))
	tr := r.attach("fsync,fdatasync", "error=EIO:"+when)
	alarm := r.watchAlarm()
	acks := &acknowledgements{refused: map[string]int{}}
	load := r.load("fault", 1000, sessions, size)
	load.Told = acks.beside(r.books.Told)
	stop := r.background(load)
	pid := r.edge.pid()
	if !within(40*time.Second, func() bool { return dead(pid) }) {
		t.Error("relayd goes on over a disk that has failed")
	}
	ended := time.Now()
	stop()
	tr.detach()
	failed := tr.injected()
	if len(failed) == 0 {
		t.Fatal("no sync failed")
	}
	// What was synced before the failure may still be answered a moment after it: one message of each session.
	late := slices.DeleteFunc(acks.times, func(at time.Time) bool { return at.Before(failed[0]) })
	if n := len(late); n > sessions || n > 0 && late[n-1].Sub(failed[0]) > time.Second {
		t.Errorf("after the first failed sync %d messages were acknowledged, the last %s later", n, late[n-1].Sub(failed[0]))
	}
	for line := range acks.refused {
		if !strings.HasPrefix(line, "451-4.3.0 ") && !strings.HasPrefix(line, "421") {
			t.Errorf("refused with %q", line)
		}
	}
	alarm(failed[0])
	r.restart()
	r.send(r.load("after", 20, sessions, size))
	v := r.empty(oracle.Bounds{Doubtful: sessions, Unanswered: sessions, Repeated: deliveriesAtOnce})
	t.Logf("%d syncs failed; relayd ended %s later; acknowledged were %d more, refused %v, of which %d were stored", len(failed),
		ended.Sub(failed[0]).Round(time.Millisecond), len(late), acks.refused, v.Doubtful)
}

// watchAlarm looks at the readiness of the edge and answers how to demand that it told of the failure within 5 seconds: as not
// ready for want of its journal, or by its end.
func (r *trial) watchAlarm() (demand func(failed time.Time)) {
	var at time.Time
	done, stop := make(chan struct{}), make(chan struct{})
	pid := r.edge.pid()
	go func() {
		defer close(done)
		within(time.Minute, func() bool {
			select {
			case <-stop:
				return true
			default:
			}
			if !r.failing("journal") && !dead(pid) {
				return false
			}
			at = time.Now()
			return true
		})
	}()
	return func(failed time.Time) {
		r.t.Helper()
		close(stop)
		<-done
		if at.IsZero() || at.Sub(failed) > 5*time.Second {
			r.t.Errorf("the alarm came %s after the failure (at %v)", at.Sub(failed), at)
		}
		if !strings.Contains(r.edge.out.String(), "journal failed") {
			r.t.Error("the log does not say that the journal failed")
		}
	}
}

// failing reports whether the edge is not ready, and names the check.
func (r *trial) failing(check string) bool {
	var report struct {
		Checks []struct{ Name, Status string }
	}
	if json.Unmarshal([]byte(fetch("http://"+r.edge.admin+"/readyz")), &report) != nil {
		return false
	}
	for _, c := range report.Checks {
		if c.Name == check {
			return c.Status != "ok"
		}
	}
	return false
}

// Over a disk whose syncs take 0.3 s and more, no reply comes before its sync, all of them come in time, and memory stays flat.
func TestMatrixRow7ASlowDiskSlowsTheRepliesAndNothingElse(t *testing.T) {
	slowDisk(t, 300*time.Millisecond, 40, 400)
}

// The same with syncs of 2 and 5 seconds.
func TestSoakMatrixRow7ASlowDiskSlowsTheRepliesAndNothingElse(t *testing.T) {
	soaking(t)
	for _, delay := range []time.Duration{2 * time.Second, 5 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) { slowDisk(t, delay, 40, 200) })
	}
}

func slowDisk(t *testing.T, delay time.Duration, sessions, messages int) {
	r := newTrial(t, trialOptions{})
	r.send(r.load("warm", 200, sessions, smallMessage))
	before := r.resident()
	tr := r.attach("fsync,fdatasync", fmt.Sprintf("delay_enter=%d", delay.Microseconds()))
	most := before
	watched := make(chan struct{})
	sampling := make(chan struct{})
	go func() {
		defer close(watched)
		within(10*time.Minute, func() bool {
			select {
			case <-sampling:
				return true
			default:
				most = max(most, r.resident())
				return false
			}
		})
	}()
	load := r.load("slow", messages, sessions, smallMessage)
	load.Timeout = 30 * time.Second
	outcome := r.send(load)
	close(sampling)
	<-watched
	tr.detach()
	if first := outcome.Transactions[0]; first < delay {
		t.Errorf("a message was acknowledged after %s: a sync takes %s", first, delay)
	}
	if outcome.Broken > 0 || len(outcome.Replies) > 0 {
		t.Errorf("%d connections broke, refused were %v", outcome.Broken, outcome.Replies)
	}
	if grown := most - before; grown > 64<<20 {
		t.Errorf("memory grew from %d to %d MiB", before>>20, most>>20)
	}
	t.Logf("syncs of %s: p50 %s, p99 %s, memory %d to %d MiB", delay, outcome.Percentile(50), outcome.Percentile(99), before>>20, most>>20)
	r.empty(oracle.Bounds{})
}

// resident is the memory of the edge in bytes.
func (r *trial) resident() int64 {
	var pid int
	fmt.Sscan(r.edge.pid(), &pid)
	pss, _, err := bench.Processes{Root: pid}.Memory()
	if err != nil {
		return 0
	}
	return pss
}
