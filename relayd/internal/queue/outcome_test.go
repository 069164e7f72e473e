package queue_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/spool"
)

func TestMailWaitsWhileItsWayOutIsNotKnownAndThenTakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known atomic.Bool
		e := newEdge(t, func(c *queue.Config) {
			c.Route = func(_, _ string) queue.Route {
				if known.Load() {
					return queue.Route{Host: "smart.test"}
				}
				return queue.Route{Unknown: "its route does not compile"}
			}
		})
		defer e.close()
		e.run()
		id := e.add("anna@example.com", "b@y.test")
		synctest.Wait()
		m, err := e.spool.Load(id)
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Recipients[0]; len(e.courier.tried()) != 0 || !strings.Contains(r.LastReply, "its route does not compile") {
			t.Fatalf("tried %q, last reply %q", e.courier.tried(), r.LastReply)
		}
		known.Store(true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := e.courier.all(); len(got) != 1 || got[0].job.Route.Host != "smart.test" {
			t.Errorf("attempts %+v", got)
		}
	})
}

func TestATemporaryFailureIsTriedAgainUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(_ context.Context, _ queue.Job, _ string, attempt int) queue.Result {
			if attempt < 3 {
				return temporary()
			}
			return delivered()
		}
		e.run()
		began := time.Now()
		e.add("anna@example.com", "b@y.test")
		time.Sleep(time.Hour)
		synctest.Wait()
		var waits []time.Duration
		for _, a := range e.courier.all() {
			waits = append(waits, a.at.Sub(began).Round(time.Second))
		}
		if want := []time.Duration{0, time.Minute, 3 * time.Minute}; !slices.Equal(waits, want) {
			t.Errorf("attempts at %v, want %v", waits, want)
		}
		if got, want := e.kinds(), []string{
			"message-deferred b@y.test", "message-deferred b@y.test", "message-delivered b@y.test",
		}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

func TestTheSenderIsToldOfARecipientThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(_ context.Context, _ queue.Job, recipient string, _ int) queue.Result {
			if recipient == "b\u00fc@y.test" {
				return permanent()
			}
			return delivered()
		}
		e.run()
		e.add("anna@example.com", "b\u00fc@y.test", "c@y.test")
		synctest.Wait()
		var notice string
		for _, a := range e.courier.all() {
			if a.job.Sender.IsNull() {
				notice = a.text
				if a.to() != "anna@example.com" || !slices.Equal(a.job.Recipients[0].Notify, []string{"NEVER"}) {
					t.Errorf("the notification goes to %+v", a.job.Recipients)
				}
				if !a.job.UTF8 || !a.job.EightBit {
					t.Errorf("the notification names an address beyond ASCII: UTF8 %v, EightBit %v", a.job.UTF8, a.job.EightBit)
				}
			}
		}
		if !strings.Contains(notice, "b\u00fc@y.test") || !strings.Contains(notice, "550 5.1.1 unknown") || strings.Contains(notice, "c@y.test") {
			t.Errorf("notification:\n%s", notice)
		}
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("stats %+v", s)
		}
	})
}

// A bounce says why in a word of the registry, and whoever may get a message twice is warned.
func TestAnEventSaysWhyMailBouncedOrMayArriveTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(_ context.Context, job queue.Job, recipient string, attempt int) queue.Result {
			status, _, _ := strings.Cut(recipient, "@")
			switch {
			case job.Sender.IsNull():
				return delivered()
			case status == "twice" && attempt == 1:
				return queue.Result{Enhanced: "4.4.2", Text: "cut", Host: "mx.test[192.0.2.1]:25", Uncertain: true}
			case status == "twice":
				return delivered()
			}
			return queue.Result{Class: queue.PermFail, Enhanced: status, Text: "no"}
		}
		e.run()
		want := map[string]string{
			"5.1.10@y.test": "recipient-null-mx", "5.1.2@y.test": "recipient-domain-unknown", "5.4.6@y.test": "routing-loop",
			"5.7.30@y.test": "delivery-refused",
		}
		for to := range want {
			e.add("anna@example.com", to)
		}
		e.add("anna@example.com", "twice@y.test")
		time.Sleep(time.Hour)
		synctest.Wait()
		e.mu.Lock()
		defer e.mu.Unlock()
		twice := 0
		for _, event := range e.events {
			if reason := want[*event.Recipient]; reason != "" && (event.Reason == nil || *event.Reason != reason) {
				t.Errorf("%s: reason %v, want %s", *event.Recipient, event.Reason, reason)
			}
			if event.Detail != nil && strings.Contains(*event.Detail, "may arrive twice") && *event.Recipient == "twice@y.test" {
				twice++
			}
		}
		if twice != 1 || len(e.events) != len(want)+2 {
			t.Errorf("%d warnings in %d events", twice, len(e.events))
		}
	})
}

func TestTheSenderIsToldAlsoWhereTheTextIsDamagedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
			if job.Sender.IsNull() {
				return delivered()
			}
			b := e.journal.NewBatch()
			defer b.Discard()
			b.Delete([]byte("sb" + job.MessageID))
			if err := e.journal.Commit(b); err != nil {
				t.Error(err)
			}
			return permanent()
		}
		e.store("anna@example.com", "b@y.test") // and found, so that its text is nowhere but on the disk
		e.run()
		time.Sleep(time.Hour)
		synctest.Wait()
		if tried, want := e.courier.tried(), []string{"b@y.test", "anna@example.com"}; !slices.Equal(tried, want) {
			t.Errorf("attempts %q, want %q", tried, want)
		}
	})
}

// Matrix row 5: a notification needs no file, and without it c would get the message again and again.
func TestRow5WithoutRoomForTheWholeMessageItsHeaderIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		e.close()
		var full atomic.Bool
		e.spoils = func(op, _ string) error {
			if op == "create" && full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}
		e.open()
		defer e.close()
		e.courier.decide = func(_ context.Context, _ queue.Job, recipient string, _ int) queue.Result {
			if recipient == "b@y.test" {
				return permanent()
			}
			return delivered()
		}
		e.text = mail + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 5000)
		e.storeWith(func(m *spool.Message) { m.Ret = "FULL" }, "anna@example.com", "b@y.test", "c@y.test")
		full.Store(true)
		e.run()
		time.Sleep(time.Hour)
		synctest.Wait()
		all := e.courier.all()
		if tried, want := e.courier.tried(), []string{"b@y.test c@y.test", "anna@example.com"}; !slices.Equal(tried, want) {
			t.Fatalf("attempts %q, want %q", tried, want)
		}
		if text := all[1].text; !strings.Contains(text, "550 5.1.1 unknown") || !strings.Contains(text, "Subject: hello") || len(text) > 10_000 {
			t.Errorf("a notification of %d bytes:\n%.3000s", len(text), text)
		}
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("stats %+v", s)
		}
	})
}

// RFC 8689 5.
func TestTheTextOfMailThatRequiresTLSIsNotReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		defer e.close()
		e.courier.decide = func(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
			if job.Sender.IsNull() {
				return delivered()
			}
			return queue.Result{Class: queue.PermFail, Enhanced: "5.7.30", Text: "the next server does not promise TLS"}
		}
		e.run()
		synctest.Wait() // what is stored from now on is only found by being handed over
		for _, required := range []bool{false, true} {
			e.enqueue(e.storeWith(func(m *spool.Message) { m.Ret, m.RequireTLS = "FULL", required }, "anna@example.com", "b@y.test"))
			synctest.Wait()
			all := e.courier.all()
			notice := all[len(all)-1]
			_, body, _ := strings.Cut(mail, "\r\n\r\n")
			if !notice.job.Sender.IsNull() || strings.Contains(notice.text, body) == required || required && !strings.Contains(notice.text, "5.7.30") {
				t.Errorf("TLS required: %v; notification:\n%s", required, notice.text)
			}
			if notice.job.RequireTLS != required {
				t.Errorf("TLS required: %v, of the notification: %v", required, notice.job.RequireTLS)
			}
		}
	})
}

func TestWhatIsInTheSpoolIsDeliveredByTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, nil)
		e.store("anna@example.com", "b@y.test")
		e.store("anna@example.com", "c@z.test")
		e.close()
		e.stop = nil
		e.open()
		defer e.close()
		e.run()
		synctest.Wait()
		got := e.courier.tried()
		slices.Sort(got)
		if want := []string{"b@y.test", "c@z.test"}; !slices.Equal(got, want) {
			t.Errorf("attempts %q, want %q", got, want)
		}
	})
}

func TestAMessageThatIsNeverTakenExpiresOnceAndItsSenderIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, func(c *queue.Config) { c.Lifetime = 24 * time.Hour })
		defer e.close()
		e.courier.decide = func(_ context.Context, job queue.Job, _ string, _ int) queue.Result {
			if job.Sender.IsNull() {
				return delivered()
			}
			return temporary()
		}
		e.run()
		began := time.Now()
		e.add("anna@example.com", "b@y.test")
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		kinds := e.kinds()
		if n := count(kinds, "message-expired b@y.test"); n != 1 || kinds[len(kinds)-1] != "message-expired b@y.test" {
			t.Errorf("events %q", kinds)
		}
		var notices []string
		var last time.Duration
		for _, a := range e.courier.all() {
			if a.job.Sender.IsNull() {
				notices = append(notices, a.text)
			} else {
				last = a.at.Sub(began)
			}
		}
		if last != 24*time.Hour {
			t.Errorf("the last attempt was made after %v", last)
		}
		if len(notices) != 2 || !strings.Contains(notices[0], "Action: delayed") || !strings.Contains(notices[1], "Action: failed") {
			t.Errorf("%d notifications, want one of the delay and one of the end: %q", len(notices), notices)
		}
		if s := e.queue.Stats(); s != (queue.Stats{}) {
			t.Errorf("stats %+v", s)
		}
	})
}

func count(list []string, want string) int {
	n := 0
	for _, s := range list {
		if s == want {
			n++
		}
	}
	return n
}
