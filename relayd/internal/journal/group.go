package journal

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// group is where synced batches meet. The first that comes leads: it puts all
// that wait into the log, syncs once, and tells them. Who comes meanwhile waits
// for the next round, led by one of them. So there is at most one sync at a time,
// and each takes all that it can.
//
// The engine has a group commit of its own, which begins the next sync as soon as
// one is asked for. A disk that syncs in 0.1 ms then syncs for nearly every
// message, while those that would have shared it are about to run on the same
// processors. Here the leader first lets them run, for as long as more of them
// keep coming: no timer, and nothing to wait for when there is one session.
type group struct {
	mu      sync.Mutex
	waiting []*Batch
	spare   []*Batch // the slice of the round before
	led     bool
}

// turn is how a waiting batch hears from the leader of its group.
type turn struct {
	wake sync.WaitGroup
	lead bool // not done: lead the next round
	err  error
}

// maxYields bounds how often a leader lets others run before it syncs.
const maxYields = 8

// commit makes b durable together with others.
func (g *group) commit(j *Journal, b *Batch) error {
	g.mu.Lock()
	g.waiting = append(g.waiting, b)
	if !g.led {
		g.led = true
		g.mu.Unlock()
		g.lead(j, b)
		return b.turn.err
	}
	b.turn.wake.Add(1)
	g.mu.Unlock()
	b.turn.wake.Wait()
	if b.turn.lead {
		g.lead(j, b)
	}
	return b.turn.err
}

// lead commits all that wait, own among them, and passes the lead on.
func (g *group) lead(j *Journal, own *Batch) {
	round := g.gather()
	j.commitRound(round)

	g.mu.Lock()
	if len(g.waiting) > 0 {
		next := &g.waiting[0].turn
		next.lead = true
		next.wake.Done()
	} else {
		g.led = false
	}
	g.mu.Unlock()
	for _, b := range round {
		if b != own {
			b.turn.wake.Done()
		}
	}
	clear(round)
	g.mu.Lock()
	g.spare = round[:0]
	g.mu.Unlock()
}

// gather takes out those that wait, after having let more come.
func (g *group) gather() []*Batch {
	seen := 0
	for range maxYields {
		runtime.Gosched()
		g.mu.Lock()
		n := len(g.waiting)
		g.mu.Unlock()
		if n == seen {
			break
		}
		seen = n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	round := g.waiting
	g.waiting, g.spare = g.spare, nil
	return round
}

// commitRound gives each batch its place in the log and syncs once. What became
// of it is in each batch's turn.
func (j *Journal) commitRound(round []*Batch) {
	j.order.Lock()
	for i, b := range round {
		b.turn.err = j.enter(b, i == len(round)-1)
	}
	j.order.Unlock()
	last := round[len(round)-1]
	if last.turn.err == nil {
		if err := last.inner.SyncWait(); err != nil {
			j.Fail(err)
		}
	}
	// The engine's word does not count (see guard.go), the journal's own failure
	// flag does, and that is set before the engine hears of any sync.
	failed := j.Err()
	if failed == nil {
		j.synced = max(j.synced, uint64(last.inner.SeqNum())+uint64(last.inner.Count()))
	}
	for _, b := range round {
		b.turn.err = j.release(b, failed)
	}
}

// commitNow gives a lazy batch its place.
func (j *Journal) commitNow(b *Batch) error {
	j.order.Lock()
	err := j.enter(b, false)
	j.order.Unlock()
	if err != nil {
		return err
	}
	return j.release(b, j.Err())
}

// release gives the engine's part of b back. After a failure the engine may
// still hold it: it is left to the collector.
func (j *Journal) release(b *Batch, failed error) error {
	if failed != nil {
		return failed
	}
	return b.inner.Close()
}

// enter gives the batch its place: hooks, log and memory table. With sync, a sync
// of the log up to here begins, which is not waited for. j.order is held.
func (j *Journal) enter(b *Batch, sync bool) (err error) {
	if err := j.Err(); err != nil {
		b.Discard()
		return err
	}
	// The engine panics where it cannot go on. guard.go leaves it no reason
	// to; should it find one, that is a failed journal, not a dead process.
	defer func() {
		if r := recover(); r != nil {
			j.Fail(fmt.Errorf("engine panic: %v", r))
			err = j.Err()
		}
	}()
	b.done = true
	for _, fn := range b.ordered {
		fn(b)
	}
	if sync {
		// Also because the engine would pass an empty batch over, without the
		// sync that lazy batches before it are promised.
		_ = b.inner.LogData(appendMark(nil, j.synced), nil)
	}
	j.ordinal++
	b.ordinal = j.ordinal
	if sync {
		err = j.db.ApplyNoSyncWait(b.inner, pebble.Sync)
	} else {
		err = j.db.Apply(b.inner, pebble.NoSync)
	}
	if err != nil {
		j.Fail(err)
		return j.Err()
	}
	return nil
}
