package queue_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

// BenchmarkOperate is what an operation costs for each message in the queue: one that selects nothing looks at all of them, one
// that holds and releases all changes each twice.
func BenchmarkOperate(b *testing.B) {
	const messages = 20_000
	e := newEdge(b, nil)
	defer e.close()
	for i := range messages {
		id, err := spool.NewID(time.Now(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		w, err := e.spool.Create()
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.WriteString(w, mail)
		batch := e.journal.NewBatch()
		m := &spool.Message{
			ID: id, Domain: "example.com", Partner: "acme", From: address("anna@example.com"), AcceptedAt: time.Now(),
			Recipients: []spool.Recipient{{Address: address(fmt.Sprintf("b%d@y.test", i))}},
		}
		if err := errors.Join(err, e.spool.Stage(batch, m, w), e.journal.CommitLazy(batch), w.Discard()); err != nil {
			b.Fatal(err)
		}
	}
	perMessage := func(b *testing.B, do func()) {
		for b.Loop() {
			do()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/message")
	}
	b.Run("nothing", func(b *testing.B) {
		perMessage(b, func() { e.operate(queue.Hold, queue.Selection{Domain: "example.org"}) })
	})
	b.Run("all", func(b *testing.B) {
		perMessage(b, func() {
			e.operate(queue.Hold, queue.Selection{Domain: "example.com"})
			e.operate(queue.Release, queue.Selection{Domain: "example.com"})
			e.mu.Lock()
			e.events = nil
			e.mu.Unlock()
		})
	})
}
