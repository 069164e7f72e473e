package queue_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

// A disk that is full for a while ends no process.
func TestOutcomesThatCannotBeRecordedAreNoInterruptedAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing atomic.Bool
		failing.Store(true)
		e := newEdge(t, func(c *queue.Config) {
			note := c.Note
			c.Note = func(b *journal.Batch, event api.EdgeEvent) error {
				if failing.Load() {
					return errors.New("no space left on device")
				}
				return note(b, event)
			}
		})
		defer e.close()
		e.store("anna@example.com", "b@y.test")
		e.run()
		time.Sleep(time.Hour)
		synctest.Wait()
		if aside := e.inQuarantine(); len(aside) != 0 {
			t.Errorf("set aside: %q", aside)
		}
		failing.Store(false)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if kinds := e.kinds(); !slices.Equal(kinds, []string{"message-delivered b@y.test"}) || len(e.inQuarantine()) != 0 {
			t.Errorf("events %q, in quarantine %q", kinds, e.inQuarantine())
		}
	})
}

// What is under way for another recipient is first brought to its end: what it came to would be lost, and the recipient get the
// message again once it is released.
func TestAMessageThatPanicsIsSetAsideOnlyAfterItsOtherAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(_ context.Context, _ queue.Job, recipient string, _ int) queue.Result {
			if recipient == "b@y.test" {
				panic("index out of range")
			}
			time.Sleep(30 * time.Minute)
			return delivered()
		}
		e.run()
		id := e.add("anna@example.com", "b@y.test", "c@z.test")
		time.Sleep(time.Hour)
		synctest.Wait()
		e.isQuarantined(id)
		kept, err := e.spool.LoadQuarantined(id)
		if err != nil || kept.Message == nil || kept.Message.Recipients[1].State != spool.Delivered {
			t.Errorf("in quarantine: %+v, %v", kept.Message, err)
		}
		e.courier.decide = nil
		e.operate(queue.Release, queue.Selection{Messages: []string{id}})
		time.Sleep(time.Minute)
		synctest.Wait()
		n := 0
		for _, to := range e.courier.tried() {
			if to == "c@z.test" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("c@z.test was tried %d times", n)
		}
	})
}

// A text that is not there is damage as one that is not what it was.
func TestAMessageWhoseTextIsLostIsInQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		id := e.store("anna@example.com", "b@y.test")
		b := e.journal.NewBatch()
		b.Delete([]byte("sb" + id))
		if err := e.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		e.courier.decide = func(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
			_, err := job.Open()
			return queue.Result{Enhanced: "4.3.0", Text: "the message cannot be read", Err: err}
		}
		e.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		e.isQuarantined(id)
	})
}

// That a destination is dead makes nobody forget what ended the process.
func TestAnInterruptedAttemptCountsAlsoAfterMailWasNotTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { return unreachable() }
		for range 6 {
			e.store("anna@example.com", "a@y.test")
			time.Sleep(time.Millisecond)
		}
		id := e.storeWith(cutShort(1), "anna@example.com", "b@y.test")
		e.run()
		time.Sleep(time.Second)
		synctest.Wait()
		m, err := e.spool.Load(id)
		if err != nil || m.Recipients[0].LastReply == spool.UnderWay || m.Recipients[0].Interrupted != 1 {
			t.Errorf("%+v, %v; tried %q", m, err, e.courier.tried())
		}
	})
}
