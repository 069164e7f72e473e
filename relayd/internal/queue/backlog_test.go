package queue_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

// backlogVariable names the directory of a backlog to a process that is to work on it.
const backlogVariable = "QUEUE_TEST_BACKLOG"

func TestMain(m *testing.M) {
	if dir := os.Getenv(backlogVariable); dir != "" {
		if err := workOnBacklog(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The messages of a backlog: some for one destination that is dead, some of one customer who has mail for everybody, and the
// rest of many customers for many destinations.
const (
	backlogDestinations = 1000
	deadDestination     = "dead.test"
)

func backlogMessage(i int, now time.Time) *spool.Message {
	domain, to := fmt.Sprintf("customer%d.test", i%100), fmt.Sprintf("dest%d.test", i%backlogDestinations)
	switch i % 4 {
	case 0:
		to = deadDestination
	case 1:
		domain, to = "flood.test", fmt.Sprintf("dest%d.test", i)
	}
	return &spool.Message{
		Domain: domain, Partner: "acme", From: address("anna@" + domain), AcceptedAt: now,
		Recipients: []spool.Recipient{{Address: address("bob@" + to), State: spool.Pending}},
	}
}

// fillSpool stores messages of about that many bytes, many in one batch.
func fillSpool(dir string, messages, size int) error {
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal")})
	if err != nil {
		return err
	}
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "spool"), Journal: j})
	if err != nil {
		return err
	}
	text := bytes.Repeat([]byte("A line of text of sixty-four bytes, of which eighty make 5 KiB.\r\n"), size/64)
	now := time.Now()
	for from := 0; from < messages; from += 500 {
		b := j.NewBatch()
		for i := from; i < min(from+500, messages); i++ {
			m := backlogMessage(i, now)
			w, werr := s.Create()
			if werr != nil {
				return werr
			}
			_, err = w.Write(text)
			m.ID, werr = spool.NewID(now, rand.Reader)
			if err := errors.Join(err, werr, s.Stage(b, m, w), w.Discard()); err != nil {
				return err
			}
		}
		if err := j.CommitLazy(b); err != nil {
			return err
		}
	}
	return errors.Join(j.Sync(), s.Close(), j.Close())
}

// backlogReport is what the process that worked on a backlog says of itself.
type backlogReport struct {
	Loaded                int
	FirstAttempt, Reading time.Duration // since its start
	PeakRead, Peak        int64         // resident bytes: once all was read, and in the end
	HeapPerMessage        int64         // live bytes once all was read
	Delivered             int64
	Emptied               time.Duration
}

// gated is a courier that delivers one message at once and the others when all is read. The dead destination takes nothing
// before it has been open a while.
type gated struct {
	began     time.Time
	first     atomic.Int64
	open      chan struct{}
	delivered atomic.Int64
}

// Attempt implements queue.Courier.
func (g *gated) Attempt(ctx context.Context, job queue.Job) []queue.Result {
	if !g.first.CompareAndSwap(0, int64(time.Since(g.began))) {
		select {
		case <-g.open:
		case <-ctx.Done():
		}
	}
	results := make([]queue.Result, len(job.Recipients))
	for i := range results {
		results[i] = delivered()
	}
	g.delivered.Add(1)
	return results
}

// workOnBacklog is the process that finds a backlog: it reads it, says what that took, and delivers it.
func workOnBacklog(dir string) error {
	began := time.Now()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal")})
	if err != nil {
		return err
	}
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "spool"), Journal: j})
	if err != nil {
		return err
	}
	messages, err := strconv.Atoi(os.Getenv(backlogVariable + "_MESSAGES"))
	if err != nil {
		return err
	}
	g := &gated{began: began, open: make(chan struct{})}
	q, err := queue.New(queue.Config{
		Spool: s, Journal: j, Courier: g, Hostname: "edge1.relay.test", Now: time.Now, Entropy: rand.Reader,
		Note: func(b *journal.Batch, e api.EdgeEvent) error {
			b.Set([]byte("o"+*e.MessageID), []byte(e.Kind))
			return nil
		},
	})
	if err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { err = q.Run(ctx) })
	until := func(done func(queue.Stats) bool) {
		for tick := time.Tick(5 * time.Millisecond); !done(q.Stats()); {
			<-tick
		}
	}
	until(func(s queue.Stats) bool { return s.Messages >= messages-1 })
	report := backlogReport{Loaded: q.Stats().Messages, FirstAttempt: time.Duration(g.first.Load()), Reading: time.Since(began), PeakRead: peakResident()}
	runtime.GC()
	runtime.ReadMemStats(&after)
	report.HeapPerMessage = (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(messages)
	close(g.open)
	until(func(s queue.Stats) bool { return s.Messages == 0 })
	cancel()
	running.Wait()
	report.Delivered, report.Emptied, report.Peak = g.delivered.Load(), time.Since(began), peakResident()
	return errors.Join(err, s.Close(), j.Close(), json.NewEncoder(os.Stdout).Encode(report))
}

// peakResident is the most memory that this process has had, in bytes.
func peakResident() int64 {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// backlog fills a spool and lets a fresh process work on it.
func backlog(t *testing.T, messages, size int) backlogReport {
	t.Helper()
	dir := t.TempDir()
	if err := fillSpool(dir, messages, size); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), backlogVariable+"="+dir, fmt.Sprintf("%s_MESSAGES=%d", backlogVariable, messages))
	child.Stderr = os.Stderr
	out, err := child.Output()
	if err != nil {
		t.Fatalf("the process that worked on the backlog: %v", err)
	}
	var r backlogReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	t.Logf("%d messages of %d bytes: first attempt after %v, all read after %v, %d MiB resident then and %d MiB at most, %d live bytes for each; empty after %v",
		messages, size, r.FirstAttempt, r.Reading, r.PeakRead>>20, r.Peak>>20, r.HeapPerMessage, r.Emptied)
	if r.Delivered != int64(messages) {
		t.Errorf("%d attempts, want one for each message", r.Delivered)
	}
	if r.FirstAttempt > 5*time.Second {
		t.Errorf("first attempt after %v", r.FirstAttempt)
	}
	return r
}

func TestSoakAMillionQueuedMessagesFitAndGoOut(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED: set SOAK=1 (needs 8 GB of disk and some minutes)")
	}
	if r := backlog(t, 1_000_000, 5120); r.Peak > 600<<20 || r.HeapPerMessage > 200 {
		t.Errorf("%d MiB resident, %d live bytes for each message", r.Peak>>20, r.HeapPerMessage)
	}
}

// The short form of the soak, of small messages: what waits in memory is the same.
func TestTenThousandQueuedMessagesTakeLittleMemoryAndGoOut(t *testing.T) {
	// The customers and destinations of the backlog take their room from fewer messages.
	if r := backlog(t, 10_000, 256); r.HeapPerMessage > 600 {
		t.Errorf("%d live bytes for each message", r.HeapPerMessage)
	}
}
