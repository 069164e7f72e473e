// Package queue decides what is tried next, and what an attempt's outcome
// means for a message. Between the two it knows nothing of SMTP or DNS: a
// [Courier] makes the attempt.
//
// What is true is in the spool; the queue's memory is an index of it that is
// built anew at every start, while attempts are already made. A message has an
// entry (entry.go) of some hundred bytes, and nothing more until its turn comes:
// a million wait in little room, whatever they wait for.
//
//	place.go        where a message belongs just now
//	entry.go        a heap of those that are due later
//	lanes.go        what is due, by customer and destination, waiting for a slot
//	turns.go        whose turn it is
//	attempt.go      what is under way
//	destination.go  what each destination can take, and which ones are dead
//	asleep.go       what is not tried: its destination is dead, or has had its limit
//	trouble.go      what leaves the queue damaged, or because it ends the process
//	loop.go         what time brings; mail that comes in and goes out at once
//	                does not meet it
//
// One slot is one attempt. Slots are handed out by turns: first to the customer
// who has fewest, by turns among equals, and each customer's destinations take
// turns, within a limit for all, for one destination and for one customer. The
// more slots are in use, the fewer one customer may have, and the last quarter is
// for those who have none, as is an eighth of a destination's limit for those who
// have none there. So a destination that is dead or slow holds up nobody
// but itself, customers who flood the queue, or whose mail is slow, wait mostly
// for themselves, and others need not wait until an attempt of theirs ends;
// pace.go slows the sessions of a flood too. Whoever makes a unit startable
// (mail that came in, an attempt that ended, a moment that came) hands it to a
// worker; a worker that ends an attempt takes the next unit itself.
//
// operate.go is what operators do to what waits: retry, hold, release, cancel;
// quarantine.go is the latter two for what was set aside. They change envelopes in
// the same way and with the same care.
//
// settle.go is the only place in which an outcome changes anything: in one
// batch of the journal it updates or removes the envelope, notes the event, and
// stores the notification that the sender gets. Every recipient comes to
// exactly one final state, and the batch that says so is on the disk before
// a notification leaves or the control plane hears of it.
//
// An attempt is recorded before it begins, so that a message that kills the
// process is known; only the first one of a message that has just come in is
// not, and one that is found untried at the start is taken for interrupted once.
// Attempts that were interrupted in a row, by the end of the process or by a
// panic, count: after two the message is tried only while no other such message
// is, and for a bounded time, so that a crash is the doing of one, or of none. The
// third sets it aside if it panics; if the process ends, which somebody else may
// have ended, the fourth.
//
// What is lost in a crash is at most the knowledge that a message was
// delivered: it is then delivered twice. It is never lost.
package queue
