package queue

import (
	"slices"
	"time"

	"activerelay/relayd/internal/spool"
)

// plan is where a message belongs just now.
type plan struct {
	way  way   // a destination for which it is due
	due  bool  // there is one
	more []way // the others
	next int64 // when another recipient is due, in nanoseconds of Unix time; 0 = none
	open bool  // not all recipients have their final state
	busy bool  // an attempt is under way
	// limited says that an operator's limit may keep it waiting.
	limited bool
	// poison says that no attempt may be made any more: it is to be set aside.
	poison bool
}

func (p *plan) add(w way) {
	switch {
	case !p.due:
		p.way, p.due = w, true
	case p.way != w && !slices.Contains(p.more, w):
		p.more = append(p.more, w)
	}
}

// plan looks at every recipient of m. The entry's mu is held, or nobody else
// knows the entry yet.
func (q *Queue) plan(p *plan, e *entry, m *spool.Message, now time.Time) {
	p.busy = e.flight != nil
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.State.Final() {
			continue
		}
		p.open = true
		if e.flying(i) {
			continue
		}
		if interrupted(e, r) >= poisonAfter && !r.Cancelling {
			p.poison = true
		}
		if r.Held && !r.Cancelling {
			continue
		}
		if due := q.recipientDue(e, r); due.After(now) {
			if at := due.UnixNano(); p.next == 0 || at < p.next {
				p.next = at
			}
			continue
		}
		p.add(q.wayOf(e, m, r))
	}
	if p.poison {
		p.due, p.more, p.next = false, nil, 0
		if !p.busy {
			p.next = now.UnixNano() // the loop sets it aside
		}
	}
}

// wayOf is the destination of one recipient.
func (q *Queue) wayOf(e *entry, m *spool.Message, r *spool.Recipient) way {
	if interrupted(e, r) >= suspectAfter {
		return way{suspect: true}
	}
	return q.Route(m.Domain, r.Address.Domain).way(r.Address.Domain)
}

// place puts e where its recipients want it: into lanes, into the heap, or out
// of the queue when nobody is left. Both mutexes are held, or nobody else knows
// the entry yet.
func (q *Queue) place(p *plan, e *entry, m *spool.Message) {
	if !p.open {
		q.drop(e)
		return
	}
	if p.due {
		q.seat(p, e, m)
	}
	if p.limited {
		// To tell why it waits, if it still does.
		if at := q.Now().Add(busyAfter).UnixNano(); p.next == 0 || at < p.next {
			p.next = at
		}
	}
	if p.next != 0 {
		q.due.set(e, p.next)
		if q.due.first() == e {
			q.wake()
		}
	} else {
		q.due.remove(e)
	}
	q.rest(e, !p.due && p.next == 0 && !p.busy)
	if !p.busy && (!p.due || q.lanes.waiting > keepEnvelopes) {
		e.message = nil
	}
}

// seat puts e into the lanes of what it is due for.
func (q *Queue) seat(p *plan, e *entry, m *spool.Message) {
	c := q.lanes.customer(customerOf(m))
	w := p.way
	for i := 0; ; i++ {
		d := q.lanes.push(e, c, w)
		if d == nil {
			c.excess.pushBack(e)
			return
		}
		if d.dead() {
			q.lanes.asleep.pushBack(e)
			q.wake()
		}
		p.limited = p.limited || q.lanes.limited(d)
		if i == len(p.more) {
			return
		}
		w = p.more[i]
	}
}

// reconsider lets go on what limits that were lifted have parked, and lets what
// others keep waiting be told so. Queue.mu is held.
func (q *Queue) reconsider() {
	at := q.Now().Add(busyAfter).UnixNano()
	for _, d := range q.lanes.destinations {
		if d.parked.empty() {
			continue
		}
		q.lanes.unpark(d)
		if !q.lanes.limited(d) {
			continue
		}
		for _, way := range d.lanes {
			for i := range way.units.len() {
				if e := way.units.at(i); e.index < 0 && !e.gone {
					q.due.set(e, at)
				}
			}
		}
	}
}

// customerOf names whose turn a message takes. Notifications take the turn of
// the domain they go to.
func customerOf(m *spool.Message) string {
	switch {
	case m.Domain != "":
		return m.Domain
	case !m.From.IsNull():
		return m.From.Domain
	}
	return m.Recipients[0].Address.Domain
}

const (
	// suspectAfter is after how many interrupted attempts in a row a message is
	// tried only while no other such message is: a crash is then the doing of
	// one, or of none.
	suspectAfter = 2
	// poisonPanics is the interrupted attempt after which a message is set aside
	// when that one panicked. poisonAfter is for one that the process did not
	// survive: once it may have been ended from outside while the message was the
	// suspect that was tried.
	poisonPanics, poisonAfter = 3, 4
	// suspectTime is how long the attempt for a suspect may take. Of hundreds each
	// holds up the rest, and one that has survived for so long is none any more.
	suspectTime = 15 * time.Second
)

// interrupted counts the attempts in a row that ended with a panic or with the
// process. The entry's mu is held.
func interrupted(e *entry, r *spool.Recipient) int {
	if e.loaded && (r.LastReply == spool.UnderWay || r.Attempts == 0) {
		return r.Interrupted + 1
	}
	return r.Interrupted
}

// recipientDue is when an attempt on r is due.
func (q *Queue) recipientDue(e *entry, r *spool.Recipient) time.Time {
	if r.Cancelling {
		return time.Time{} // there is nothing to wait for
	}
	if r.LastReply == spool.UnderWay && e.loaded && interrupted(e, r) >= suspectAfter {
		return r.LastAttempt.Add(Backoff(r.Interrupted, 0.5))
	}
	return r.NextAttempt
}
