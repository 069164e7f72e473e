package queue

import (
	"container/heap"
	"time"

	"activerelay/relayd/internal/spool"
)

// dueHeap holds messages by when they are due.
type dueHeap struct{ list []*entry }

func (h *dueHeap) push(e *entry) { heap.Push(h, e) }
func (h *dueHeap) pop() *entry   { return heap.Pop(h).(*entry) }
func (h *dueHeap) first() *entry { return h.list[0] }
func (h *dueHeap) fix(e *entry)  { heap.Fix(h, e.index) }
func (h *dueHeap) remove(e *entry) {
	if e.index >= 0 {
		heap.Remove(h, e.index)
	}
}

// Len implements heap.Interface.
func (h *dueHeap) Len() int { return len(h.list) }

// Less implements heap.Interface; ids sort by time of acceptance.
func (h *dueHeap) Less(i, j int) bool {
	a, b := h.list[i], h.list[j]
	if !a.due.Equal(b.due) {
		return a.due.Before(b.due)
	}
	return a.id < b.id
}

// Swap implements heap.Interface.
func (h *dueHeap) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].index, h.list[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(h.list)
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

// underWay stands in LastReply while an attempt is under way. Found at the
// start of the process it says that the attempt was cut short by a crash.
const underWay = "attempt under way"

// interruptedLimit is how many attempts in all a message may have behind it and
// still be tried at once after a crash. Past it, it may be what crashes us.
const interruptedLimit = 2

// firstDue is when the first of m's recipients that wait is due; busy ones are
// left out. There is none when all that wait are held.
func (q *Queue) firstDue(m *spool.Message, busy map[int]struct{}) (due time.Time, found bool) {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if _, b := busy[i]; b || r.State.Final() || r.Held && !r.Cancelling {
			continue
		}
		if at := q.recipientDue(r); !found || at.Before(due) {
			due, found = at, true
		}
	}
	return due, found
}

func (q *Queue) recipientDue(r *spool.Recipient) time.Time {
	if r.Cancelling {
		return time.Time{} // there is nothing to wait for
	}
	if r.LastReply == underWay && r.Attempts > interruptedLimit {
		return r.LastAttempt.Add(q.Backoff(r.Attempts, q.Random()))
	}
	return r.NextAttempt
}
