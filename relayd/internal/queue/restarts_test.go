package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/internal/queue"
)

// Whatever ends the process, and when: mail that was only there is not set aside. Each process ends with attempts under way, and the
// last one, where there are suspects, also with one for a suspect.
func TestThreePlainRestartsWithABacklogQuarantineNothing(t *testing.T) {
	for _, kills := range [][]bool{{false, false, false}, {true, true, true}, {true, false, true}, {false, true, true}} {
		t.Run(fmt.Sprint("killed ", kills), func(t *testing.T) {
			e := newEdge(t, func(c *queue.Config) { c.Limits.Attempts, c.Drain = 10, 10*time.Millisecond })
			defer func() { e.close() }()
			w := &slowWorld{tried: make([]map[string]bool, len(kills))}
			e.courier.decide = w.decide
			for i, kill := range kills {
				w.begin(i)
				e.run()
				for n := range 40 {
					if i == 0 {
						e.add(fmt.Sprintf("anna@c%d.test", n%20), fmt.Sprintf("b%d@d%d.test", n, n%16))
					}
				}
				e.await("attempts under way", func() bool {
					return e.queue.Stats().Attempts == 10 && (i < 2 || !kills[0] || !kills[1] || w.again(1, 2))
				})
				if err := e.journal.Sync(); err != nil {
					t.Fatal(err)
				}
				if kill {
					e.kill(w)
				} else {
					e.close()
				}
				e.stop = nil
				e.open()
				e.rewind()
			}
			e.courier.decide = nil
			e.run()
			e.await("all mail delivered or set aside", func() bool {
				delivered := 0
				for _, kind := range e.kinds() {
					if strings.HasPrefix(kind, "message-delivered ") {
						delivered++
					}
				}
				return delivered+len(e.inQuarantine()) == 40
			})
			if aside := e.inQuarantine(); len(aside) != 0 {
				t.Errorf("set aside: %q", aside)
			}
		})
	}
}

// slowWorld are destinations that answer nothing as long as the process lives.
type slowWorld struct {
	mu      sync.Mutex
	process int
	dead    chan struct{}     // closed when the process is killed
	tried   []map[string]bool // by each process
}

func (w *slowWorld) begin(process int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.process, w.dead, w.tried[process] = process, make(chan struct{}), map[string]bool{}
}

func (w *slowWorld) decide(ctx context.Context, _ queue.Job, recipient string, _ int) queue.Result {
	w.mu.Lock()
	w.tried[w.process][recipient] = true
	dead := w.dead
	w.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-dead:
	}
	return temporary()
}

// again reports whether one process tries what another one has tried.
func (w *slowWorld) again(one, another int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for recipient := range w.tried[one] {
		if w.tried[another][recipient] {
			return true
		}
	}
	return false
}

// kill ends the process: nothing that it settles from now on gets to the disk.
func (e *edge) kill(w *slowWorld) {
	e.t.Helper()
	e.journal.Fail(errors.New("the process has ended"))
	close(w.dead)
	<-e.ended
	_, _ = e.spool.Close(), e.journal.Close()
}

// await waits for what goroutines bring about in real time.
func (e *edge) await(what string, holds func() bool) {
	e.t.Helper()
	late := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			e.t.Fatalf("%s: did not come about in 30 s; stats %+v", what, e.queue.Stats())
		}
	}
}
