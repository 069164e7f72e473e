package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/outbox"
)

// reporter is an outbox with its sender.
type reporter struct {
	t       *testing.T
	journal *journal.Journal
	outbox  *outbox.Outbox
	sender  *EventSender
	made    int
}

func newReporter(t *testing.T, p *plane, dir string) *reporter {
	t.Helper()
	r := &reporter{t: t}
	var err error
	if r.journal, err = journal.Open(journal.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if r.outbox, err = outbox.Open(outbox.Config{Journal: r.journal, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	if err := r.outbox.StartGeneration(1); err != nil {
		t.Fatal(err)
	}
	r.sender = &EventSender{Client: p.inside(), Outbox: r.outbox, Log: quiet}
	return r
}

// happen commits n events, each in a batch of its own.
func (r *reporter) happen(n int) {
	r.t.Helper()
	for range n {
		r.made++
		detail := fmt.Sprint(r.made)
		b := r.journal.NewBatch()
		e := api.EdgeEvent{Time: noon, Kind: api.EdgeEventKindMessageAccepted, Detail: &detail}
		if err := errors.Join(r.outbox.Append(b, e), r.journal.CommitLazy(b)); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *reporter) close() {
	r.t.Helper()
	if err := r.journal.Close(); err != nil {
		r.t.Error(err)
	}
}

// has demands that the plane took the events 1 to n, each once.
func (p *plane) has(t *testing.T, n int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.events) != n {
		t.Errorf("the control plane has %d events, want %d", len(p.events), n)
	}
	for i, e := range p.events {
		if *e.Detail != fmt.Sprint(i+1) {
			t.Fatalf("event %d there is %s", i+1, *e.Detail)
		}
	}
}

func TestEventsGoOverTheWireAsTheContractWants(t *testing.T) {
	p := newPlane(t)
	s, _ := joinedEdge(t, p)
	r := newReporter(t, p, t.TempDir())
	defer r.close()
	r.sender.Client = p.client(func() *Store { return s })
	r.happen(2500)
	if err := r.sender.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.has(t, 2500)
	if n := r.outbox.Backlog(); n != 0 || p.count("events") != 3 {
		t.Errorf("backlog %d after %d calls", n, p.count("events"))
	}
}

// A proxy that takes no long body must not keep the last report of an edge that ends.
func TestFlushGoesOnWithSmallerBatches(t *testing.T) {
	p := newPlane(t)
	r := newReporter(t, p, t.TempDir())
	defer r.close()
	p.trouble = func(string) *problem.Problem {
		if p.calls["events"] <= 3 {
			return problem.BodyTooLarge(1000)
		}
		return nil
	}
	r.happen(20)
	if err := r.sender.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.has(t, 20)
}

// run starts the sender in the bubble and returns what ends it.
func (r *reporter) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.sender.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	}
}

func TestEventsAreSentAgainUntilTheyAreAcknowledgedAndNoneTwice(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		stop := r.run()
		defer func() { stop() }()
		r.happen(10)
		time.Sleep(gatherFor)
		synctest.Wait()
		p.has(t, 10)

		p.set(func() { p.lost = true }) // they arrive, and nobody hears of it
		r.happen(10)
		time.Sleep(time.Minute)
		if n := r.outbox.Backlog(); n != 10 {
			t.Errorf("backlog %d while every reply is lost", n)
		}
		r.happen(5)
		p.set(func() { p.lost = false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		p.has(t, 25)
		if n := r.outbox.Backlog(); n != 0 {
			t.Errorf("backlog %d at the end", n)
		}
	})
}

func TestTheSenderBacksOffWhileCallsFailAndComesBackSoon(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	var calls []time.Time
	var outcomes []error
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		p.trouble = func(string) *problem.Problem {
			calls = append(calls, time.Now())
			return problem.Unavailable(time.Second)
		}
		r.sender.OnReply = func(err error) { outcomes = append(outcomes, err) }
		stop := r.run()
		r.happen(3)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		for i := 1; i < len(calls); i++ {
			full := min(250*time.Millisecond<<min(i-1, 10), 5*time.Second)
			if gap := calls[i].Sub(calls[i-1]); gap < full/2 || gap > full {
				t.Fatalf("pause %d is %v, want %v to %v", i, gap, full/2, full)
			}
		}
		if n := len(calls); n < 24*3600/5 || n > 24*3600*2/5+20 {
			t.Errorf("%d calls in a day", n)
		}
		if len(outcomes) != len(calls) || outcomes[0] == nil {
			t.Errorf("%d outcomes told of %d calls", len(outcomes), len(calls))
		}
		p.set(func() { p.trouble = nil })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		p.has(t, 3)
		if outcomes[len(outcomes)-1] != nil {
			t.Error("the success was not told")
		}

		calls = nil // and the next trouble begins with a short pause
		p.set(func() {
			p.trouble = func(string) *problem.Problem {
				calls = append(calls, time.Now())
				return problem.Unavailable(time.Second)
			}
		})
		r.happen(1)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(calls) < 2 || calls[1].Sub(calls[0]) > 250*time.Millisecond {
			t.Errorf("calls after a success: %v", calls)
		}
		stop()
	})
}

// A session that only refuses commits lazily and waits for no sync; its events
// leave all the same.
func TestAnIdleSenderWakesForOneEvent(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		stop := r.run()
		defer func() { stop() }()
		time.Sleep(10 * time.Minute)
		if n := p.count("events"); n != 0 {
			t.Errorf("%d calls with nothing to say", n)
		}
		r.happen(1)
		time.Sleep(gatherFor)
		synctest.Wait()
		p.has(t, 1)
	})
}

// Each call is a transaction of the control plane, which has many edges.
func TestABusySenderMakesAFewCallsASecondAndFullOnesAtOnce(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		stop := r.run()
		defer func() { stop() }()
		for range 200 { // two seconds
			r.happen(3)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(gatherFor)
		synctest.Wait()
		p.has(t, 600)
		if n := p.count("events"); n > 9 {
			t.Errorf("%d calls in two seconds, want at most 9", n)
		}
		r.happen(3 * eventsPerCall)
		time.Sleep(gatherFor)
		synctest.Wait()
		p.has(t, 600+3*eventsPerCall)
	})
}

func TestTheSenderPrunesWhatIsOldWhileItRuns(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		stop := r.run()
		defer func() { stop() }()
		r.happen(5)
		time.Sleep(outbox.KeepFor - time.Hour)
		if batch, err := r.outbox.Next(1); err != nil || batch.FirstKept != 1 {
			t.Errorf("first kept after 23 hours: %d, %v", batch.FirstKept, err)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if batch, err := r.outbox.Next(1); err != nil || batch.FirstKept != 6 {
			t.Errorf("first kept after 26 hours: %d, %v", batch.FirstKept, err)
		}
	})
}

// An edge that is busy day and night never finds that nothing waits.
func TestASenderThatIsAlwaysBehindPrunesToo(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		stop := r.run()
		defer func() { stop() }()
		r.happen(5)
		time.Sleep(outbox.KeepFor - time.Hour)
		p.set(func() {
			p.trouble = func(string) *problem.Problem { // one more happens during each call
				time.Sleep(callTimeout - time.Second)
				r.happen(1)
				return nil
			}
		})
		r.happen(1)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if batch, err := r.outbox.Next(1); err != nil || batch.FirstKept <= 5 {
			t.Errorf("first kept after 26 hours: %d, %v", batch.FirstKept, err)
		}
	})
}

func TestARestoredControlPlaneIsToldAgainWhatItLost(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		stop := r.run()
		defer func() { stop() }()
		r.happen(20)
		time.Sleep(gatherFor)
		synctest.Wait()
		p.has(t, 20)
		p.set(func() { p.events, p.acked = p.events[:7], 7 }) // its backup
		r.happen(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		p.has(t, 21)
	})
}

func TestAnEdgeWhoseDiskWentBackStartsANewGeneration(t *testing.T) {
	for name, before := range map[string]func(*plane){
		"it acknowledges what this disk never sent": func(p *plane) { p.acked = 100 },
		"it knows a later generation":               func(p *plane) { p.generation, p.acked = 4, 100 },
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newPlane(t), t.TempDir()
			before(p)
			synctest.Test(t, func(t *testing.T) {
				r := newReporter(t, p, dir)
				defer r.close()
				generation := p.generation
				stop := r.run()
				defer func() { stop() }()
				r.happen(3)
				time.Sleep(time.Minute)
				synctest.Wait()
				p.has(t, 3)
				if got := r.outbox.Generation(); got != generation+1 || r.outbox.Backlog() != 0 {
					t.Errorf("generation %d, want %d; backlog %d", got, generation+1, r.outbox.Backlog())
				}
			})
		})
	}
}

// unacceptable makes a plane refuse some events by their detail. It is asked under the plane's lock.
func unacceptable(why *problem.Problem, details ...string) func(api.EdgeEvent) *problem.Problem {
	return func(e api.EdgeEvent) *problem.Problem {
		if slices.Contains(details, *e.Detail) {
			return why
		}
		return nil
	}
}

// condemned is a refusal by the control plane itself.
func condemned() *problem.Problem {
	p := problem.Malformed("it is not of the contract")
	p.RequestID = "01KAQ7M2"
	return p
}

func TestAnEventThatIsRefusedIsFoundAndLostAndHoldsUpNoOther(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.refuses = unacceptable(condemned(), "1", "777", "778", "2500")
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		var log strings.Builder
		r.sender.Log = slog.New(slog.NewTextHandler(&log, nil))
		r.happen(2500)
		stop := r.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.events) != 2496 || r.outbox.Backlog() != 0 {
			t.Errorf("%d events arrived, want 2496; backlog %d", len(p.events), r.outbox.Backlog())
		}
		if got := strings.Count(log.String(), "event lost"); got != 4 || !strings.Contains(log.String(), "number=777") {
			t.Errorf("%d losses in the log, want 4:\n%s", got, log.String())
		}
		if p.calls["events"] > 100 {
			t.Errorf("%d calls", p.calls["events"])
		}
	})
}

// A control plane that has lost its mind, or that expects another contract, is sent an event every few seconds until somebody looks.
func TestAControlPlaneThatRefusesEverythingCostsFewEvents(t *testing.T) {
	p, dir := newPlane(t), t.TempDir()
	p.refuses = func(api.EdgeEvent) *problem.Problem { return condemned() }
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(t, p, dir)
		defer r.close()
		r.happen(2000)
		stop := r.run()
		defer func() { stop() }()
		time.Sleep(time.Minute)
		if lost := 2000 - r.outbox.Backlog(); lost < 5 || lost > 40 {
			t.Errorf("%d events lost in a minute", lost)
		}
		p.set(func() { p.refuses = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := r.outbox.Backlog(); n != 0 {
			t.Errorf("backlog %d ten seconds after it came to its senses", n)
		}
	})
}

func TestWhatTheControlPlaneDidNotSayItselfCostsNoEvent(t *testing.T) {
	for name, why := range map[string]*problem.Problem{
		"a proxy that takes no long body": problem.BodyTooLarge(1000),
		"a proxy that answers 400":        problem.Decode(400, "text/html", strings.NewReader("<h1>Bad request</h1>")),
		"a proxy that answers 404":        problem.Decode(404, "text/html", strings.NewReader("<h1>Not found</h1>")),
		"a wrong credential":              problem.Unauthenticated(),
		"too many requests":               problem.RateLimited(time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newPlane(t), t.TempDir()
			p.refuses = unacceptable(why, "3")
			synctest.Test(t, func(t *testing.T) {
				r := newReporter(t, p, dir)
				defer r.close()
				r.happen(20)
				stop := r.run()
				defer func() { stop() }()
				time.Sleep(time.Hour)
				if n := r.outbox.Backlog(); n < 18 {
					t.Errorf("%d of 20 events are there", n)
				}
				p.set(func() { p.refuses = nil })
				time.Sleep(10 * time.Second)
				synctest.Wait()
				p.has(t, 20)
			})
		})
	}
}
