package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"
)

const (
	// promoteAtOnce is how many due messages are read before slots are given
	// out again.
	promoteAtOnce = 128
	// keepEnvelopes is how many envelopes may wait in memory; beyond, they are
	// read again when their turn comes.
	keepEnvelopes = 2000
	// unitRecipients is how many recipients one attempt is about: what every
	// server must accept in one transaction (RFC 5321 4.5.3.1.8).
	unitRecipients = 100
	// panicLimit is the panic after which a message is set aside.
	panicLimit = 3
	// troublePause is the wait after a failure of our own disk.
	troublePause = time.Minute
)

// promote moves messages that are due into the lanes.
func (q *Queue) promote(ctx context.Context) {
	for range promoteAtOnce {
		e := q.nextDue()
		if e == nil || ctx.Err() != nil {
			return
		}
		e.mu.Lock()
		q.split(e)
		e.mu.Unlock()
	}
}

func (q *Queue) nextDue() *entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.due.Len() == 0 || q.due.first().due.After(q.Now()) {
		return nil
	}
	return q.due.pop()
}

// split makes a unit of the recipients of each destination that are due. The
// entry's mu is held.
func (q *Queue) split(e *entry) {
	if !q.knows(e) {
		return // set aside since
	}
	m, err := q.envelope(e)
	if err != nil {
		q.unreadable(e, err)
		return
	}
	if m, err = q.endCancelled(e, m); err != nil {
		q.unreadable(e, err)
		return
	}
	e.message = m
	now := q.Now()
	groups := make(map[string]*unit)
	var order []*unit
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if _, busy := e.busy[i]; busy || r.State.Final() || r.Held || q.recipientDue(r).After(now) {
			continue
		}
		name, domain := q.destinationOf(m, r)
		u := groups[name]
		if u == nil || len(u.recipients) == unitRecipients {
			u = &unit{entry: e, customer: customerOf(m), destination: name, domain: domain}
			groups[name] = u
			order = append(order, u)
		}
		u.recipients = append(u.recipients, i)
	}
	for _, u := range order {
		e.occupy(u.recipients)
		q.lanes.push(*u)
	}
	if len(e.busy) == 0 || e.flying == 0 && q.lanes.waiting > keepEnvelopes && !m.Settled() {
		e.message = nil
	}
	q.schedule(e, m)
}

// destinationOf names the way out for one recipient, and the domain whose MX
// it is about; the domain is empty for a smarthost.
func (q *Queue) destinationOf(m *spool.Message, r *spool.Recipient) (name, domain string) {
	route := q.Route(m.Domain, r.Address.Domain)
	if route.IsMX() {
		domain = r.Address.Domain
	}
	return route.Destination(r.Address.Domain), domain
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

// occupy and release keep account of which recipients are in units. Queue.mu
// is held.
func (e *entry) occupy(recipients []int) {
	if e.busy == nil {
		e.busy = make(map[int]struct{})
	}
	for _, i := range recipients {
		e.busy[i] = struct{}{}
	}
}

func (e *entry) release(recipients []int) {
	for _, i := range recipients {
		delete(e.busy, i)
	}
}

// schedule puts e where its recipients that are not in units want it: into the
// heap, or out of the queue when nobody is left. Both mutexes are held.
func (q *Queue) schedule(e *entry, m *spool.Message) {
	due, found := q.firstDue(m, e.busy)
	if found {
		q.rest(e, false)
		q.dueAt(e, due)
		return
	}
	q.due.remove(e)
	if len(e.busy) > 0 {
		return
	}
	if m.Settled() {
		q.drop(e)
		return
	}
	q.rest(e, true)
}

// dueAt puts e into the heap, or moves it there. Queue.mu is held.
func (q *Queue) dueAt(e *entry, due time.Time) {
	e.due = due
	if e.index >= 0 {
		q.due.fix(e)
		return
	}
	q.due.push(e)
}

// envelope returns the message's envelope, read from the spool when it is not
// in memory. The entry's mu is held.
func (q *Queue) envelope(e *entry) (*spool.Message, error) {
	if e.message != nil {
		return e.message, nil
	}
	m, err := q.Spool.Load(e.id)
	if err != nil {
		return nil, err
	}
	e.message = m
	return m, nil
}

// unreadable deals with an envelope that the spool does not give. A message
// that is gone or set aside leaves the queue; trouble with the disk may pass.
// The entry's mu is held.
func (q *Queue) unreadable(e *entry, err error) {
	if errors.Is(err, spool.ErrNotFound) || errors.Is(err, spool.ErrCorrupt) {
		q.leave(e, "unreadable", err)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dueAt(e, q.Now().Add(troublePause))
}

// dispatch starts workers while there are units whose turn it is.
func (q *Queue) dispatch(ctx context.Context) {
	for {
		u, ok := q.next()
		if !ok {
			return
		}
		q.workers.Go(func() { q.work(ctx, u) })
	}
}

// next takes out the unit whose turn it is, unless the queue is going down.
func (q *Queue) next() (unit, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return unit{}, false
	}
	u, ok := q.lanes.pick()
	if ok {
		u.entry.flying++
	}
	return u, ok
}

// work makes attempts until nobody's turn can be started.
func (q *Queue) work(ctx context.Context, u unit) {
	for ok := true; ok; u, ok = q.next() {
		q.attempt(ctx, u)
		q.finish(u)
	}
}

// attempt makes one attempt and settles what came of it.
func (q *Queue) attempt(ctx context.Context, u unit) {
	job, err := q.begin(u)
	if err != nil {
		q.trouble(u.entry, err)
		return
	}
	if len(job.Recipients) == 0 {
		return
	}
	results, panicked := q.deliver(ctx, job)
	u.entry.mu.Lock()
	defer u.entry.mu.Unlock()
	if !q.knows(u.entry) || panicked != nil && q.setAside(u.entry, panicked) {
		return
	}
	if damaged := corrupt(results); damaged != nil {
		q.leave(u.entry, "damaged", damaged)
		return
	}
	if err := q.settle(u, results, ctx.Err() != nil); err != nil {
		q.pause(u)
	}
}

// begin records the attempt before it is made, and returns the job: without
// recipients when there is nothing to do any more.
func (q *Queue) begin(u unit) (Job, error) {
	e := u.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	if !q.knows(e) {
		return Job{}, nil
	}
	stored, err := q.envelope(e)
	if err != nil {
		return Job{}, err
	}
	first := &stored.Recipients[u.recipients[0]]
	for _, i := range u.recipients {
		// The routes may have changed while the unit waited, or an operator may
		// have acted. Those that are still due are split anew.
		r := &stored.Recipients[i]
		if name, _ := q.destinationOf(stored, r); name != u.destination || r.State.Final() || r.Held || r.Cancelling {
			return Job{}, nil
		}
	}
	m, now := clone(stored), q.Now()
	for _, i := range u.recipients {
		r := &m.Recipients[i]
		r.Attempts++
		r.LastAttempt, r.LastReply = now, underWay
	}
	b := q.Journal.NewBatch()
	defer b.Discard()
	if err := q.Spool.Update(b, m); err != nil {
		return Job{}, err
	}
	if err := q.Journal.CommitLazy(b); err != nil {
		return Job{}, err
	}
	e.message = m
	return q.job(u, m, q.Route(m.Domain, first.Address.Domain)), nil
}

func (q *Queue) job(u unit, m *spool.Message, route Route) Job {
	j := Job{
		MessageID: m.ID, Sender: m.From, RecipientDomain: u.domain, Route: route, SizeBytes: m.Size,
		EightBit: m.EightBit, UTF8: m.SMTPUTF8, RequireTLS: m.RequireTLS, EnvelopeID: m.EnvID, Return: m.Ret,
		Open: func() (io.ReadCloser, error) { return q.Spool.Body(m.ID) },
	}
	for _, i := range u.recipients {
		r := &m.Recipients[i]
		j.Recipients = append(j.Recipients, Recipient{Address: r.Address, Notify: r.Notify, OriginalRecipient: r.ORCPT})
	}
	return j
}

// deliver calls the courier and survives it.
func (q *Queue) deliver(ctx context.Context, job Job) (results []Result, panicked error) {
	failed := func(text string, err error) []Result {
		all := make([]Result, len(job.Recipients))
		for i := range all {
			all[i] = Result{Class: TempFail, Enhanced: "4.3.0", Text: text, Err: err}
		}
		return all
	}
	defer func() {
		if r := recover(); r != nil {
			panicked = fmt.Errorf("panic: %v", r)
			results = failed("the relay failed inside", panicked)
		}
	}()
	if job.Route.Unknown != "" {
		return failed("the way out is not known: "+job.Route.Unknown, nil), nil
	}
	results = q.Courier.Attempt(ctx, job)
	if len(results) != len(job.Recipients) {
		err := fmt.Errorf("courier gave %d results for %d recipients", len(results), len(job.Recipients))
		return failed("the relay failed inside", err), nil
	}
	return results, nil
}

// finish gives back u's slot and makes its recipients schedulable again.
func (q *Queue) finish(u unit) {
	e := u.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.message
	q.mu.Lock()
	q.lanes.done(u)
	e.release(u.recipients)
	e.flying--
	if e.flying == 0 && (m == nil || !m.Settled()) {
		e.message = nil // the spool has it
	}
	if q.entries[e.id] == e {
		if m != nil {
			q.schedule(e, m)
		} else {
			q.dueAt(e, q.Now().Add(troublePause))
		}
	}
	soon := q.due.Len() > 0 && q.due.first() == e
	q.mu.Unlock()
	if soon {
		q.Wake()
	}
}

func (q *Queue) knows(e *entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.entries[e.id] == e
}

// trouble deals with an attempt that could not be begun.
func (q *Queue) trouble(e *entry, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if errors.Is(err, spool.ErrNotFound) || errors.Is(err, spool.ErrCorrupt) {
		q.leave(e, "unreadable", err)
		return
	}
	if q.flying(e) <= 1 { // nobody else's attempt is under way
		e.message = nil // read again after troublePause
	}
}

func (q *Queue) flying(e *entry) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return e.flying
}

// pause keeps an outcome that could not be recorded from being caused again at
// once. In memory only: the spool is what could not be written.
func (q *Queue) pause(u unit) {
	if u.entry.message == nil {
		return // it could not even be read; finish waits
	}
	m := clone(u.entry.message)
	for _, i := range u.recipients {
		m.Recipients[i].NextAttempt = q.Now().Add(troublePause)
	}
	u.entry.message = m
}

// setAside counts a panic over a message, and at the third quarantines it. It
// reports whether the message has left the queue.
func (q *Queue) setAside(e *entry, panicked error) bool {
	q.mu.Lock()
	e.panics++
	enough := e.panics >= panicLimit
	q.mu.Unlock()
	if !enough {
		return false
	}
	if err := q.Spool.Quarantine(e.id, panicked.Error()); err != nil {
		return false
	}
	q.leave(e, "poison", panicked)
	return true
}

// leave takes a message out of the queue that the spool keeps for a human.
// The entry's mu is held.
func (q *Queue) leave(e *entry, why string, err error) {
	m := e.message
	if m == nil {
		m = &spool.Message{ID: e.id}
	}
	q.Log.Held(logMessage(m), why, err)
	q.metrics.outcome("held")
	if !errors.Is(err, spool.ErrNotFound) || why == "damaged" {
		q.noteQuarantine(m)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(e)
}

// noteQuarantine tells that a message is tried no more. What became of it is
// in the spool whether this is told or not.
func (q *Queue) noteQuarantine(m *spool.Message) {
	if m.Notice {
		return
	}
	b := q.Journal.NewBatch()
	defer b.Discard()
	e := api.EdgeEvent{Kind: api.EdgeEventKindMessageQuarantined, Time: q.Now().UTC(), MessageID: &m.ID}
	if m.Domain != "" {
		e.Domain = &m.Domain
	}
	if q.Note(b, e) == nil {
		_ = q.Journal.CommitLazy(b)
	}
}

// corrupt returns the error of a result that says that the stored message is
// damaged; the spool has set it aside already.
func corrupt(results []Result) error {
	for _, r := range results {
		if errors.Is(r.Err, spool.ErrCorrupt) || errors.Is(r.Err, journal.ErrNotFound) {
			return r.Err
		}
	}
	return nil
}

func clone(m *spool.Message) *spool.Message {
	c := *m
	c.Recipients = slices.Clone(m.Recipients)
	return &c
}
