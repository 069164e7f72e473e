package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"
)

const (
	// keepEnvelopes is how many envelopes may wait in memory; beyond, they are
	// read again when their turn comes.
	keepEnvelopes = 2000
	// unitRecipients is how many recipients one attempt is about: what every
	// server must accept in one transaction (RFC 5321 4.5.3.1.8).
	unitRecipients = 100
	// idleWorkers is how many goroutines may wait for work: a new one begins
	// with a small stack, and grows it again.
	idleWorkers = 64
)

// flight is one attempt under way. It belongs to a worker, who uses it again.
type flight struct {
	unit
	recipients []int // indexes in the envelope
	began      time.Time
	recorded   bool // in the envelope, and in the spool
	next       *flight
}

// worker makes attempts, one after the other.
type worker struct {
	flight     flight
	settlement settlement
	units      chan unit
}

// dispatch hands out the units whose turn it is. Queue.mu is held.
func (q *Queue) dispatch() {
	for q.running {
		u, ok := q.lanes.pick()
		if !ok {
			return
		}
		if n := len(q.idle); n > 0 {
			q.idle[n-1].units <- u // has room: it is idle
			q.idle = q.idle[:n-1]
			continue
		}
		w := &worker{units: make(chan unit, 1)}
		q.workers.Go(func() { q.work(w, u) })
	}
}

// work makes attempts until there are more idle workers than are worth keeping.
func (q *Queue) work(w *worker, u unit) {
	for more := true; more; {
		w.flight.unit = u
		if u, more = q.attempt(w); !more {
			u, more = <-w.units
		}
	}
}

// attempt makes one attempt and settles what came of it. It answers the next
// unit; when there is none the worker waits for one, unless its channel is
// closed.
func (q *Queue) attempt(w *worker) (unit, bool) {
	f := &w.flight
	e := f.entry
	job, err := q.begin(f)
	if err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		q.unreadable(e, err)
		return q.finish(w, verdict{}, false)
	}
	if len(job.Recipients) == 0 {
		e.mu.Lock()
		defer e.mu.Unlock()
		return q.finish(w, verdict{}, true)
	}
	results, panicked := q.deliver(job, f.lane.destination.way.suspect)
	e.mu.Lock()
	defer e.mu.Unlock()
	interrupted := q.attempts.Err() != nil
	v := verdict{}
	if !interrupted && job.Route.Unknown == "" {
		v = judge(results)
	}
	switch damaged := corrupt(results); {
	case e.gone, panicked != nil && q.setAside(f, panicked):
	case damaged != nil:
		// The spool sets aside what is damaged, not what is lost; and an attempt that
		// ended meanwhile may have written the envelope again.
		if !q.quarantine(e, "damaged", damaged) {
			q.pause(f)
		}
	default:
		if err := q.settle(w, results, interrupted, panicked != nil); err != nil {
			q.pause(f)
		}
	}
	return q.finish(w, v, true)
}

// begin records the attempt before it is made, and returns the job: without
// recipients when there is nothing to do any more.
func (q *Queue) begin(f *flight) (Job, error) {
	e := f.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	q.mu.Lock()
	e.stand(f.lane)
	q.mu.Unlock()
	if e.gone {
		return Job{}, nil
	}
	m, err := q.envelope(e)
	if err != nil {
		return Job{}, err
	}
	if m, err = q.endCancelled(e, m); err != nil {
		return Job{}, err
	}
	e.message = m
	route := q.choose(f, m)
	if len(f.recipients) == 0 {
		return Job{}, nil
	}
	f.began, f.recorded = q.Now(), false
	if m, err = q.record(f, m); err != nil {
		f.recipients = f.recipients[:0]
		return Job{}, err
	}
	e.message = m
	e.takeOff(f)
	return q.job(f, m, route), nil
}

// choose finds the recipients that the attempt is about: all that have this
// destination and are not settled, held or under way. Routes may have changed
// while the message waited, and operators may have acted.
func (q *Queue) choose(f *flight, m *spool.Message) (route Route) {
	f.recipients = f.recipients[:0]
	if poisonous(f.entry, m) {
		return Route{}
	}
	w := f.lane.destination.way
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.State.Final() || r.Held || r.Cancelling || len(f.recipients) == unitRecipients || f.entry.flying(i) {
			continue
		}
		domain := r.Address.Domain
		if w.suspect && len(f.recipients) > 0 && m.Recipients[f.recipients[0]].Address.Domain != domain {
			continue // one attempt has one route
		}
		out := q.Route(m.Domain, domain)
		suspect := interrupted(f.entry, r) >= suspectAfter
		if suspect != w.suspect || !suspect && out.way(domain) != w {
			continue
		}
		route = out
		f.recipients = append(f.recipients, i)
	}
	return route
}

// record notes the attempt in the spool, so that a message that ends the process
// is known by its attempts. The first attempt of a message that came in a moment
// ago is not noted: found untried by the next process, a message is taken for
// tried once.
func (q *Queue) record(f *flight, m *spool.Message) (*spool.Message, error) {
	e := f.entry
	first := &m.Recipients[f.recipients[0]]
	if first.Attempts == 0 && !e.loaded {
		return m, nil
	}
	m = clone(m)
	whole := false
	for _, i := range f.recipients {
		r := &m.Recipients[i]
		if n := interrupted(e, r); n != r.Interrupted {
			r.Interrupted, whole = n, true
		}
		r.Attempts++
		r.LastAttempt, r.LastReply = f.began, spool.UnderWay
	}
	b := q.Journal.NewBatch()
	defer b.Discard()
	var err error
	if whole {
		err = q.Spool.Update(b, m)
	} else {
		err = q.Spool.NoteAttempt(b, m, f.recipients)
	}
	if err == nil {
		err = q.Journal.CommitLazy(b)
	}
	f.recorded = true
	return m, err
}

func (q *Queue) job(f *flight, m *spool.Message, route Route) Job {
	j := Job{
		MessageID: m.ID, Sender: m.From, Route: route, SizeBytes: m.Size,
		EightBit: m.EightBit, UTF8: m.SMTPUTF8, RequireTLS: m.RequireTLS, EnvelopeID: m.EnvID, Return: m.Ret,
		Recipients: make([]Recipient, len(f.recipients)),
		Open:       func() (io.ReadCloser, error) { return q.Spool.Body(m.ID) },
	}
	for k, i := range f.recipients {
		r := &m.Recipients[i]
		j.Recipients[k] = Recipient{Address: r.Address, Notify: r.Notify, OriginalRecipient: r.ORCPT}
	}
	if route.IsMX() {
		j.RecipientDomain = j.Recipients[0].Address.Domain
	}
	return j
}

// deliver calls the courier and survives it.
func (q *Queue) deliver(job Job, suspect bool) (results []Result, panicked error) {
	defer func() {
		if r := recover(); r != nil {
			panicked = fmt.Errorf("panic: %v", r)
			results = failed(job, "the relay failed inside", panicked)
		}
	}()
	if job.Route.Unknown != "" {
		return failed(job, unknownWay+job.Route.Unknown, nil), nil
	}
	ctx := q.attempts
	if suspect {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, suspectTime)
		defer cancel()
	}
	results = q.Courier.Attempt(ctx, job)
	if len(results) != len(job.Recipients) {
		err := fmt.Errorf("courier gave %d results for %d recipients", len(results), len(job.Recipients))
		return failed(job, "the relay failed inside", err), nil
	}
	return results, nil
}

// failed is a failure of our own for every recipient.
func failed(job Job, text string, err error) []Result {
	all := make([]Result, len(job.Recipients))
	for i := range all {
		all[i] = Result{Class: TempFail, Enhanced: "4.3.0", Text: text, Err: err}
	}
	return all
}

// finish gives back the slot, puts the message where it belongs now, and takes
// the next unit. The entry's mu is held; sound says that the envelope could be
// read.
func (q *Queue) finish(w *worker, v verdict, sound bool) (unit, bool) {
	f := &w.flight
	e, u, tried := f.entry, f.unit, len(f.recipients) > 0
	e.land(f)
	f.unit = unit{}
	var p plan
	m := e.message
	if m != nil && sound && !e.gone {
		e.loaded = e.loaded && (!tried || e.flight != nil || slices.ContainsFunc(m.Recipients, cutShort))
		q.plan(&p, e, m, q.Now())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lanes.done(u, v)
	switch {
	case e.gone:
	case m == nil || !sound:
		q.due.set(e, q.Now().Add(troublePause).UnixNano())
		q.wake()
	default:
		q.place(&p, e, m)
		if d := u.lane.destination; p.next != 0 && d.dead() && !d.alone && v.kind == notReached {
			q.lanes.push(e, u.lane.customer, d.way) // goes on when the destination does
		}
	}
	return q.nextFor(w)
}

// cutShort says of a recipient that is not being tried that an attempt did not end.
func cutShort(r spool.Recipient) bool { return !r.State.Final() && r.LastReply == spool.UnderWay }

// nextFor takes out the next unit for a worker, and hands out what else can
// start. Queue.mu is held.
func (q *Queue) nextFor(w *worker) (unit, bool) {
	if q.running {
		if u, ok := q.lanes.pick(); ok {
			q.dispatch()
			return u, true
		}
	}
	if !q.running || len(q.idle) >= idleWorkers {
		close(w.units)
	} else {
		q.idle = append(q.idle, w)
	}
	return unit{}, false
}

// corrupt returns the error of a result that says that the stored message is
// damaged, or that its text is lost.
func corrupt(results []Result) error {
	for i := range results {
		if err := results[i].Err; err != nil && (errors.Is(err, spool.ErrCorrupt) || errors.Is(err, journal.ErrNotFound)) {
			return err
		}
	}
	return nil
}

// clone copies what an outcome changes.
func clone(m *spool.Message) *spool.Message {
	if len(m.Recipients) == 1 {
		c := &struct {
			message spool.Message
			one     [1]spool.Recipient
		}{message: *m}
		c.one[0] = m.Recipients[0]
		c.message.Recipients = c.one[:]
		return &c.message
	}
	c := *m
	c.Recipients = slices.Clone(m.Recipients)
	return &c
}
