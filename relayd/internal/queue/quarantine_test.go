package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

// cutShort makes a message one during whose attempts the process has ended so many times.
func cutShort(times int) func(*spool.Message) {
	return func(m *spool.Message) {
		for i := range m.Recipients {
			r := &m.Recipients[i]
			r.Attempts, r.Interrupted, r.LastReply = times, times-1, spool.UnderWay
			r.LastAttempt = time.Now().Add(-time.Hour)
		}
	}
}

// inQuarantine lists the messages that were set aside.
func (e *edge) inQuarantine() (ids []string) {
	e.t.Helper()
	if err := e.spool.EachQuarantined(func(q spool.Quarantined) error { ids = append(ids, q.ID); return nil }); err != nil {
		e.t.Fatal(err)
	}
	return ids
}

func TestWhatCannotBeSetAsideIsTriedNoMoreAndSetAsideOnceItCanBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		var failing atomic.Bool
		failing.Store(true)
		e.spoils = func(op, _ string) error {
			if op == "quarantine" && failing.Load() {
				return errors.New("input/output error")
			}
			return nil
		}
		e.close()
		e.open()
		defer e.close()
		id := e.storeWith(cutShort(4), "anna@example.com", "b@y.test", "c@z.test")
		other := e.store("anna@example.com", "d@y.test")
		e.run()
		time.Sleep(10 * time.Minute)
		for _, action := range []queue.Action{queue.Hold, queue.Release, queue.Retry} {
			e.operate(action, queue.Selection{Messages: []string{id}})
			time.Sleep(10 * time.Minute)
		}
		synctest.Wait()
		if tried := e.courier.tried(); !slices.Equal(tried, []string{"d@y.test"}) || len(e.inQuarantine()) != 0 {
			t.Fatalf("tried %q, in quarantine %q; %s is to be tried, %s not", tried, e.inQuarantine(), other, id)
		}
		if s := e.queue.Stats(); s.Messages != 1 {
			t.Errorf("stats %+v", s)
		}
		failing.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		e.isQuarantined(id)
		if s := e.queue.Stats(); s != (queue.Stats{}) || len(e.courier.tried()) != 1 {
			t.Errorf("stats %+v, tried %q", s, e.courier.tried())
		}
	})
}

func TestWhatPanickedAndCannotBeSetAsideIsTriedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		var failing atomic.Bool
		failing.Store(true)
		e.spoils = func(op, _ string) error {
			if op == "quarantine" && failing.Load() {
				return errors.New("input/output error")
			}
			return nil
		}
		e.close()
		e.open()
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { panic("index out of range") }
		e.run()
		id := e.add("anna@example.com", "b@y.test")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if tried := e.courier.tried(); len(tried) != 3 || len(e.inQuarantine()) != 0 {
			t.Errorf("tried %q", tried)
		}
		failing.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		e.isQuarantined(id)
	})
}

// Each operation holds what it changes until the batch is on the disk: one that waits for itself would hold up all others for ever.
func TestAMessageThatIsNamedInTwoSpellingsIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		id := e.store("anna@example.com", "b@y.test")
		named := []string{id, strings.ToLower(id), id[:10] + strings.ToLower(id[10:]), "no id", ""}
		if got := e.operate(queue.Hold, queue.Selection{Messages: named}); got != (queue.Tally{Messages: 1, Recipients: 1}) {
			t.Errorf("held %+v", got)
		}
	})
}

// The clock was set back between the processes, so that what the last one accepted comes from the future.
func TestInterruptedAttemptsCountAlsoAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		id := e.storeWith(func(m *spool.Message) {
			cutShort(4)(m)
			m.AcceptedAt = time.Now().Add(6 * time.Hour)
		}, "anna@example.com", "b@y.test")
		e.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		e.isQuarantined(id)
		if tried := e.courier.tried(); len(tried) != 0 {
			t.Errorf("tried %q", tried)
		}
	})
}

// What ended the process during the attempt for one recipient is not forgotten because that for another has ended.
func TestInterruptedAttemptsCountForEachRecipient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		id := e.storeWith(cutShort(3), "anna@example.com", "b@y.test", "c@z.test")
		second := make(chan struct{})
		e.courier.decide = func(ctx context.Context, _ queue.Job, recipient string, _ int) queue.Result {
			if recipient == "b@y.test" {
				return delivered()
			}
			<-second
			return delivered()
		}
		e.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m, err := e.spool.Load(id)
		if err != nil || m.Recipients[1].LastReply != spool.UnderWay || m.Recipients[1].Interrupted != 3 {
			t.Errorf("the second recipient: %+v, %v", m, err)
		}
		close(second)
	})
}

// A suspect is tried alone, but for the servers that it goes to the others do not wait.
func TestASuspectHoldsUpTheOthersForABoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		var ids []string
		for i := range 8 {
			ids = append(ids, e.storeWith(cutShort(2), "anna@example.com", fmt.Sprintf("b%d@slow.test", i)))
		}
		var flying, most atomic.Int32
		e.courier.decide = func(ctx context.Context, _ queue.Job, _ string, _ int) queue.Result {
			most.Store(max(most.Load(), flying.Add(1)))
			defer flying.Add(-1)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Minute):
			}
			return unreachable()
		}
		e.run()
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if n := most.Load(); n != 1 {
			t.Errorf("%d suspects were tried at once", n)
		}
		time.Sleep(70 * time.Second)
		synctest.Wait()
		for _, id := range ids {
			m, err := e.spool.Load(id)
			if err != nil || m.Recipients[0].Attempts != 3 && m.Recipients[0].Attempts != 4 {
				t.Fatalf("after two minutes: %+v, %v", m, err)
			}
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := most.Load(); n < 2 {
			t.Error("those that have survived are still tried one at a time")
		}
	})
}
