package journal

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Batch collects changes that become true together or not at all. It belongs
// to one goroutine and can be committed once.
type Batch struct {
	inner   *pebble.Batch
	lost    bool // the journal has ranges whose keys are lost
	ordered []func(*Batch)
	durable []func()
	done    bool

	ordinal uint64 // place in the log, once it has one
	turn    turn   // in the group that is synced together
}

// NewBatch starts an empty batch. One that is never committed must be
// discarded.
func (j *Journal) NewBatch() *Batch {
	return &Batch{inner: j.db.NewBatch(), lost: j.lost}
}

// Set gives key a value. Both are copied.
func (b *Batch) Set(key, value []byte) { _ = b.inner.Set(key, value, nil) }

// SetBuilt is Set of a value of size bytes that build writes into its place, so
// that a large one is not put together elsewhere first. build must fill all of it.
func (b *Batch) SetBuilt(key []byte, size int, build func(value []byte)) {
	op := b.inner.SetDeferred(len(key), size)
	copy(op.Key, key)
	build(op.Value)
	_ = op.Finish()
}

// Append adds suffix to the end of key's value, as if an empty one were there
// when there is none. It reads nothing, so it costs what suffix costs.
func (b *Batch) Append(key, suffix []byte) { _ = b.inner.Merge(key, suffix, nil) }

// Delete removes key; a key that does not exist is no error.
func (b *Batch) Delete(key []byte) { _ = b.inner.Delete(key, nil) }

// DeleteOnce is Delete for a key that was Set at most once and is never Set again:
// both then vanish as soon as they meet, where a Delete goes on being carried
// through the tables. For any other key what is there afterwards is undefined.
func (b *Batch) DeleteOnce(key []byte) { _ = b.inner.SingleDelete(key, nil) }

// DeleteRange removes every key k with start <= k < end, also those that are lost:
// of them it is known from then on that they do not exist.
func (b *Batch) DeleteRange(start, end []byte) {
	_ = b.inner.DeleteRange(start, end, nil)
	if b.lost && bytes.Compare(start, end) < 0 {
		_ = b.inner.RangeKeyDelete(start, end, nil)
	}
}

// Len is the size of the batch in bytes as it will be logged.
func (b *Batch) Len() int { return b.inner.Len() }

// Ordered registers fn to run when the batch takes its place in the log.
//
//  1. Such functions run one at a time, in the order in which the batches
//     become durable: of two batches, a crash never keeps only the later.
//  2. fn may add to the batch. It must not call the journal, nor block: every
//     other committer waits.
//  3. Once fn has run, the batch fails only if the journal fails for good, so
//     fn has nothing to undo.
//  4. fn does not run for a batch that is discarded or refused.
func (b *Batch) Ordered(fn func(*Batch)) { b.ordered = append(b.ordered, fn) }

// OnDurable registers fn to run once the batch is known to be on the disk:
// before Commit returns nil, or, for a lazy batch, with the next synced one.
// It does not run when the commit fails.
//
// fn may call the journal, except Close. When it is Close that makes a lazy batch
// durable, the journal answers ErrClosed to all that fn asks.
func (b *Batch) OnDurable(fn func()) { b.durable = append(b.durable, fn) }

// Discard releases a batch that will not be committed. After a commit, and
// when repeated, it does nothing.
func (b *Batch) Discard() {
	if b.done {
		return
	}
	b.done = true
	_ = b.inner.Close()
}

// durableHook is the OnDurable part of a lazy batch at its place in the log.
type durableHook struct {
	ordinal uint64
	fns     []func()
}

// Commit makes the batch durable. On nil it is on the disk; on error nothing
// may be acknowledged that depends on it.
func (j *Journal) Commit(b *Batch) error { return j.commit(b, true) }

// CommitLazy makes the batch visible but does not wait for the disk. A crash
// may forget it, and everything lazy after it. Only for facts whose loss
// repeats work and breaks no promise.
func (j *Journal) CommitLazy(b *Batch) error { return j.commit(b, false) }

// Sync waits until everything committed so far is on the disk.
func (j *Journal) Sync() error { return j.Commit(j.emptyBatch()) }

func (j *Journal) emptyBatch() *Batch {
	b := j.NewBatch()
	_ = b.inner.LogData(nil, nil)
	return b
}

// syncLast is Sync once the gate is shut. It does not wait for the pressure to
// fall: what it adds to the memory tables is nothing.
func (j *Journal) syncLast() error {
	b := j.emptyBatch()
	if err := j.group.commit(j, b); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	j.runDurable(b, true)
	return nil
}

func (j *Journal) commit(b *Batch, sync bool) error {
	if b.done {
		return errors.New("commit: batch was committed or discarded before")
	}
	if err := j.gate.enter(); err != nil {
		b.Discard()
		return fmt.Errorf("commit: %w", err)
	}
	defer j.gate.leave() // after the hooks: Close must find those of lazy batches
	began := time.Now()
	err := j.admit()
	switch {
	case err != nil:
		b.Discard()
	case sync:
		err = j.group.commit(j, b)
	default:
		err = j.commitNow(b)
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	j.metrics.committed(sync, time.Since(began))
	j.runDurable(b, sync)
	return nil
}

func (j *Journal) runDurable(b *Batch, sync bool) {
	if !sync {
		if len(b.durable) > 0 {
			j.lazyMu.Lock()
			j.lazy = append(j.lazy, durableHook{ordinal: b.ordinal, fns: b.durable})
			j.lazyMu.Unlock()
		}
		return
	}
	for _, fn := range b.durable {
		fn()
	}
	for _, h := range j.coveredBy(b.ordinal) {
		for _, fn := range h.fns {
			fn()
		}
	}
}

// coveredBy takes out the lazy hooks that the sync at ordinal made durable.
func (j *Journal) coveredBy(ordinal uint64) []durableHook {
	j.lazyMu.Lock()
	defer j.lazyMu.Unlock()
	if len(j.lazy) == 0 {
		return nil
	}
	var covered, rest []durableHook
	for _, h := range j.lazy {
		if h.ordinal < ordinal {
			covered = append(covered, h)
		} else {
			rest = append(rest, h)
		}
	}
	j.lazy = rest
	return covered
}
