package queue_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

const mail = "From: anna@example.com\r\nSubject: hello\r\n\r\nbody\r\n"

// edge is a real journal and spool with a queue on top, under the clock of a
// synctest bubble.
type edge struct {
	t       testing.TB
	dir     string
	journal *journal.Journal
	spool   *spool.Spool
	courier *courier
	change  func(*queue.Config)
	lazy    bool                        // messages are stored without a sync
	text    string                      // of the messages that are stored; empty = mail
	faults  func(op, path string) error // the journal's; nil = none
	spoils  func(op, path string) error // the spool's; nil = none

	queue *queue.Queue
	stop  context.CancelFunc
	ended chan error

	mu     sync.Mutex
	events []api.EdgeEvent
	stored map[string]*spool.Message
}

// newEdge opens an edge whose queue is not running yet.
func newEdge(t testing.TB, change func(*queue.Config)) *edge {
	t.Helper()
	e := &edge{t: t, dir: t.TempDir(), courier: &courier{}, change: change, stored: make(map[string]*spool.Message)}
	e.open()
	return e
}

func (e *edge) open() {
	e.t.Helper()
	var err error
	if e.journal, err = journal.Open(journal.Config{Dir: e.dir + "/journal", Faults: e.faults}); err != nil {
		e.t.Fatal(err)
	}
	if e.spool, err = spool.Open(spool.Config{Dir: e.dir + "/spool", Journal: e.journal, Faults: e.spoils}); err != nil {
		e.t.Fatal(err)
	}
	c := queue.Config{
		Spool: e.spool, Journal: e.journal, Courier: e.courier, Hostname: "edge1.relay.test",
		Now: time.Now, Entropy: rand.Reader, Random: func() float64 { return 0.5 },
		Note: func(b *journal.Batch, event api.EdgeEvent) error {
			b.Ordered(func(*journal.Batch) { // as the outbox numbers them: never of a batch that was dropped
				e.mu.Lock()
				defer e.mu.Unlock()
				e.events = append(e.events, event)
			})
			return nil
		},
	}
	if e.change != nil {
		e.change(&c)
	}
	if e.queue, err = queue.New(c); err != nil {
		e.t.Fatal(err)
	}
}

func (e *edge) run() {
	ctx, cancel := context.WithCancel(context.Background())
	e.stop, e.ended = cancel, make(chan error, 1)
	go func() { e.ended <- e.queue.Run(ctx) }()
}

// close stops the queue, if it runs, and closes everything.
func (e *edge) close() {
	e.t.Helper()
	if e.stop != nil {
		e.stop()
		if err := <-e.ended; err != nil {
			e.t.Errorf("queue: %v", err)
		}
	}
	if err := e.spool.Close(); err != nil {
		e.t.Error(err)
	}
	if err := e.journal.Close(); err != nil {
		e.t.Error(err)
	}
}

// store puts a message into the spool, as a session does before its 250.
func (e *edge) store(from string, to ...string) string {
	e.t.Helper()
	return e.storeWith(func(*spool.Message) {}, from, to...)
}

func (e *edge) storeWith(change func(*spool.Message), from string, to ...string) string {
	e.t.Helper()
	id, err := spool.NewID(time.Now(), rand.Reader)
	if err != nil {
		e.t.Fatal(err)
	}
	m := &spool.Message{ID: id, From: address(from), Domain: address(from).Domain, AcceptedAt: time.Now()}
	for _, r := range to {
		m.Recipients = append(m.Recipients, spool.Recipient{Address: address(r), State: spool.Pending})
	}
	change(m)
	w, err := e.spool.Create()
	if err != nil {
		e.t.Fatal(err)
	}
	if _, err := io.WriteString(w, cmp.Or(e.text, mail)); err != nil {
		e.t.Fatal(err)
	}
	b := e.journal.NewBatch()
	if err := e.spool.Stage(b, m, w); err != nil {
		e.t.Fatal(err)
	}
	commit := e.journal.Commit
	if e.lazy {
		commit = e.journal.CommitLazy
	}
	if err := commit(b); err != nil {
		e.t.Fatal(err)
	}
	if err := w.Discard(); err != nil {
		e.t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stored[id] = m
	return id
}

func (e *edge) add(from string, to ...string) string {
	e.t.Helper()
	for e.stop != nil && !e.queue.Read() {
		runtime.Gosched() // or the reading at the start might take it for mail of a process before
	}
	id := e.store(from, to...)
	e.enqueue(id)
	return id
}

// enqueue hands over a stored message as the session does.
func (e *edge) enqueue(id string) {
	e.t.Helper()
	e.mu.Lock()
	m := e.stored[id]
	e.mu.Unlock()
	e.queue.Add(m)
}

// kinds lists the events so far as "kind recipient".
func (e *edge) kinds() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, event := range e.events {
		about := strings.Join(event.RecipientDomains, " ")
		if event.Recipient != nil {
			about = *event.Recipient
		}
		out = append(out, string(event.Kind)+" "+about)
	}
	return out
}

func address(s string) mailaddr.Address {
	if s == "" {
		return mailaddr.Address{}
	}
	a, err := mailaddr.Parse(s, mailaddr.Options{SMTPUTF8: true})
	if err != nil {
		panic(fmt.Sprintf("%q: %v", s, err))
	}
	return a
}

// attempt is one call of the courier.
type attempt struct {
	job  queue.Job
	at   time.Time
	text string // the message, when the courier read it
}

func (a attempt) to() string {
	var to []string
	for _, r := range a.job.Recipients {
		to = append(to, r.Address.String())
	}
	return strings.Join(to, " ")
}

// courier is the outside world: decide says what an attempt comes to for one
// recipient, and may wait.
type courier struct {
	mu       sync.Mutex
	attempts []attempt
	silent   bool // keeps no attempts
	decide   func(ctx context.Context, job queue.Job, recipient string, attempt int) queue.Result
}

// Attempt implements queue.Courier.
func (c *courier) Attempt(ctx context.Context, job queue.Job) []queue.Result {
	a := attempt{job: job, at: time.Now()}
	if job.Sender.IsNull() {
		body, err := job.Open()
		if err == nil {
			text, _ := io.ReadAll(body)
			a.text = string(text)
			_ = body.Close()
		}
	}
	c.mu.Lock()
	n := 1
	for _, other := range c.attempts {
		if other.job.MessageID == job.MessageID && other.to() == a.to() {
			n++
		}
	}
	if !c.silent {
		c.attempts = append(c.attempts, a)
	}
	c.mu.Unlock()
	var results []queue.Result
	for _, r := range job.Recipients {
		results = append(results, c.result(ctx, job, r.Address.String(), n))
	}
	return results
}

func (c *courier) result(ctx context.Context, job queue.Job, recipient string, n int) queue.Result {
	if c.decide == nil {
		return delivered()
	}
	return c.decide(ctx, job, recipient, n)
}

// tried lists the attempts so far as "recipients".
func (c *courier) tried() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, a := range c.attempts {
		out = append(out, a.to())
	}
	return out
}

func (c *courier) all() []attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.attempts)
}

func delivered() queue.Result {
	return queue.Result{Class: queue.Delivered, Code: 250, Enhanced: "2.0.0", Text: "ok", Host: "mx.test[192.0.2.1]:25"}
}

func temporary() queue.Result {
	return queue.Result{Class: queue.TempFail, Code: 450, Enhanced: "4.2.0", Text: "later", Host: "mx.test[192.0.2.1]:25"}
}

func permanent() queue.Result {
	return queue.Result{Class: queue.PermFail, Code: 550, Enhanced: "5.1.1", Text: "unknown", Host: "mx.test[192.0.2.1]:25"}
}

func TestAMessageIsDeliveredAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.run()
		id := e.add("anna@example.com", "b@y.test", "c@y.test", "d@z.test")
		synctest.Wait()
		if got := e.courier.tried(); !slices.Equal(got, []string{"b@y.test c@y.test", "d@z.test"}) &&
			!slices.Equal(got, []string{"d@z.test", "b@y.test c@y.test"}) {
			t.Errorf("attempts %q", got)
		}
		if _, err := e.spool.Load(id); err == nil {
			t.Error("the message is still in the spool")
		}
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("stats %+v", s)
		}
		got := e.kinds()
		slices.Sort(got)
		want := []string{"message-delivered b@y.test", "message-delivered c@y.test", "message-delivered d@z.test"}
		if !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
	})
}
