package spool

import (
	"sync"
	"time"
)

// handover keeps texts in memory from the moment their message is stored to the
// end of its first attempt, which usually begins at once: it need not read back
// what the same process has just written. The rules:
//
//  1. A text is offered when it is staged, and given out once it is durable. If
//     its Writer is discarded before that, nothing is kept.
//  2. It is dropped when its message is written again (an attempt did not settle
//     it), removed or put into quarantine.
//  3. Where there is no room a newer text is not kept: the turn of the older ones
//     comes first. One that has waited for patience makes room: it waits for
//     something else than its turn.
//  4. Dropping it only means that who opens it from now on reads the disk. Who has
//     it open goes on.
type handover struct {
	mu             sync.Mutex
	texts          map[string]*text
	oldest, newest *text
	bytes, most    int64 // of the buffers
}

// patience is for how long a text may wait while newer ones find no room.
const patience = 10 * time.Second

// offer lists t, with fields above it, under id.
func (h *handover) offer(id string, t *text, fields []byte, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(t) // a batch with it was dropped before
	h.remove(h.texts[id])
	size := int64(cap(*t.buffer))
	if size > h.most || t.users.Load() > 1 {
		return
	}
	if t.whole = t.put(fields); t.whole == nil {
		return
	}
	for h.bytes+size > h.most {
		if now.Sub(h.oldest.since) < patience {
			return
		}
		h.remove(h.oldest)
	}
	t.users.Add(1)
	t.id, t.since, t.durable, t.older, t.newer = id, now, false, h.newest, nil
	if h.newest != nil {
		h.newest.newer = t
	} else {
		h.oldest = t
	}
	h.newest, h.texts[id] = t, t
	h.bytes += size
}

// durable lets t be given out, if it is still listed.
func (h *handover) durable(t *text) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.durable = t.id != ""
}

// open gives the text of a message to one more user, or nil.
func (h *handover) open(id string) *text {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.texts[id]
	if t == nil || !t.durable {
		return nil
	}
	t.users.Add(1)
	return t
}

func (h *handover) drop(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(h.texts[id])
}

// abandon drops t unless it is durable.
func (h *handover) abandon(t *text) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !t.durable {
		h.remove(t)
	}
}

// remove takes t off the list, if it is there. h.mu is held.
func (h *handover) remove(t *text) {
	if t == nil || t.id == "" {
		return
	}
	if t.older != nil {
		t.older.newer = t.newer
	} else {
		h.oldest = t.newer
	}
	if t.newer != nil {
		t.newer.older = t.older
	} else {
		h.newest = t.older
	}
	delete(h.texts, t.id)
	h.bytes -= int64(cap(*t.buffer))
	t.id, t.older, t.newer = "", nil, nil
	t.release()
}
