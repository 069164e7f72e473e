package instruct_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

// store puts messages of a domain into the spool.
func (e *edge) store(t *testing.T, domain string, count int) (ids []string) {
	t.Helper()
	for range count {
		id, err := spool.NewID(time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		w, err := e.spool.Create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "Subject: x\r\n\r\nx\r\n"); err != nil {
			t.Fatal(err)
		}
		b := e.journal.NewBatch()
		m := &spool.Message{
			ID: id, Domain: domain, Partner: "acme", From: mailaddr.Address{Local: "anna", Domain: domain}, AcceptedAt: time.Now(),
			Recipients: []spool.Recipient{{Address: mailaddr.Address{Local: "bob", Domain: "example.net"}}},
		}
		if err := errors.Join(e.spool.Stage(b, m, w), e.journal.CommitLazy(b), w.Discard()); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func queueOperation(number int64, kind api.InstructionKind) api.Instruction {
	domain := "example.com"
	return api.Instruction{Number: number, Kind: kind, Queue: &api.QueueInstruction{OperationID: "qop_1", Domain: &domain}}
}

// events are what the control plane would hear.
func (e *edge) events(t *testing.T) []api.EdgeEvent {
	t.Helper()
	batch, err := e.outbox.Next(1000)
	var sent api.EventBatch
	if err == nil && batch.Events > 0 {
		err = json.Unmarshal(batch.Body, &sent)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sent.Events
}

// reported lists the events so far by kind, and the last one that says that an operation is done.
func (e *edge) reported(t *testing.T) (kinds map[api.EdgeEventKind]int, done api.EdgeEvent) {
	t.Helper()
	kinds = map[api.EdgeEventKind]int{}
	for _, event := range e.events(t) {
		kinds[event.Kind]++
		if event.Kind == api.EdgeEventKindQueueOperationDone {
			done = event
		}
	}
	return kinds, done
}

func TestAQueueOperationIsCarriedOutOnceAndItsOutcomeIsReported(t *testing.T) {
	e := open(t, t.TempDir())
	defer e.close()
	held := e.store(t, "example.com", 2)
	other := e.store(t, "example.org", 1)
	for range 2 {
		if err := e.runner.Carry(context.Background(), sent(t, queueOperation(7, api.InstructionKindQueueHold))); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range slices.Concat(held, other) {
		m, err := e.spool.Load(id)
		if err != nil || m.Recipients[0].Held != slices.Contains(held, id) {
			t.Errorf("message of %s: %+v, %v", m.Domain, m.Recipients, err)
		}
	}
	kinds, done := e.reported(t)
	if kinds[api.EdgeEventKindMessageHeld] != 2 || kinds[api.EdgeEventKindQueueOperationDone] != 1 || *done.Ref != "qop_1" ||
		*done.Messages != 2 || *done.Recipients != 2 || e.runner.Acknowledged() != 7 {
		t.Errorf("events %v, outcome %+v, acknowledged %d", kinds, done, e.runner.Acknowledged())
	}
	if err := e.runner.Carry(context.Background(), sent(t, queueOperation(8, api.InstructionKindQueueCancel))); err != nil {
		t.Fatal(err)
	}
	if kinds, _ := e.reported(t); kinds[api.EdgeEventKindMessageCancelled] != 2 || e.runner.Acknowledged() != 8 {
		t.Errorf("events %v, acknowledged %d", kinds, e.runner.Acknowledged())
	}
	for _, id := range held {
		if _, err := e.spool.Load(id); !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("a cancelled message: %v", err)
		}
	}
}

func TestAQueueOperationThatACrashEndedGoesOnAndCountsEachMessageOnce(t *testing.T) {
	const messages = 210 // more than one batch
	dir := t.TempDir()
	e := open(t, dir)
	e.store(t, "example.com", messages)
	killed := errors.New("killed")
	e.operate = func(ctx context.Context, op queue.Operation, tally queue.Tally, record func(*journal.Batch, queue.Tally, bool) error) error {
		return e.queue.Operate(ctx, op, tally, func(b *journal.Batch, t queue.Tally, done bool) error {
			if done {
				return killed
			}
			return record(b, t, done)
		})
	}
	cancel := sent(t, queueOperation(1, api.InstructionKindQueueCancel), queueOperation(2, api.InstructionKindQueueRetry))
	if err := e.runner.Carry(context.Background(), cancel); !errors.Is(err, killed) || e.runner.Acknowledged() != 0 {
		t.Fatalf("got %v, acknowledged %d", err, e.runner.Acknowledged())
	}
	e.close()

	again := open(t, dir)
	defer again.close()
	if err := again.runner.Carry(context.Background(), cancel[:1]); err != nil {
		t.Fatal(err)
	}
	kinds, done := again.reported(t)
	if kinds[api.EdgeEventKindMessageCancelled] != messages || *done.Messages != messages || again.runner.Acknowledged() != 1 {
		t.Errorf("events %v, outcome %+v, acknowledged %d", kinds, done, again.runner.Acknowledged())
	}
	// The next instruction begins at nothing.
	if err := again.runner.Carry(context.Background(), cancel); err != nil {
		t.Fatal(err)
	}
	if _, done := again.reported(t); *done.Messages != 0 || again.runner.Acknowledged() != 2 {
		t.Errorf("outcome %+v, acknowledged %d", done, again.runner.Acknowledged())
	}
}

// An operation on a long queue does not keep the policy waiting.
func TestALongOperationGoesOnWhileOthersWait(t *testing.T) {
	e := openWith(t, t.TempDir(), 20*time.Millisecond)
	defer e.close()
	e.store(t, "example.com", 1)
	begun, proceed := make(chan struct{}), make(chan struct{})
	e.operate = func(ctx context.Context, op queue.Operation, tally queue.Tally, record func(*journal.Batch, queue.Tally, bool) error) error {
		close(begun)
		<-proceed
		return e.queue.Operate(ctx, op, tally, record)
	}
	instructions := sent(t, queueOperation(1, api.InstructionKindQueueHold))
	for range 3 {
		if err := e.runner.Carry(t.Context(), instructions); err != nil || e.runner.Acknowledged() != 0 {
			t.Fatalf("got %v, acknowledged %d", err, e.runner.Acknowledged())
		}
		<-begun // once: a second beginning would close it again
	}
	close(proceed)
	e.runner.Wait()
	// What it came to is told by the next call, and what has come since is carried out by the one after it.
	e.operate = e.queue.Operate
	instructions = append(instructions, sent(t, queueOperation(2, api.InstructionKindQueueRelease))...)
	for range 2 {
		if err := e.runner.Carry(t.Context(), instructions); err != nil {
			t.Fatal(err)
		}
		e.runner.Wait()
	}
	kinds, _ := e.reported(t)
	if e.runner.Acknowledged() != 2 || kinds[api.EdgeEventKindMessageHeld] != 1 || kinds[api.EdgeEventKindMessageReleased] != 1 {
		t.Errorf("acknowledged %d, events %v", e.runner.Acknowledged(), kinds)
	}
}
