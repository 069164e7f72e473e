package queue

// turns are those that could start something, by how many attempts they have
// under way: who has fewest is next, and among equals who has waited longest. So
// one whose attempts take minutes keeps others from no slot that becomes free,
// and the last slots are for those who have none.
type turns[T any] struct {
	levels []level[T]
	lowest int // there is nobody below
}

// turn is the place of a T in turns.
type turn[T any] struct {
	of            T
	flying        int
	queued        bool // in turns
	ahead, behind *turn[T]
}

// level is a list of those who have equally many attempts under way.
type level[T any] struct{ first, last *turn[T] }

// first is who is next of those with fewer than so many attempts under way; nil
// when there is nobody.
func (t *turns[T]) first(below int) *turn[T] {
	for ; t.lowest < min(below, len(t.levels)); t.lowest++ {
		if c := t.levels[t.lowest].first; c != nil {
			return c
		}
	}
	return nil
}

func (t *turns[T]) empty() bool { return t.first(len(t.levels)) == nil }

// add puts c behind its equals.
func (t *turns[T]) add(c *turn[T]) {
	for len(t.levels) <= c.flying {
		t.levels = append(t.levels, level[T]{})
	}
	at := &t.levels[c.flying]
	c.queued, c.ahead = true, at.last
	if at.last == nil {
		at.first = c
	} else {
		at.last.behind = c
	}
	at.last = c
	t.lowest = min(t.lowest, c.flying)
}

// remove takes c out, before its number of attempts changes.
func (t *turns[T]) remove(c *turn[T]) {
	at := &t.levels[c.flying]
	if c.ahead == nil {
		at.first = c.behind
	} else {
		c.ahead.behind = c.behind
	}
	if c.behind == nil {
		at.last = c.ahead
	} else {
		c.behind.ahead = c.ahead
	}
	c.queued, c.ahead, c.behind = false, nil, nil
}
