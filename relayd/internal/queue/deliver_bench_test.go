package queue_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

// atOnce is a courier that every server answers at once.
type atOnce struct {
	left  atomic.Int64
	done  chan struct{}
	ahead chan struct{} // one for each message that was handed over and not tried
}

// Attempt implements queue.Courier.
func (c *atOnce) Attempt(_ context.Context, job queue.Job) []queue.Result {
	results := make([]queue.Result, len(job.Recipients))
	for i := range results {
		results[i] = delivered()
	}
	<-c.ahead
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
	return results
}

// BenchmarkDeliver is what the queue costs for each message of one recipient that is taken at once: from Add to the end in
// the journal. Storing the message beforehand is not counted; syncs are the journal's while it goes out.
func BenchmarkDeliver(b *testing.B) {
	var syncs atomic.Int64
	way := &atOnce{done: make(chan struct{}), ahead: make(chan struct{}, 20)} // as of 20 sessions
	way.left.Store(int64(b.N))
	e := &edge{t: b, dir: b.TempDir(), courier: &courier{}, change: func(c *queue.Config) {
		c.Courier = way
		c.Log = maillog.New(maillog.Config{Out: io.Discard})
		c.Note = func(batch *journal.Batch, event api.EdgeEvent) error {
			batch.Set([]byte("o"+*event.MessageID), []byte(event.Kind))
			return nil
		}
	}}
	e.faults = func(op, _ string) error {
		if op == "sync" {
			syncs.Add(1)
		}
		return nil
	}
	e.open()
	e.run()
	messages := make([]*spool.Message, b.N)
	batch := e.journal.NewBatch()
	for i := range messages {
		id, err := spool.NewID(time.Now(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		m := &spool.Message{
			ID: id, Domain: "example.com", Partner: "acme", From: address("anna@example.com"), AcceptedAt: time.Now(),
			Recipients: []spool.Recipient{{Address: address("b@y.test"), State: spool.Pending}},
		}
		w, err := e.spool.Create()
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.WriteString(w, mail)
		if err := errors.Join(err, e.spool.Stage(batch, m, w), w.Discard()); err != nil {
			b.Fatal(err)
		}
		if messages[i] = m; i%100 == 99 || i == b.N-1 {
			if err := e.journal.CommitLazy(batch); err != nil {
				b.Fatal(err)
			}
			batch = e.journal.NewBatch()
		}
	}
	syncs.Store(0)
	b.ReportAllocs()
	b.ResetTimer()
	for _, m := range messages {
		way.ahead <- struct{}{}
		e.queue.Add(m)
	}
	<-way.done
	e.close() // until what came of them is in the journal
	b.StopTimer()
	b.ReportMetric(float64(syncs.Load())/float64(b.N), "syncs/op")
}
