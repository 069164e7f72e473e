package queue_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

func TestAMessageInQuarantineIsReleasedWholeAndItsAttemptsCountAnew(t *testing.T) {
	for name, selection := range map[string]func(id string) queue.Selection{
		"by id":          func(id string) queue.Selection { return queue.Selection{Messages: []string{id}} },
		"by domain":      func(string) queue.Selection { return queue.Selection{Domain: "example.com"} },
		"by destination": func(string) queue.Selection { return queue.Selection{Destination: "z.test"} },
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEdge(t, nil)
			defer e.close()
			id := e.storeWith(cutShort(4), "anna@example.com", "b@y.test", "c@z.test")
			e.run()
			time.Sleep(time.Minute) // longer than what has settled at the start is remembered
			synctest.Wait()
			e.isQuarantined(id)
			for _, action := range []queue.Action{queue.Hold, queue.Retry} {
				if got := e.operate(action, selection(id)); got != (queue.Tally{}) || len(e.inQuarantine()) != 1 {
					t.Errorf("%s, %s: %+v", name, action, got)
				}
			}
			if got := e.operate(queue.Release, queue.Selection{Domain: "example.org"}); got != (queue.Tally{}) {
				t.Errorf("another domain's mail is released: %+v", got)
			}
			answer := make(chan struct{})
			e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { <-answer; return delivered() }
			if got := e.operate(queue.Release, selection(id)); got != (queue.Tally{Messages: 1, Recipients: 2}) {
				t.Errorf("%s: released %+v", name, got)
			}
			synctest.Wait()
			if tried := e.courier.tried(); len(tried) != 2 || len(e.inQuarantine()) != 0 {
				t.Errorf("%s: tried %q, in quarantine %q", name, tried, e.inQuarantine())
			}
			if m, err := e.spool.Load(id); err != nil || m.Recipients[0].Interrupted != 0 || m.Recipients[1].Interrupted != 0 {
				t.Errorf("%s: in the spool is %+v, %v", name, m, err)
			}
			close(answer)
			synctest.Wait()
			got := e.kinds()
			slices.Sort(got)
			want := []string{
				"message-delivered b@y.test", "message-delivered c@z.test", "message-quarantined ", "message-released y.test z.test",
			}
			if s := e.queue.Stats(); s != (queue.Stats{}) || !slices.Equal(got, want) {
				t.Errorf("%s: stats %+v, events %q", name, s, got)
			}
		})
	}
}

func TestItIsToldWhyAMessageIsInQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { panic("index out of range") }
		e.run()
		e.add("anna@example.com", "b@y.test")
		time.Sleep(time.Hour)
		synctest.Wait()
		last := e.events[len(e.events)-1]
		if last.Kind != api.EdgeEventKindMessageQuarantined || last.Detail == nil || *last.Detail != "panic: index out of range" {
			t.Errorf("event %+v", last)
		}
	})
}

// A message that was released, and is set aside again, can be released again.
func TestAReleasedMessageThatFailsAgainIsSetAsideAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, func(c *queue.Config) { c.WarnAfter = -1 })
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { panic("index out of range") }
		e.run()
		id := e.add("anna@example.com", "b@y.test")
		for round := range 3 {
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if n := len(e.courier.tried()); n != 3*(round+1) || !slices.Equal(e.inQuarantine(), []string{id}) {
				t.Fatalf("round %d: tried %d times, in quarantine %q", round, n, e.inQuarantine())
			}
			if got := e.operate(queue.Release, queue.Selection{Messages: []string{id}}); got != (queue.Tally{Messages: 1, Recipients: 1}) {
				t.Errorf("released %+v", got)
			}
		}
	})
}

func TestAMessageInQuarantineIsCancelledAsFarAsItIsSelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		id := e.storeWith(cutShort(4), "anna@example.com", "b@y.test", "c@z.test")
		e.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		e.isQuarantined(id)
		if got := e.operate(queue.Cancel, queue.Selection{Destination: "y.test"}); got != (queue.Tally{Messages: 1, Recipients: 1}) {
			t.Errorf("cancelled %+v", got)
		}
		q, err := e.spool.LoadQuarantined(id)
		if err != nil || q.Message.Recipients[0].State != spool.Cancelled || q.Message.Recipients[1].State.Final() || q.Reason == "" {
			t.Errorf("left in quarantine: %+v, %v", q, err)
		}
		if got := e.operate(queue.Cancel, queue.Selection{Messages: []string{id}}); got != (queue.Tally{Messages: 1, Recipients: 1}) {
			t.Errorf("cancelled %+v", got)
		}
		want := []string{"message-quarantined ", "message-cancelled b@y.test", "message-cancelled c@z.test"}
		if got := e.kinds(); !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
		e.isGone(id)
	})
}

// isGone checks that the spool has nothing of a message any more, nor the queue.
func (e *edge) isGone(id string) {
	e.t.Helper()
	for _, key := range []string{"se", "sb", "sq", "st"} {
		if there, err := e.journal.Has([]byte(key + id)); there || err != nil {
			e.t.Errorf("%s of %s is left: %v", key, id, err)
		}
	}
	if s := e.queue.Stats(); s != (queue.Stats{}) {
		e.t.Errorf("stats %+v", s)
	}
}

// Whose mail it is cannot be told, so that an operator must name it, and nothing else.
func TestAMessageWhoseEnvelopeIsDamagedIsCancelledByItsIdAloneAndNeverReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		id := e.store("anna@example.com", "b@y.test")
		b := e.journal.NewBatch()
		b.Set([]byte("se"+id), []byte("garbage"))
		if err := e.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		e.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if aside := e.inQuarantine(); !slices.Equal(aside, []string{id}) {
			t.Fatalf("in quarantine %q", aside)
		}
		for _, of := range []queue.Selection{{Messages: []string{id}, Partner: "acme"}, {Domain: "example.com"}, {Messages: []string{id}, Sender: "<>"}} {
			if got := e.operate(queue.Cancel, of); got != (queue.Tally{}) {
				t.Errorf("%+v: cancelled %+v", of, got)
			}
		}
		if got := e.operate(queue.Release, queue.Selection{Messages: []string{id}}); got != (queue.Tally{}) {
			t.Errorf("released %+v", got)
		}
		if got := e.operate(queue.Cancel, queue.Selection{Messages: []string{id}}); got != (queue.Tally{Messages: 1}) {
			t.Errorf("cancelled %+v", got)
		}
		last := e.events[len(e.events)-1]
		if last.Kind != api.EdgeEventKindMessageCancelled || *last.MessageID != id || last.Recipient != nil {
			t.Errorf("event %+v", last)
		}
		e.isGone(id)
	})
}

func TestAReleaseThatIsNotRecordedChangesNothing(t *testing.T) {
	for _, action := range []queue.Action{queue.Release, queue.Cancel} {
		synctest.Test(t, func(t *testing.T) {
			e := newEdge(t, nil)
			defer e.close()
			id := e.storeWith(cutShort(4), "anna@example.com", "b@y.test")
			e.run()
			time.Sleep(time.Minute)
			synctest.Wait()
			op := queue.Operation{ID: "qop_1", Action: action, Selection: queue.Selection{Messages: []string{id}}}
			killed := errors.New("killed")
			err := e.queue.Operate(t.Context(), op, queue.Tally{}, func(*journal.Batch, queue.Tally, bool) error { return killed })
			if !errors.Is(err, killed) {
				t.Errorf("got %v", err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			e.isQuarantined(id)
			if s := e.queue.Stats(); s != (queue.Stats{}) || len(e.courier.tried()) != 0 {
				t.Errorf("%s: stats %+v, tried %q", action, s, e.courier.tried())
			}
		})
	}
}
