package queue

// ring is a queue in a circle of slots: it allocates only to grow, and gives
// back the room of a backlog that has gone.
type ring[T any] struct {
	slots   []T // a power of two, or none
	head, n int
}

const ringSmallest = 4

func (r *ring[T]) len() int { return r.n }

func (r *ring[T]) pushBack(v T) {
	if r.n == len(r.slots) {
		r.resize(max(ringSmallest, 2*len(r.slots)))
	}
	r.slots[(r.head+r.n)&(len(r.slots)-1)] = v
	r.n++
}

func (r *ring[T]) pushFront(v T) {
	if r.n == len(r.slots) {
		r.resize(max(ringSmallest, 2*len(r.slots)))
	}
	r.head = (r.head - 1) & (len(r.slots) - 1)
	r.slots[r.head] = v
	r.n++
}

// popFront takes out the first; there is one.
func (r *ring[T]) popFront() T {
	var none T
	v := r.slots[r.head]
	r.slots[r.head] = none
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.n--
	if len(r.slots) > 64 && r.n < len(r.slots)/4 {
		r.resize(len(r.slots) / 2)
	}
	return v
}

// at is the i-th from the front.
func (r *ring[T]) at(i int) T { return r.slots[(r.head+i)&(len(r.slots)-1)] }

func (r *ring[T]) resize(n int) {
	slots := make([]T, n)
	for i := range r.n {
		slots[i] = r.at(i)
	}
	r.slots, r.head = slots, 0
}
