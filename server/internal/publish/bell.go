package publish

import "sync"

// Bell tells waiting polls that there is something new. It is made before the store, which rings it after each commit
// that published anything. The zero Bell is ready.
type Bell struct {
	mu       sync.Mutex
	revision int64
	rung     chan struct{}
}

// Ring wakes all who wait, unless they know of this revision already. It does not block.
func (b *Bell) Ring(revision int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if revision > b.revision {
		b.revision = revision
		b.wake()
	}
}

// Wake wakes all who wait, whatever the revision: for instructions, and for a history that changed.
func (b *Bell) Wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake()
}

func (b *Bell) wake() {
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

// listen returns the highest revision rung so far, and a channel that is closed at the next ring. Who reads after
// listening and then waits on the channel misses nothing.
func (b *Bell) listen() (int64, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.revision, b.rung
}
