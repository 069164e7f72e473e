// Package queue decides what is tried next, and what an attempt's outcome
// means for a message. Between the two it knows nothing of SMTP or DNS: a
// [Courier] makes the attempt.
//
// What is true is in the spool; the queue's memory is an index of it that is
// built anew at every start. A message moves through three places:
//
//	due.go      a heap of messages by when they are due
//	lanes.go    what is due, by customer and destination, waiting for a slot
//	attempt.go  what is under way
//
// One slot is one attempt. Slots are handed out by turns: customers take turns,
// and each customer's destinations take turns, within a limit for all, for one
// destination and for one customer. So a destination that is dead or slow
// holds up nobody but itself, and a customer who floods the queue waits mostly
// for himself.
//
// operate.go is what operators do to what waits: retry, hold, release, cancel.
// It changes envelopes in the same way and with the same care.
//
// settle.go is the only place in which an outcome changes anything: in one
// batch of the journal it updates or removes the envelope, notes the event, and
// stores the notification that the sender gets. Every recipient comes to
// exactly one final state, and the batch that says so is on the disk before
// a notification leaves or the control plane hears of it. An attempt is recorded before it begins, so that a
// message that kills the process is known by its count of attempts.
//
// What is lost in a crash is at most the knowledge that a message was
// delivered: it is then delivered twice. It is never lost.
package queue
