package queue

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/api/reason"
	"activerelay/relayd/internal/dsn"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/spool"
)

// settlement is one attempt's outcome on its way into the journal. Nothing
// outside its batch changes until the batch is committed.
type settlement struct {
	q     *Queue
	m     *spool.Message // a copy, changed as the results say
	batch *journal.Batch
	now   time.Time
	// interrupted says that the attempt was ended by our own going down, untried
	// why none was made; empty when one was.
	interrupted bool
	untried     delay

	sender   string // From as text, once it is needed
	final    bool   // a recipient reached its final state
	events   int    // noted in the batch
	outcomes []outcome
	told     [3][]dsn.Recipient // by the index of its action in actions
	notices  []notice
	err      error // the first failure; the batch is then dropped
}

// outcome is what is logged and counted once the batch is committed.
type outcome struct {
	state     counted
	recipient int
	log       maillog.Attempt
	reason    delay  // of deferred
	ref       string // of held, released, cancelled
}

// settle makes the results of an attempt true, all or none. After an error
// nothing has changed. The entry's mu is held.
func (q *Queue) settle(w *worker, results []Result, interrupted, panicked bool) error {
	f, s := &w.flight, &w.settlement
	e := f.entry
	*s = settlement{q: q, m: clone(e.message), batch: q.Journal.NewBatch(), now: q.Now(), interrupted: interrupted, outcomes: s.outcomes[:0]}
	defer s.clear()
	defer s.batch.Discard()
	for k, i := range f.recipients {
		r := &s.m.Recipients[i]
		if !f.recorded {
			r.Attempts++
			r.LastAttempt = f.began
		}
		switch {
		case !panicked:
			r.Interrupted = 0
		case r.Interrupted+1 >= poisonPanics:
			r.Interrupted = poisonAfter // could not be set aside just now
		default:
			r.Interrupted++
		}
		s.recipient(i, results[k])
	}
	if err := s.conclude(); err != nil {
		return fmt.Errorf("settle %s: %w", s.m.ID, err)
	}
	e.message = s.m
	return nil
}

// clear lets go of what was settled, but for the room for outcomes.
func (s *settlement) clear() {
	clear(s.outcomes)
	*s = settlement{outcomes: s.outcomes[:0]}
}

// conclude stages the notifications and commits; then it logs and counts, and
// hands the notifications on.
func (s *settlement) conclude() error {
	defer s.discardNotices()
	s.notify()
	if err := s.commit(); err != nil {
		return err
	}
	s.tellLog()
	for _, n := range s.notices {
		s.q.Add(n.message)
	}
	return nil
}

// recipient applies one result to the i-th recipient.
func (s *settlement) recipient(i int, res Result) {
	r := &s.m.Recipients[i]
	if r.State.Final() {
		return
	}
	r.LastReply = replyText(res)
	switch {
	case res.Class == Delivered:
		s.end(i, spool.Delivered, api.EdgeEventKindMessageDelivered, res, "")
		if !res.StatusPassedOn {
			s.tell(dsn.Relayed, r, res)
		}
	case r.Cancelling:
		s.cancel(i, res, "operator")
	case res.Class == PermFail:
		s.end(i, spool.Bounced, api.EdgeEventKindMessageBounced, res, bounceReason(res))
		s.tell(dsn.Failed, r, res)
	case s.interrupted && !res.Uncertain:
		// Not the destination's doing: due again as soon as we are back.
		r.NextAttempt = s.now
		s.postpone(i, res)
	case !r.Held && !s.now.Before(s.m.AcceptedAt.Add(s.q.Lifetime)):
		text := dsn.GaveUp(s.q.Lifetime, strings.TrimSpace(res.Host+" "+replyText(res)))
		s.end(i, spool.Expired, api.EdgeEventKindMessageExpired, res, reason.DeliveryExpired)
		s.tell(dsn.Failed, r, Result{Enhanced: expiredStatus(), Text: text})
	default:
		r.NextAttempt = s.next(r)
		s.postpone(i, res)
	}
}

// next is when r is tried again. One last attempt is made when the lifetime
// ends.
func (s *settlement) next(r *spool.Recipient) time.Time {
	random := s.q.Random()
	wait := time.Duration(0)
	if s.untried != "" {
		wait = untilUntried(r, s.now.Sub(s.m.AcceptedAt), s.q.Backoff, random)
	} else {
		wait = s.q.Backoff(r.Attempts, random)
	}
	next := s.now.Add(wait)
	if end := s.m.AcceptedAt.Add(s.q.Lifetime); next.After(end) && s.now.Before(end) {
		return end
	}
	return next
}

// cancel ends a recipient at an operator's word; nobody is notified.
func (s *settlement) cancel(i int, res Result, by string) {
	r := &s.m.Recipients[i]
	r.Held, r.Cancelling = false, false
	s.end(i, spool.Cancelled, api.EdgeEventKindMessageCancelled, res, "")
	s.outcomes[len(s.outcomes)-1].ref = by
}

// postpone leaves a recipient in the queue. Every time is an event: from them
// the control plane knows the queue.
func (s *settlement) postpone(i int, res Result) {
	r := &s.m.Recipients[i]
	why := s.delayOf(res)
	log := s.attemptLog(r, res)
	s.note(api.EdgeEventKindMessageDeferred, r, log.To, res, "", why)
	late := s.q.WarnAfter > 0 && !s.now.Before(s.m.AcceptedAt.Add(s.q.WarnAfter))
	if late && !r.DelayNoticed {
		r.DelayNoticed = true
		s.tell(dsn.Delayed, r, res)
	}
	s.outcomes = append(s.outcomes, outcome{state: countDeferred, recipient: i, log: log, reason: why})
}

// end gives a recipient its final state.
func (s *settlement) end(i int, state spool.State, kind api.EdgeEventKind, res Result, why reason.Slug) {
	r := &s.m.Recipients[i]
	r.State, r.NextAttempt = state, time.Time{}
	s.final = true
	log := s.attemptLog(r, res)
	s.note(kind, r, log.To, res, why, "")
	s.outcomes = append(s.outcomes, outcome{state: countedAs(state), recipient: i, log: log})
}

// note writes the event into the batch. Mail that the relay itself sends is
// nobody's and makes none.
func (s *settlement) note(kind api.EdgeEventKind, r *spool.Recipient, to string, res Result, why reason.Slug, wait delay) {
	if s.m.Notice {
		return
	}
	// One piece of memory for what the event points to.
	v := &struct {
		recipients, attempts           int64
		next                           time.Time
		recipient, reply, sender, host string
		tls, reason, detail, delay     string
	}{recipients: 1, recipient: to, sender: s.from(), host: res.Host, tls: res.TLS, reason: string(why), delay: string(wait)}
	if res.Enhanced != "" {
		v.reply = r.LastReply
	}
	e := api.EdgeEvent{
		Kind: kind, Time: s.now.UTC(), MessageID: &s.m.ID, Domain: &s.m.Domain, Recipient: &v.recipient, Recipients: &v.recipients,
		Reply: unlessEmpty(&v.reply), Sender: unlessEmpty(&v.sender), RemoteHost: unlessEmpty(&v.host), TLS: unlessEmpty(&v.tls),
		Reason: unlessEmpty(&v.reason), DelayReason: unlessEmpty(&v.delay),
	}
	if kind == api.EdgeEventKindMessageDeferred {
		v.attempts, v.next = int64(r.Attempts), r.NextAttempt.UTC()
		e.Attempts, e.NextAttemptAt = &v.attempts, &v.next
	}
	switch {
	case res.Uncertain:
		v.detail = "the reply after the final dot was lost: the message may arrive twice"
	case s.interrupted && wait != "":
		v.detail = "the relay ended during the attempt"
	}
	e.Detail = unlessEmpty(&v.detail)
	s.events++
	s.fail(s.q.Note(s.batch, e))
}

func unlessEmpty(text *string) *string {
	if *text == "" {
		return nil
	}
	return text
}

// from is the envelope sender as text.
func (s *settlement) from() string {
	if s.sender == "" && !s.m.From.IsNull() {
		s.sender = s.m.From.String()
	}
	return s.sender
}

// tellLog writes the mail log and counts, once everything is true.
func (s *settlement) tellLog() {
	q := s.q
	m := logMessage(s.m, s.from())
	for i := range s.outcomes {
		o := &s.outcomes[i]
		r := &s.m.Recipients[o.recipient]
		q.metrics.count(o.state)
		switch o.state {
		case countDelivered:
			q.metrics.delay.Observe(o.log.Delay.Seconds())
			q.Log.Delivered(m, o.log)
		case countBounced:
			q.Log.Bounced(m, o.log)
		case countExpired:
			q.Log.Expired(m, o.log)
		case countCancelled:
			q.Log.Cancelled(m, o.log.To, o.ref)
		case countDeferred:
			q.metrics.deferred(o.reason)
			q.Log.Deferred(m, o.log, r.NextAttempt)
		case countOnHold:
			q.Log.OnHold(m, o.log.To, o.ref)
		case countReleased:
			q.Log.Released(m, o.log.To, o.ref)
		}
	}
	for i := range s.notices {
		q.metrics.count(countNotified)
		q.Log.Notified(m, string(s.notices[i].action), s.notices[i].message.ID)
	}
}

func (s *settlement) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// commit writes the envelope, the events and the notifications. Forgetting an
// outcome repeats an attempt and breaks no promise, so it need not wait for the
// disk where a sync follows soon by itself: the outbox makes one before it sends
// an event. A notification waits: it is mail that leaves at once, and another
// one would follow.
func (s *settlement) commit() error {
	if s.err != nil {
		return s.err
	}
	if err := s.write(); err != nil {
		return err
	}
	if len(s.notices) > 0 || s.final && s.events == 0 {
		return s.q.Journal.Commit(s.batch)
	}
	return s.q.Journal.CommitLazy(s.batch)
}

// write adds the envelope as it is now, or its end, to the batch.
func (s *settlement) write() error {
	if s.m.Settled() {
		s.q.Spool.Remove(s.batch, s.m.ID)
		return nil
	}
	return s.q.Spool.Update(s.batch, s.m)
}

// replyText is what the other side said, or we instead of it, on one line.
func replyText(res Result) string {
	if res.Code == 0 {
		return strings.TrimSpace(res.Enhanced + " " + res.Text)
	}
	return strings.TrimSpace(strconv.Itoa(res.Code) + " " + res.Enhanced + " " + res.Text)
}

// bounceReason is the registry's entry for a permanent failure.
func bounceReason(res Result) reason.Slug {
	switch {
	case res.Host != "":
		return reason.DeliveryRefused
	case res.Enhanced == "5.1.10":
		return reason.RecipientNullMX
	case res.Enhanced == "5.1.2":
		return reason.RecipientDomainUnknown
	case res.Enhanced == "5.4.6":
		return reason.RoutingLoop
	}
	return reason.DeliveryRefused
}

// expiredStatus is the status of the registry's entry for the end of the
// lifetime.
func expiredStatus() string {
	if r, ok := reason.Lookup(reason.DeliveryExpired); ok {
		return r.Reply.Enhanced.String()
	}
	return "5.4.7"
}

func (s *settlement) attemptLog(r *spool.Recipient, res Result) maillog.Attempt {
	return maillog.Attempt{
		To: r.Address.String(), Number: r.Attempts, Host: res.Host, TLS: res.TLS, Code: res.Code,
		Enhanced: res.Enhanced, Reply: res.Text, Cause: res.Err, Delay: s.now.Sub(s.m.AcceptedAt), Uncertain: res.Uncertain,
	}
}

// logMessage names a message in the mail log; from is its sender as text.
func logMessage(m *spool.Message, from string) maillog.Message {
	return maillog.Message{
		ID: m.ID, Partner: m.Partner, Domain: m.Domain, From: from, Client: m.Client, User: m.User, SizeBytes: m.Size,
	}
}
