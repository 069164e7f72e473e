package maillog

import (
	"io"
	"sync"
	"time"
)

const (
	// flushAfter is how long a line waits for others to be written with it, and
	// so what a crash may take of the log.
	flushAfter = 50 * time.Millisecond
	// flushBytes are written at once.
	flushBytes = 64 << 10
	// maxWaiting bounds the lines that wait for a reader.
	maxWaiting = 1 << 20
	// patience is how long anybody waits for a reader.
	patience = time.Second
)

// Buffer gathers lines and writes many with one system call: 50 ms after the
// first of them, when there are many, and at each Flush. A crash, kill -9 and an
// unrecovered panic lose the lines of at most those 50 ms; the events in the
// journal are the record, the log is only for reading.
//
// A reader that does not read holds nobody up for long. Once 1 MiB waits for it,
// the next line waits a second for room; then, and after a Flush that took a
// second in vain, nobody waits and lines without room are lost, until something
// could be written. How many were lost is said in their place.
type Buffer struct {
	out  io.Writer
	lost func(lines int) []byte
	// wake says that there are lines, hurry that they are not to wait, closing that there are no more.
	wake, hurry, closing, ended chan struct{}

	mu      sync.Mutex
	waiting []byte
	spare   []byte        // the memory of what was written last
	took    int64         // bytes that were ever put into waiting
	wrote   int64         // bytes of those that are written
	turn    chan struct{} // closed when something was written
	missing int           // lines that found no room
	stuck   bool          // nobody waits for the reader
	closed  bool
	err     error // of the last write
}

// NewBuffer returns a Buffer over out, which must be closed. lost makes the line
// that stands for some that found no room; nil leaves it out.
func NewBuffer(out io.Writer, lost func(lines int) []byte) *Buffer {
	b := &Buffer{
		out: out, lost: lost, turn: make(chan struct{}),
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{}),
	}
	go b.run()
	return b
}

// Write takes a whole line, or several. It fails only when the Buffer is closed.
func (b *Buffer) Write(lines []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, io.ErrClosedPipe
	case b.full(len(lines)) && !b.waitForRoom(len(lines)):
		b.missing++
	default:
		b.put(lines)
	}
	return len(lines), nil
}

func (b *Buffer) full(size int) bool { return len(b.waiting) > 0 && len(b.waiting)+size > maxWaiting }

func (b *Buffer) waitForRoom(size int) bool {
	deadline := time.Now().Add(patience)
	for b.full(size) {
		if b.stuck || !b.await(deadline) {
			b.stuck = true
			return false
		}
	}
	return true
}

// await gives up the lock until something was written, and reports false once
// the deadline is over.
func (b *Buffer) await(deadline time.Time) bool {
	turn := b.turn
	b.mu.Unlock()
	defer b.mu.Lock()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-turn:
		return true
	case <-b.ended:
		return false
	case <-timer.C:
		return false
	}
}

func (b *Buffer) put(lines []byte) {
	if len(b.waiting) == 0 {
		signal(b.wake)
	}
	b.waiting = append(b.waiting, lines...)
	b.took += int64(len(lines))
	if len(b.waiting) >= flushBytes {
		signal(b.hurry)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Flush writes what waits, unless the reader takes longer than a second.
func (b *Buffer) Flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	deadline := time.Now().Add(patience)
	for upTo := b.took; b.wrote < upTo; {
		signal(b.hurry)
		if b.stuck || !b.await(deadline) {
			b.stuck = true
			return b.err
		}
	}
	return b.err
}

// Immediate returns a writer whose lines are written before it returns, behind
// those that wait.
func (b *Buffer) Immediate() io.Writer { return immediate{b} }

type immediate struct{ *Buffer }

func (i immediate) Write(lines []byte) (int, error) {
	n, err := i.Buffer.Write(lines)
	if err == nil {
		err = i.Flush()
	}
	return n, err
}

// Close writes what waits, unless the reader takes longer than a second, and
// ends the Buffer. It may be called twice.
func (b *Buffer) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.closing)
	}
	b.mu.Unlock()
	select {
	case <-b.ended:
	case <-time.After(patience):
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *Buffer) run() {
	defer close(b.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-b.wake:
		case <-b.closing:
			b.flush()
			b.flush() // what the first put there in place of lost lines
			return
		}
		timer.Reset(flushAfter)
		select {
		case <-timer.C:
		case <-b.hurry:
		case <-b.closing:
		}
		b.flush()
	}
}

// flush writes what waits, in one call.
func (b *Buffer) flush() {
	b.mu.Lock()
	lines := b.waiting
	b.waiting, b.spare = b.spare[:0], nil
	b.mu.Unlock()
	if len(lines) == 0 {
		return
	}
	_, err := b.out.Write(lines)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare, b.err, b.stuck = lines, err, false
	b.wrote += int64(len(lines))
	if b.missing > 0 && b.lost != nil {
		b.put(b.lost(b.missing))
	}
	b.missing = 0
	close(b.turn)
	b.turn = make(chan struct{})
}
