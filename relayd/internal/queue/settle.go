package queue

import (
	"fmt"
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
	// interrupted says that the attempt was ended by our own going down.
	interrupted bool

	final  bool     // a recipient reached its final state
	events int      // noted in the batch
	after  []func() // what follows once the batch is durable: log, metrics
	told   map[dsn.Action][]dsn.Recipient
	queued []*spool.Message // notifications
	err    error            // the first failure; the batch is then dropped
}

// settle makes the results of an attempt true, all or none. After an error
// nothing has changed. The entry's mu is held.
func (q *Queue) settle(u unit, results []Result, interrupted bool) error {
	batch := q.Journal.NewBatch()
	defer batch.Discard()
	stored, err := q.envelope(u.entry)
	if err != nil {
		return fmt.Errorf("settle %s: %w", u.entry.id, err)
	}
	s := &settlement{
		q: q, m: clone(stored), batch: batch, now: q.Now(), interrupted: interrupted,
		told: make(map[dsn.Action][]dsn.Recipient),
	}
	for k, i := range u.recipients {
		s.recipient(&s.m.Recipients[i], results[k])
	}
	writers := s.notify()
	for _, w := range writers {
		defer func() { _ = w.Discard() }()
	}
	if err := s.commit(); err != nil {
		return fmt.Errorf("settle %s: %w", s.m.ID, err)
	}
	u.entry.message = s.m
	for _, do := range s.after {
		do()
	}
	for _, m := range s.queued {
		q.Add(m)
	}
	return nil
}

// recipient applies one result.
func (s *settlement) recipient(r *spool.Recipient, res Result) {
	if r.State.Final() {
		return
	}
	r.LastReply = replyText(res)
	switch {
	case res.Class == Delivered:
		s.delivered(r, res)
	case r.Cancelling:
		s.cancelled(r, res)
	case res.Class == PermFail:
		s.bounced(r, res)
	case s.interrupted && !res.Uncertain:
		// Not the destination's doing: due again as soon as we are back.
		r.NextAttempt = s.now
		s.deferred(r, res)
	case !r.Held && !s.now.Before(s.m.AcceptedAt.Add(s.q.Lifetime)):
		s.expired(r, res)
	default:
		// One last attempt is made when the lifetime ends.
		next := s.now.Add(s.q.Backoff(r.Attempts, s.q.Random()))
		if end := s.m.AcceptedAt.Add(s.q.Lifetime); next.After(end) && s.now.Before(end) {
			next = end
		}
		r.NextAttempt = next
		s.deferred(r, res)
	}
}

func (s *settlement) delivered(r *spool.Recipient, res Result) {
	s.end(r, spool.Delivered, api.EdgeEventKindMessageDelivered, res, "")
	if !res.StatusPassedOn {
		s.tell(dsn.Relayed, r, res)
	}
	delay := s.now.Sub(s.m.AcceptedAt)
	log := s.attemptLog(*r, res)
	s.after = append(s.after, func() {
		s.q.metrics.delay.Observe(delay.Seconds())
		s.q.Log.Delivered(logMessage(s.m), log)
	})
}

func (s *settlement) bounced(r *spool.Recipient, res Result) {
	s.end(r, spool.Bounced, api.EdgeEventKindMessageBounced, res, bounceReason(res))
	s.tell(dsn.Failed, r, res)
	log := s.attemptLog(*r, res)
	s.after = append(s.after, func() { s.q.Log.Bounced(logMessage(s.m), log) })
}

func (s *settlement) expired(r *spool.Recipient, res Result) {
	log := s.attemptLog(*r, res)
	text := dsn.GaveUp(s.q.Lifetime, strings.TrimSpace(res.Host+" "+replyText(res)))
	s.end(r, spool.Expired, api.EdgeEventKindMessageExpired, res, reason.DeliveryExpired)
	s.tell(dsn.Failed, r, Result{Enhanced: expiredStatus(), Text: text})
	s.after = append(s.after, func() { s.q.Log.Expired(logMessage(s.m), log) })
}

// cancelled ends r at an operator's word; nobody is notified.
func (s *settlement) cancelled(r *spool.Recipient, res Result) {
	r.Held, r.Cancelling = false, false
	s.end(r, spool.Cancelled, api.EdgeEventKindMessageCancelled, res, "")
	to := r.Address.String()
	s.after = append(s.after, func() { s.q.Log.Cancelled(logMessage(s.m), to, "operator") })
}

// deferred leaves r in the queue. Every time is an event: from them the control
// plane knows the queue.
func (s *settlement) deferred(r *spool.Recipient, res Result) {
	s.note(api.EdgeEventKindMessageDeferred, *r, res, "")
	late := s.q.WarnAfter > 0 && !s.now.Before(s.m.AcceptedAt.Add(s.q.WarnAfter))
	if late && !r.DelayNoticed {
		r.DelayNoticed = true
		s.tell(dsn.Delayed, r, res)
	}
	log, next := s.attemptLog(*r, res), r.NextAttempt
	s.after = append(s.after, func() {
		s.q.metrics.outcome("deferred")
		s.q.Log.Deferred(logMessage(s.m), log, next)
	})
}

// end gives r its final state.
func (s *settlement) end(r *spool.Recipient, state spool.State, kind api.EdgeEventKind, res Result, why reason.Slug) {
	r.State, r.NextAttempt = state, time.Time{}
	s.final = true
	s.note(kind, *r, res, why)
	s.after = append(s.after, func() { s.q.metrics.outcome(string(state)) })
}

// note writes the event into the batch. Mail that the relay itself sends is
// nobody's and makes none.
func (s *settlement) note(kind api.EdgeEventKind, r spool.Recipient, res Result, why reason.Slug) {
	if s.m.Notice {
		return
	}
	e := api.EdgeEvent{
		Kind: kind, Time: s.now.UTC(), MessageID: &s.m.ID, Domain: &s.m.Domain,
		Recipient: new(r.Address.String()), Recipients: new(int64(1)),
	}
	if reply := replyText(res); reply != "" {
		e.Reply = &reply
	}
	if kind == api.EdgeEventKindMessageDeferred {
		e.Attempts, e.NextAttemptAt = new(int64(r.Attempts)), new(r.NextAttempt.UTC())
	}
	if !s.m.From.IsNull() {
		e.Sender = new(s.m.From.String())
	}
	if res.Host != "" {
		e.RemoteHost = &res.Host
	}
	if why != "" {
		e.Reason = new(string(why))
	}
	if res.Uncertain {
		e.Detail = new("the reply after the final dot was lost: the message may arrive twice")
	}
	s.events++
	s.fail(s.q.Note(s.batch, e))
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
	if len(s.queued) > 0 || s.final && s.events == 0 {
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
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", res.Code, res.Enhanced, res.Text))
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

func (s *settlement) attemptLog(r spool.Recipient, res Result) maillog.Attempt {
	return maillog.Attempt{
		To: r.Address.String(), Number: r.Attempts, Host: res.Host, TLS: res.TLS, Code: res.Code,
		Enhanced: res.Enhanced, Reply: res.Text, Cause: res.Err, Delay: s.now.Sub(s.m.AcceptedAt), Uncertain: res.Uncertain,
	}
}

func logMessage(m *spool.Message) maillog.Message {
	return maillog.Message{
		ID: m.ID, Partner: m.Partner, Domain: m.Domain, From: m.From.String(), Client: m.Client, User: m.User,
		SizeBytes: m.Size,
	}
}
