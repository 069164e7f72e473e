package queue

// turns are those that could start something, by how many attempts they have
// under way: who has fewest is next, and among equals who came to that number
// first. So one whose attempts take minutes keeps others from no slot that becomes
// free, and the last slots are for those who have none.
type turns[T any] struct {
	levels []level[T]
	lowest int // there is nobody below
}

// turn is the place of a T in turns.
type turn[T any] struct {
	of            T
	flying        int  // attempts under way; changes only while it is not queued
	queued        bool // in turns
	ahead, behind *turn[T]
}

// level is a list of those who have equally many attempts under way.
type level[T any] struct{ first, last *turn[T] }

// first is who is next of those with fewer than so many attempts under way; nil
// when there is nobody.
func (t *turns[T]) first(below int) *turn[T] {
	for ; t.lowest < min(below, len(t.levels)); t.lowest++ {
		if next := t.levels[t.lowest].first; next != nil {
			return next
		}
	}
	return nil
}

func (t *turns[T]) empty() bool { return t.first(len(t.levels)) == nil }

// add puts w behind its equals.
func (t *turns[T]) add(w *turn[T]) {
	for len(t.levels) <= w.flying {
		t.levels = append(t.levels, level[T]{})
	}
	at := &t.levels[w.flying]
	w.queued, w.ahead = true, at.last
	if at.last == nil {
		at.first = w
	} else {
		at.last.behind = w
	}
	at.last = w
	t.lowest = min(t.lowest, w.flying)
}

// remove takes w out.
func (t *turns[T]) remove(w *turn[T]) {
	at := &t.levels[w.flying]
	if w.ahead == nil {
		at.first = w.behind
	} else {
		w.ahead.behind = w.behind
	}
	if w.behind == nil {
		at.last = w.ahead
	} else {
		w.behind.ahead = w.ahead
	}
	w.queued, w.ahead, w.behind = false, nil, nil
}
