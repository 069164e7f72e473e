package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

// operate carries out an operation and answers what it changed.
func (e *edge) operate(action queue.Action, s queue.Selection) queue.Tally {
	e.t.Helper()
	var last queue.Tally
	finished := 0
	err := e.queue.Operate(context.Background(), queue.Operation{ID: "qop_1", Action: action, Selection: s}, queue.Tally{},
		func(_ *journal.Batch, t queue.Tally, done bool) error {
			last = t
			if done {
				finished++
			}
			return nil
		})
	if err != nil || finished != 1 {
		e.t.Fatalf("%s: ended %d times, %v", action, finished, err)
	}
	return last
}

func never(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
	if job.Sender.IsNull() {
		return delivered()
	}
	return temporary()
}

func TestAHeldMessageIsNeitherTriedNorExpiredUntilItIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, func(c *queue.Config) { c.Lifetime = 24 * time.Hour })
		e.courier.decide = never
		e.run()
		id := e.add("anna@example.com", "b@y.test")
		synctest.Wait()
		if got := e.operate(queue.Hold, queue.Selection{Messages: []string{id}}); got != (queue.Tally{Messages: 1, Recipients: 1}) {
			t.Errorf("held %+v", got)
		}
		if got := e.operate(queue.Hold, queue.Selection{Messages: []string{id}}); got != (queue.Tally{}) {
			t.Errorf("held again %+v", got)
		}
		if got := e.operate(queue.Retry, queue.Selection{Messages: []string{id}}); got != (queue.Tally{}) {
			t.Errorf("a held message was made due: %+v", got)
		}
		time.Sleep(30 * time.Hour)
		synctest.Wait()
		if s := e.queue.Stats(); s != (queue.Stats{Messages: 1, Held: 1}) || len(e.courier.tried()) != 1 {
			t.Errorf("stats %+v, attempts %q", s, e.courier.tried())
		}
		// The next process holds it too.
		e.close()
		e.stop = nil
		e.open()
		defer e.close()
		e.courier.decide = nil
		e.run()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := e.queue.Stats(); s != (queue.Stats{Messages: 1, Held: 1}) || len(e.courier.tried()) != 1 {
			t.Errorf("after a restart: stats %+v, attempts %q", s, e.courier.tried())
		}
		e.operate(queue.Release, queue.Selection{Messages: []string{id}})
		synctest.Wait()
		if s := e.queue.Stats(); s != (queue.Stats{}) || len(e.courier.tried()) != 2 {
			t.Errorf("after the release: stats %+v, attempts %q", s, e.courier.tried())
		}
		want := []string{"message-deferred b@y.test", "message-held y.test", "message-released y.test", "message-delivered b@y.test"}
		if got := e.kinds(); !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
	})
}

func TestACancelledMessageIsGoneAndNobodyIsNotified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = never
		e.run()
		id := e.add("anna@example.com", "b@y.test", "c@z.test")
		synctest.Wait()
		e.operate(queue.Hold, queue.Selection{Destination: "z.test"})
		if got := e.operate(queue.Cancel, queue.Selection{Domain: "example.com"}); got != (queue.Tally{Messages: 1, Recipients: 2}) {
			t.Errorf("cancelled %+v", got)
		}
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if _, err := e.spool.Load(id); !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("the message is still there: %v", err)
		}
		if s := e.queue.Stats(); s != (queue.Stats{}) || len(e.courier.tried()) != 2 {
			t.Errorf("stats %+v, attempts %q", s, e.courier.tried())
		}
		kinds := e.kinds()
		if count(kinds, "message-cancelled b@y.test") != 1 || count(kinds, "message-cancelled c@z.test") != 1 {
			t.Errorf("events %q", kinds)
		}
	})
}

func TestRetryMakesDueNowWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, func(c *queue.Config) { c.Backoff = func(int, float64) time.Duration { return 10 * time.Hour } })
		defer e.close()
		e.courier.decide = func(_ context.Context, _ queue.Job, _ string, attempt int) queue.Result {
			if attempt == 1 {
				return temporary()
			}
			return delivered()
		}
		e.run()
		e.add("anna@example.com", "b@y.test")
		other := e.add("anna@example.com", "c@z.test")
		synctest.Wait()
		began := time.Now()
		if got := e.operate(queue.Retry, queue.Selection{Destination: "y.test"}); got.Messages != 1 {
			t.Errorf("retried %+v", got)
		}
		synctest.Wait()
		all := e.courier.all()
		if last := all[len(all)-1]; len(all) != 3 || last.to() != "b@y.test" || !last.at.Equal(began) {
			t.Errorf("attempts %q", e.courier.tried())
		}
		if m, err := e.spool.Load(other); err != nil || !m.Recipients[0].NextAttempt.After(began) {
			t.Errorf("the other one: %+v, %v", m, err)
		}
	})
}

func TestASelectionIsEverythingThatIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		of := func(partner string) func(*spool.Message) { return func(m *spool.Message) { m.Partner = partner } }
		one := e.storeWith(of("acme"), "anna@example.com", "b@y.test", "c@z.test")
		e.storeWith(of("acme"), "ben@example.com", "b@y.test")
		e.storeWith(of("beta"), "carl@example.org", "b@y.test")
		for _, test := range []struct {
			selection queue.Selection
			want      queue.Tally
		}{
			{queue.Selection{Partner: "acme"}, queue.Tally{Messages: 2, Recipients: 3}},
			{queue.Selection{Partner: "nobody"}, queue.Tally{}},
			{queue.Selection{Domain: "example.org"}, queue.Tally{Messages: 1, Recipients: 1}},
			{queue.Selection{Destination: "y.test"}, queue.Tally{Messages: 3, Recipients: 3}},
			{queue.Selection{Partner: "acme", Destination: "z.test"}, queue.Tally{Messages: 1, Recipients: 1}},
			{queue.Selection{Sender: "Anna@example.com"}, queue.Tally{Messages: 1, Recipients: 2}},
			{queue.Selection{Sender: "<>"}, queue.Tally{}},
			{queue.Selection{Messages: []string{one, one}}, queue.Tally{Messages: 1, Recipients: 2}},
			{queue.Selection{Messages: []string{one}, Partner: "beta"}, queue.Tally{}},
			{queue.Selection{Messages: []string{"01KAQ7M2Z8Y3F6N5T4R1W0X9VB"}}, queue.Tally{}},
		} {
			if got := e.operate(queue.Hold, test.selection); got != test.want {
				t.Errorf("%+v: held %+v, want %+v", test.selection, got, test.want)
			}
			e.operate(queue.Release, queue.Selection{})
		}
		e.run()
		synctest.Wait() // what was known by an operation before the queue ran is tried all the same
		if s := e.queue.Stats(); s != (queue.Stats{}) || len(e.courier.tried()) != 4 {
			t.Errorf("stats %+v, attempts %q", s, e.courier.tried())
		}
	})
}

func TestWhatIsCancelledDuringItsAttemptIsDeliveredOrCancelled(t *testing.T) {
	for _, test := range []struct {
		result queue.Result
		want   string
	}{{delivered(), "message-delivered b@y.test"}, {temporary(), "message-cancelled b@y.test"}, {permanent(), "message-cancelled b@y.test"}} {
		synctest.Test(t, func(t *testing.T) {
			e := newEdge(t, nil)
			defer e.close()
			answer := make(chan struct{})
			e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { <-answer; return test.result }
			e.run()
			e.add("anna@example.com", "b@y.test")
			synctest.Wait()
			for range 2 {
				e.operate(queue.Cancel, queue.Selection{Domain: "example.com"})
			}
			if got := e.kinds(); len(got) != 0 {
				t.Errorf("events %q before the attempt has ended", got)
			}
			close(answer)
			time.Sleep(5 * time.Hour)
			synctest.Wait()
			if got := e.kinds(); !slices.Equal(got, []string{test.want}) {
				t.Errorf("events %q, want %q", got, test.want)
			}
			if s := e.queue.Stats(); s != (queue.Stats{}) || len(e.courier.tried()) != 1 {
				t.Errorf("stats %+v, attempts %q", s, e.courier.tried())
			}
		})
	}
}

// An attempt that a crash cut short leaves a cancelled recipient behind.
func TestWhatWasCancelledDuringAnAttemptThatACrashEndedIsCancelledByTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.storeWith(func(m *spool.Message) {
			r := &m.Recipients[0]
			r.Attempts, r.LastReply, r.Cancelling, r.NextAttempt = 1, "attempt under way", true, time.Now().Add(time.Hour)
		}, "anna@example.com", "b@y.test", "c@y.test")
		e.run()
		synctest.Wait()
		got := e.kinds()
		slices.Sort(got)
		if want := []string{"message-cancelled b@y.test", "message-delivered c@y.test"}; !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
		if tried := e.courier.tried(); !slices.Equal(tried, []string{"c@y.test"}) {
			t.Errorf("tried %q", tried)
		}
	})
}

func TestWhatWaitsForASlotIsHeldOrCancelledBeforeItIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, func(c *queue.Config) { c.Limits.Attempts = 1 })
		defer e.close()
		answer := make(chan struct{})
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { <-answer; return delivered() }
		e.run()
		first := e.add("anna@example.com", "b@y.test")
		synctest.Wait()
		held := e.add("anna@example.com", "c@y.test", "d@z.test")
		cancelled := e.add("anna@example.com", "e@y.test", "f@z.test")
		free := e.add("anna@example.com", "g@y.test")
		synctest.Wait()
		e.operate(queue.Hold, queue.Selection{Messages: []string{held}})
		e.operate(queue.Cancel, queue.Selection{Messages: []string{cancelled}})
		close(answer)
		time.Sleep(time.Hour)
		synctest.Wait()
		var tried []string
		for _, a := range e.courier.all() {
			tried = append(tried, a.job.MessageID)
		}
		if !slices.Equal(tried, []string{first, free}) {
			t.Errorf("tried %q; held %s, cancelled %s", tried, held, cancelled)
		}
		if s := e.queue.Stats(); s != (queue.Stats{Messages: 1, Held: 1}) {
			t.Errorf("stats %+v", s)
		}
	})
}

// What the process that was killed had recorded the next one goes on from.
func TestAnOperationThatACrashEndedIsFinishedOnce(t *testing.T) {
	for _, action := range []queue.Action{queue.Hold, queue.Cancel} {
		synctest.Test(t, func(t *testing.T) {
			const messages = 210
			e := newEdge(t, nil)
			e.courier.decide = never
			for i := range messages {
				e.store("anna@example.com", fmt.Sprintf("b%d@y.test", i))
			}
			op := queue.Operation{ID: "qop_1", Action: action, Selection: queue.Selection{Domain: "example.com"}}
			var recorded queue.Tally
			batches := 0
			err := e.queue.Operate(t.Context(), op, queue.Tally{}, func(b *journal.Batch, tally queue.Tally, done bool) error {
				if batches++; batches == 2 {
					return errors.New("killed")
				}
				b.Ordered(func(*journal.Batch) { recorded = tally })
				return nil
			})
			if err == nil || recorded.Messages == 0 || recorded.Messages == messages {
				t.Fatalf("recorded %+v, %v", recorded, err)
			}
			e.close()
			e.open()
			defer e.close()
			err = e.queue.Operate(t.Context(), op, recorded, func(_ *journal.Batch, tally queue.Tally, _ bool) error {
				recorded = tally
				return nil
			})
			if err != nil || recorded != (queue.Tally{Messages: messages, Recipients: messages}) {
				t.Errorf("%s: %+v, %v", action, recorded, err)
			}
			if got := len(e.kinds()); got != messages {
				t.Errorf("%s: %d events, want one for each message", action, got)
			}
		})
	}
}

// For each domain: accepted = delivered + bounced + expired + cancelled + held + queued, whatever operators do meanwhile and
// however often the process starts anew.
func TestNoRecipientIsLostOrCountedTwiceWhileOperatorsAct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		var turn sync.Mutex
		dice := func(n int) int {
			turn.Lock()
			defer turn.Unlock()
			return random.IntN(n)
		}
		e := newEdge(t, func(c *queue.Config) { c.Lifetime, c.Limits.Attempts = time.Hour, 5 })
		e.courier.decide = func(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
			time.Sleep(time.Duration(dice(30)) * time.Second)
			if job.Sender.IsNull() {
				return delivered()
			}
			if job.RecipientDomain == "dest3.test" {
				return temporary()
			}
			return []queue.Result{delivered(), temporary(), temporary(), temporary(), permanent()}[dice(5)]
		}
		e.run()
		accepted := map[string]int{}
		actions := []queue.Action{queue.Hold, queue.Release, queue.Cancel, queue.Retry}
		for round := range 120 {
			domain, n := fmt.Sprintf("d%d.test", dice(3)), 1+dice(3)
			var to []string
			for i := range n {
				to = append(to, fmt.Sprintf("r%d@dest%d.test", i, dice(4)))
			}
			e.add("anna@"+domain, to...)
			accepted[domain] += n
			e.operate(actions[dice(len(actions))], queue.Selection{Domain: fmt.Sprintf("d%d.test", dice(3)), Destination: fmt.Sprintf("dest%d.test", dice(4))})
			time.Sleep(time.Duration(dice(300)) * time.Second)
			if round%40 == 39 {
				e.close()
				e.stop = nil
				e.open()
				e.run()
			}
		}
		synctest.Wait()
		e.close() // waits for what is under way
		e.stop = nil
		e.open()
		defer e.close()
		// Whatever the dice said, some recipient is held in the end.
		accepted["d0.test"]++
		e.operate(queue.Hold, queue.Selection{Messages: []string{e.store("anna@d0.test", "r0@dest0.test")}})
		e.balance(accepted)
	})
}

// balance checks the sum of every domain over the events and the spool.
func (e *edge) balance(accepted map[string]int) {
	e.t.Helper()
	found, states := map[string]int{}, map[string]int{}
	for _, event := range e.events {
		switch event.Kind {
		case api.EdgeEventKindMessageDelivered, api.EdgeEventKindMessageBounced, api.EdgeEventKindMessageExpired, api.EdgeEventKindMessageCancelled:
			found[*event.Domain]++
			states[string(event.Kind)]++
		}
	}
	err := e.spool.Each(func(m *spool.Message) error {
		for _, r := range m.Recipients {
			if m.Domain == "" || r.State.Final() {
				continue
			}
			found[m.Domain]++
			if r.Held {
				states["held"]++
			} else {
				states["queued"]++
			}
		}
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	for domain, n := range accepted {
		if found[domain] != n {
			e.t.Errorf("%s: %d recipients accepted, %d accounted for", domain, n, found[domain])
		}
	}
	for _, state := range []string{"message-delivered", "message-bounced", "message-expired", "message-cancelled", "held"} {
		if states[state] == 0 {
			e.t.Errorf("no recipient is %s: %v", state, states)
		}
	}
}
