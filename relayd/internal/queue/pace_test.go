package queue_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/relayd/internal/queue"
)

func TestSessionsOfACustomerAreSlowedOnceHisBacklogIsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, func(c *queue.Config) { c.Backlog = 50 })
		defer e.close()
		e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result {
			time.Sleep(time.Second)
			return delivered()
		}
		e.run()
		admit := func(ctx context.Context, domain string) time.Duration {
			began := time.Now()
			e.queue.Admit(ctx, domain)
			return time.Since(began)
		}
		for i := range 60 {
			if took := admit(t.Context(), "flood.test"); took > 0 && i < 50 {
				t.Fatalf("message %d waited %v", i, took)
			}
			e.add("anna@flood.test", fmt.Sprintf("b%d@y.test", i))
		}
		for range 20 {
			e.add("anna@flood.test", "c@z.test")
		}
		synctest.Wait()
		if took := admit(t.Context(), "example.com"); took != 0 {
			t.Errorf("another customer waited %v", took)
		}
		if took := admit(t.Context(), "flood.test"); took != time.Second {
			t.Errorf("the customer waited %v with a long backlog, want what the next attempts take", took)
		}
		for range 200 {
			e.add("anna@flood.test", "d@y.test")
		}
		if took := admit(t.Context(), "flood.test"); took != time.Second {
			t.Errorf("the customer waited %v, want a second and no longer", took)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if took := admit(gone, "flood.test"); took != 0 {
			t.Errorf("a session that has gone waited %v", took)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if took := admit(t.Context(), "flood.test"); took != 0 {
			t.Errorf("waited %v without a backlog", took)
		}
	})
}

func TestADeferralSaysWhyTheMailWaitsAndOverWhichChannel(t *testing.T) {
	unanswered := func(enhanced string) queue.Result { return queue.Result{Enhanced: enhanced, Text: "no"} }
	for want, result := range map[string]queue.Result{
		"deferred":          {Code: 450, Enhanced: "4.2.0", Text: "later", Host: "mx.test[192.0.2.1]:25", TLS: "TLS 1.3 dane"},
		"connection-failed": unanswered("4.4.1"),
		"lookup-failed":     unanswered("4.4.3"),
		"tls-failed":        unanswered("4.7.5"),
		"login-failed":      unanswered("4.7.8"),
		"edge-trouble":      unanswered("4.3.0"),
		"other":             unanswered("4.0.0"),
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEdge(t, nil)
			defer e.close()
			e.courier.decide = func(context.Context, queue.Job, string, int) queue.Result { return result }
			e.run()
			e.add("anna@example.com", "b@y.test")
			synctest.Wait()
			last := e.lastEvent("b@y.test")
			if last.DelayReason == nil || *last.DelayReason != want {
				t.Errorf("%+v: told as %+v, want %s", result, last, want)
			}
			if result.TLS == "" && last.TLS != nil || result.TLS != "" && (last.TLS == nil || *last.TLS != result.TLS) {
				t.Errorf("%+v: channel told as %+v", result, last)
			}
		})
	}
}
