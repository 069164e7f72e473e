package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/queue"
)

// unreachable is what the courier answers when no connection was had.
func unreachable() queue.Result {
	return queue.Result{Enhanced: "4.4.1", Text: "cannot connect to mx.test[192.0.2.1]:25", Err: errors.New("connection refused")}
}

// traffic watches how many attempts are under way.
type traffic struct {
	mu             sync.Mutex
	now, most, all int
}

func (t *traffic) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now++
	t.all++
	t.most = max(t.most, t.now)
}

func (t *traffic) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now--
}

// take answers the figures since the last call.
func (t *traffic) take() (most, all int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	most, all = t.most, t.all
	t.most, t.all = t.now, 0
	return most, all
}

func TestADeadDestinationIsProbedAndItsMailDeferredUntilItIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alive atomic.Bool
		var seen traffic
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
			if job.RecipientDomain != "dead.test" || alive.Load() {
				return delivered()
			}
			seen.begin()
			defer seen.end()
			time.Sleep(30 * time.Second) // until the connection has timed out
			return unreachable()
		}
		e.run()
		const messages = 200
		for i := range messages {
			e.add(fmt.Sprintf("anna@customer%d.test", i%5), fmt.Sprintf("b%d@dead.test", i))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if most, all := seen.take(); most > 5 || all > 7 {
			t.Errorf("%d attempts, %d at once, before it was found dead", all, most)
		}
		e.add("anna@customer1.test", "c@dead.test")
		e.add("anna@customer1.test", "d@y.test")
		synctest.Wait()
		if last := e.lastEvent("d@y.test"); last.Kind != api.EdgeEventKindMessageDelivered {
			t.Errorf("mail for another destination: %+v", last)
		}
		for _, to := range []string{"c@dead.test", "b199@dead.test"} {
			last := e.lastEvent(to)
			if last.Kind != api.EdgeEventKindMessageDeferred || last.DelayReason == nil || *last.DelayReason != "destination-down" ||
				!strings.Contains(*last.Reply, "cannot connect to mx.test") || *last.Attempts != 0 {
				t.Errorf("%s was not deferred with the cause: %+v", to, last)
			}
		}
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if most, all := seen.take(); most > 1 || all > 6*5+5 {
			t.Errorf("%d probes in six hours, %d at once", all, most)
		}
		if s := e.queue.Stats(); s.Dead != 1 || s.Messages < messages {
			t.Errorf("stats %+v", s)
		}
		alive.Store(true)
		time.Sleep(20 * time.Minute) // the longest wait for a probe, with its jitter
		synctest.Wait()
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("once it was alive: stats %+v", s)
		}
	})
}

// lastEvent is the last one about a recipient.
func (e *edge) lastEvent(recipient string) (last api.EdgeEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.events {
		if event.Recipient != nil && *event.Recipient == recipient {
			last = event
		}
	}
	return last
}

func TestAnOperatorsRetryProbesADeadDestinationAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alive atomic.Bool
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result {
			if alive.Load() {
				return delivered()
			}
			return unreachable()
		}
		e.run()
		for i := range 20 {
			e.add("anna@example.com", fmt.Sprintf("b%d@dead.test", i))
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if s := e.queue.Stats(); s.Dead != 1 || s.Messages != 20 {
			t.Fatalf("stats %+v", s)
		}
		alive.Store(true)
		e.operate(queue.Retry, queue.Selection{Destination: "dead.test"})
		synctest.Wait()
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("right after the retry: stats %+v", s)
		}
	})
}

func TestMailForADeadDestinationExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, func(c *queue.Config) { c.Lifetime, c.WarnAfter = 24*time.Hour, -1 })
		defer e.close()
		e.courier.decide = func(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
			if job.Sender.IsNull() {
				return delivered()
			}
			return unreachable()
		}
		e.run()
		for i := range 30 {
			e.add("anna@example.com", fmt.Sprintf("b%d@dead.test", i))
		}
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		expired := 0
		for _, kind := range e.kinds() {
			if strings.HasPrefix(kind, "message-expired ") {
				expired++
			}
		}
		if s := e.queue.Stats(); expired != 30 || s.Messages != 0 {
			t.Errorf("%d of 30 expired, stats %+v", expired, s)
		}
	})
}

func TestConcurrencyFollowsWhatADestinationTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen traffic
		var takes atomic.Int64
		e := newEdge(t, func(c *queue.Config) { c.Backoff = func(int, float64) time.Duration { return time.Minute } })
		defer e.close()
		takes.Store(20)
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result {
			seen.begin()
			defer seen.end()
			time.Sleep(time.Second)
			seen.mu.Lock()
			over := seen.now > int(takes.Load())
			seen.mu.Unlock()
			if over {
				return queue.Result{Code: 421, Enhanced: "4.7.0", Text: "too many connections", Host: "mx.test[192.0.2.1]:25"}
			}
			return delivered()
		}
		e.run()
		send := func(n int) {
			for i := range n {
				e.add("anna@example.com", fmt.Sprintf("b%d@y.test", i))
			}
		}
		send(1)
		synctest.Wait()
		time.Sleep(2 * time.Second)
		seen.take()
		send(300)
		synctest.Wait()
		if most, _ := seen.take(); most > 6 {
			t.Errorf("%d at once in the beginning", most)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if most, _ := seen.take(); most != 19 {
			t.Errorf("%d at once after many successes, want 19: at the limit of 20 an eighth is for others", most)
		}
		takes.Store(3)
		send(600)
		time.Sleep(time.Minute)
		synctest.Wait()
		seen.take()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if most, _ := seen.take(); most > 4 || most < 1 {
			t.Errorf("%d at once where the destination takes 3", most)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("in the end: stats %+v", s)
		}
	})
}

func TestLimitsOfADestinationAreReadAtEveryDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen traffic
		var limit atomic.Value
		limit.Store(queue.DestinationLimit{Attempts: 2})
		e := newEdge(t, func(c *queue.Config) {
			c.Route = func(_, recipient string) queue.Route {
				if recipient == "smart.test" {
					return queue.Route{Host: "smarthost.test", Port: 587}
				}
				return queue.Route{}
			}
			c.DestinationLimit = func(host string) queue.DestinationLimit {
				if host == "y.test" || host == "smarthost.test" {
					return limit.Load().(queue.DestinationLimit)
				}
				return queue.DestinationLimit{}
			}
		})
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result {
			seen.begin()
			defer seen.end()
			time.Sleep(time.Second)
			return delivered()
		}
		e.run()
		for _, domain := range []string{"y.test", "smart.test"} {
			for i := range 40 {
				e.add("anna@example.com", fmt.Sprintf("b%d@%s", i, domain))
			}
			time.Sleep(5 * time.Second)
			if most, _ := seen.take(); most != 2 {
				t.Errorf("%s: %d attempts at once, want 2", domain, most)
			}
			limit.Store(queue.DestinationLimit{PerMinute: 6})
			time.Sleep(3 * time.Second)
			seen.take()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if _, all := seen.take(); all < 11 || all > 13 {
				t.Errorf("%s: %d attempts in two minutes, want 12", domain, all)
			}
			limit.Store(queue.DestinationLimit{})
			time.Sleep(time.Minute)
			synctest.Wait()
			if s := e.queue.Stats(); s != (queue.Stats{}) {
				t.Errorf("%s: without a limit: stats %+v", domain, s)
			}
			limit.Store(queue.DestinationLimit{Attempts: 2})
			seen.take()
		}
	})
}

func TestALimitThatIsLiftedIsLiftedAtOnceForMailThatWaits(t *testing.T) {
	for _, limited := range []queue.DestinationLimit{{Attempts: 1}, {PerMinute: 1}} {
		synctest.Test(t, func(t *testing.T) {
			var seen traffic
			var limit atomic.Value
			limit.Store(queue.DestinationLimit{})
			e := newEdge(t, func(c *queue.Config) {
				c.DestinationLimit = func(string) queue.DestinationLimit { return limit.Load().(queue.DestinationLimit) }
			})
			defer e.close()
			takes := time.Second
			e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result {
				seen.begin()
				defer seen.end()
				time.Sleep(takes)
				return delivered()
			}
			e.run()
			send := func(n int) {
				for i := range n {
					e.add("anna@example.com", fmt.Sprintf("b%d@y.test", i))
				}
			}
			send(300) // shows that the destination takes many
			time.Sleep(time.Minute)
			limit.Store(limited)
			send(3)
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if s := e.queue.Stats(); s != (queue.Stats{}) {
				t.Fatalf("%+v: stats %+v", limited, s)
			}
			seen.take()
			takes = time.Hour
			send(50)
			synctest.Wait()
			if most, _ := seen.take(); most != 1 {
				t.Errorf("%+v: %d attempts at once", limited, most)
			}
			limit.Store(queue.DestinationLimit{})
			e.queue.Wake()
			synctest.Wait()
			if most, _ := seen.take(); most != 18 {
				t.Errorf("%+v, and then none: %d attempts at once, want as many as it took before", limited, most)
			}
		})
	}
}

func TestAPacedDestinationThatAnOperatorFoundAliveGoesOnAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alive atomic.Bool
		e := newEdge(t, func(c *queue.Config) {
			c.DestinationLimit = func(string) queue.DestinationLimit { return queue.DestinationLimit{PerMinute: 60} }
		})
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result {
			if alive.Load() {
				return delivered()
			}
			return unreachable()
		}
		e.run()
		for i := range 20 {
			e.add("anna@example.com", fmt.Sprintf("b%d@dead.test", i))
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if s := e.queue.Stats(); s.Dead != 1 || s.Messages != 20 {
			t.Fatalf("stats %+v", s)
		}
		alive.Store(true)
		e.operate(queue.Retry, queue.Selection{Destination: "dead.test"})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("20 s after the retry: stats %+v", s)
		}
	})
}

func TestMailThatWaitsLongForALimitTellsSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit atomic.Value
		limit.Store(queue.DestinationLimit{PerMinute: 1})
		e := newEdge(t, func(c *queue.Config) {
			c.Lifetime = time.Hour
			c.DestinationLimit = func(string) queue.DestinationLimit { return limit.Load().(queue.DestinationLimit) }
		})
		defer e.close()
		e.run()
		var want, got []string
		for i := range 20 {
			to := fmt.Sprintf("b%d@y.test", i)
			want = append(want, to)
			e.add("anna@example.com", to)
		}
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if got := e.kinds(); len(got) != 1 {
			t.Errorf("in the first minute it was told: %q", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		last := e.lastEvent("b9@y.test")
		if last.Kind != api.EdgeEventKindMessageDeferred || last.DelayReason == nil || *last.DelayReason != "destination-busy" || *last.Attempts != 0 {
			t.Errorf("it was not told why mail waits: %+v", last)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		for _, a := range e.courier.all() {
			got = append(got, a.to())
		}
		if !slices.Equal(got, want) {
			t.Errorf("attempts %q", got)
		}
		if n := len(e.kinds()); n > 20+20*5 {
			t.Errorf("it was told %d times", n)
		}

		limit.Store(queue.DestinationLimit{})
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result {
			time.Sleep(10 * time.Minute)
			return delivered()
		}
		for i := range 50 {
			e.add("anna@example.com", fmt.Sprintf("c%d@y.test", i))
		}
		limit.Store(queue.DestinationLimit{Attempts: 1})
		e.queue.Wake()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if last := e.lastEvent("c49@y.test"); last.DelayReason == nil || *last.DelayReason != "destination-busy" {
			t.Errorf("a limit came while mail waited: %+v", last)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if last := e.lastEvent("c49@y.test"); last.Kind != api.EdgeEventKindMessageExpired {
			t.Errorf("at the end of its lifetime: %+v", last)
		}
	})
}
