package queue

import (
	"container/heap"
	"sync"

	"activerelay/relayd/internal/spool"

	"github.com/oklog/ulid/v2"
)

// entry is one message in the queue's memory. What it lacks is in the spool: a
// million of them must fit, so there is nothing in it that most do not need.
type entry struct {
	id ulid.ULID

	// mu serialises changes of the envelope. It is taken before Queue.mu.
	mu      sync.Mutex
	message *spool.Message // nil unless needed soon
	flight  *flight        // what is under way

	// Guarded by Queue.mu.
	lane  *lane // the first that it waits in; nil for none
	seats *seat // the others
	due   int64 // nanoseconds of Unix time
	index int32 // in the heap of what is due later; -1 when not there
	rests bool  // all recipients that wait are held
	gone  bool  // has left the queue; written with both mutexes held
	// loaded says that a process before this one may have begun an attempt
	// that it recorded nowhere. Guarded by mu.
	loaded bool
}

// seat is another lane that a message waits in.
type seat struct {
	lane *lane
	next *seat
}

// sits reports whether e waits in l. Queue.mu is held.
func (e *entry) sits(l *lane) bool {
	if e.lane == l {
		return true
	}
	for s := e.seats; s != nil; s = s.next {
		if s.lane == l {
			return true
		}
	}
	return false
}

func (e *entry) sit(l *lane) {
	if e.lane == nil {
		e.lane = l
		return
	}
	e.seats = &seat{lane: l, next: e.seats}
}

func (e *entry) stand(l *lane) {
	if e.lane == l {
		e.lane = nil
		if e.seats != nil {
			e.lane, e.seats = e.seats.lane, e.seats.next
		}
		return
	}
	for p := &e.seats; *p != nil; p = &(*p).next {
		if (*p).lane == l {
			*p = (*p).next
			return
		}
	}
}

// flying reports whether an attempt on a recipient is under way. The entry's mu
// is held.
func (e *entry) flying(recipient int) bool {
	for f := e.flight; f != nil; f = f.next {
		for _, i := range f.recipients {
			if i == recipient {
				return true
			}
		}
	}
	return false
}

func (e *entry) takeOff(f *flight) { f.next, e.flight = e.flight, f }

func (e *entry) land(f *flight) {
	for p := &e.flight; *p != nil; p = &(*p).next {
		if *p == f {
			*p = f.next
			break
		}
	}
	f.next, f.recipients = nil, f.recipients[:0]
}

// dueHeap holds messages by when they are due.
type dueHeap struct{ list []*entry }

func (h *dueHeap) first() *entry { return h.list[0] }
func (h *dueHeap) pop() *entry   { return heap.Pop(h).(*entry) }

// set puts e into the heap, or moves it there.
func (h *dueHeap) set(e *entry, due int64) {
	if e.index < 0 {
		e.due = due
		heap.Push(h, e)
		return
	}
	if e.due != due {
		e.due = due
		heap.Fix(h, int(e.index))
	}
}

func (h *dueHeap) remove(e *entry) {
	if e.index >= 0 {
		heap.Remove(h, int(e.index))
	}
}

// Len implements heap.Interface.
func (h *dueHeap) Len() int { return len(h.list) }

// Less implements heap.Interface; ids sort by time of acceptance.
func (h *dueHeap) Less(i, j int) bool {
	a, b := h.list[i], h.list[j]
	if a.due != b.due {
		return a.due < b.due
	}
	return a.id.Compare(b.id) < 0
}

// Swap implements heap.Interface.
func (h *dueHeap) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].index, h.list[j].index = int32(i), int32(j)
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = int32(len(h.list))
	h.list = append(h.list, e)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	e := h.list[len(h.list)-1]
	h.list[len(h.list)-1] = nil
	h.list = h.list[:len(h.list)-1]
	e.index = -1
	return e
}
