package spool

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// headroomBytes are kept free in front of a text, so that the fields that go
	// above it make one piece with it.
	headroomBytes = 2 << 10
	// smallBytes is the buffer that every Writer begins with, headroom included.
	smallBytes = 8 << 10
)

// bufferSizes are few, so that a text is moved to a larger one once or twice: each
// time costs a copy. The last has room for the largest text that is kept in memory.
var bufferSizes = [...]int{smallBytes, 64 << 10, headroomBytes + InlineBytes}

// memory lends the buffers that texts lie in, and uses them again.
type memory struct {
	pools [len(bufferSizes)]sync.Pool // of *[]byte, by size
	// lent is what all buffers in use come to.
	lent atomic.Int64
	// writing is what Writers hold beyond the first small buffer of each, and most
	// what that may come to.
	writing atomic.Int64
	most    int64
}

// lend gives an empty buffer with room for n bytes.
func (m *memory) lend(n int) *[]byte {
	class := sizeClass(n)
	buffer, _ := m.pools[class].Get().(*[]byte)
	if buffer == nil {
		b := make([]byte, 0, bufferSizes[class])
		buffer = &b
	}
	*buffer = (*buffer)[:0]
	m.lent.Add(int64(cap(*buffer)))
	return buffer
}

func (m *memory) takeBack(buffer *[]byte) {
	m.lent.Add(-int64(cap(*buffer)))
	m.pools[sizeClass(cap(*buffer))].Put(buffer)
}

// sizeClass is the first of bufferSizes that has room for n bytes.
func sizeClass(n int) int {
	class := 0
	for bufferSizes[class] < n {
		class++
	}
	return class
}

// text is one message's text in memory. It grows while it belongs to its Writer
// alone; once it is handed over nobody changes it, and it goes back when the last
// of its users has released it.
type text struct {
	memory *memory
	buffer *[]byte // begins with the headroom
	users  atomic.Int32

	// What follows is the handover's.
	id           string // under which it is listed; empty when it is not
	whole        []byte // the part of the buffer that is fields and text
	since        time.Time
	durable      bool
	older, newer *text
}

func (m *memory) newText() *text {
	t := &text{memory: m, buffer: m.lend(smallBytes)}
	t.users.Store(1)
	*t.buffer = (*t.buffer)[:headroomBytes]
	return t
}

// bytes is what has arrived.
func (t *text) bytes() []byte { return (*t.buffer)[headroomBytes:] }

// append adds p to the text, and answers false where that takes more memory
// than there may be.
func (t *text) append(p []byte) bool {
	n := len(*t.buffer) + len(p)
	if n > headroomBytes+InlineBytes || n > cap(*t.buffer) && !t.grow(n) {
		return false
	}
	*t.buffer = append(*t.buffer, p...)
	return true
}

// grow moves the text to a buffer with room for n bytes.
func (t *text) grow(n int) bool {
	old := t.buffer
	more := int64(bufferSizes[sizeClass(n)] - cap(*old))
	if t.memory.writing.Add(more) > t.memory.most {
		t.memory.writing.Add(-more)
		return false
	}
	t.buffer = t.memory.lend(n)
	*t.buffer = append(*t.buffer, *old...)
	t.memory.takeBack(old)
	return true
}

// put writes fields directly above the text and gives the whole in one piece;
// nil where the headroom is too small.
func (t *text) put(fields []byte) []byte {
	if len(fields) > headroomBytes {
		return nil
	}
	whole := (*t.buffer)[headroomBytes-len(fields):]
	copy(whole, fields)
	return slices.Clip(whole)
}

// written ends the Writer's use.
func (t *text) written() {
	t.memory.writing.Add(smallBytes - int64(cap(*t.buffer)))
	t.release()
}

func (t *text) release() {
	if t.users.Add(-1) == 0 {
		t.memory.takeBack(t.buffer)
		t.buffer = nil
	}
}
