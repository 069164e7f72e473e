package queue

// turns are the customers that could start something, by how many attempts they
// have under way: who has fewest is next, and among equals who has waited
// longest. So one whose attempts take minutes keeps others from no slot that
// becomes free, and the last slots are for those who have none.
type turns struct {
	levels []level
	lowest int // there is nobody below
}

// level is a list of customers who have equally many attempts under way.
type level struct{ first, last *customer }

// newTurns is for customers with fewer than so many attempts under way.
func newTurns(most int) turns { return turns{levels: make([]level, most), lowest: most} }

// first is who is next of those with fewer than so many attempts under way; nil
// when there is nobody.
func (t *turns) first(below int) *customer {
	for ; t.lowest < min(below, len(t.levels)); t.lowest++ {
		if c := t.levels[t.lowest].first; c != nil {
			return c
		}
	}
	return nil
}

// add puts c behind its equals.
func (t *turns) add(c *customer) {
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
func (t *turns) remove(c *customer) {
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
