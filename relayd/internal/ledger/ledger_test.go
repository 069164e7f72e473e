package ledger

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
)

func TestUnitsAreSpentUntilNoneIsLeftAndThenTheAnswerIsNotALimit(t *testing.T) {
	e := startOne(t)
	e.stock(t, 3)
	for range 3 {
		if !e.accept(t, 1) {
			t.Fatal("a held unit could not be spent")
		}
	}
	e.plane.now = e.plane.now.Add(time.Minute) // the last word is old now
	if d := e.ledger.Peek(domain, 1); d.Outcome != quota.Unavailable {
		t.Errorf("without units and without a fresh word the answer is %s", d.Outcome)
	}
}

func TestReachedIsSaidOnTheFreshWordOfTheControlPlaneOnly(t *testing.T) {
	e := startOne(t)
	e.stock(t, firstLimit)
	if !e.accept(t, firstLimit) {
		t.Fatal("the whole limit could not be spent")
	}
	e.talk(t)
	d := e.ledger.Peek(domain, 1)
	want := quota.Decision{
		Outcome: quota.Reached, Unit: quota.UnitMessage, Limit: firstLimit, Used: firstLimit,
		ResetsAt: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
	}
	if d != want {
		t.Errorf("decision is %+v, want %+v", d, want)
	}
	e.plane.now = e.plane.now.Add(2 * time.Second)
	if d := e.ledger.Peek(domain, 1); d.Outcome != quota.Unavailable {
		t.Errorf("two seconds later the answer is still %s", d.Outcome)
	}
}

func TestUndoneUnitsCanBeSpentAgain(t *testing.T) {
	e := startOne(t)
	e.stock(t, 1)
	b := e.journal.NewBatch()
	spending, d := e.ledger.Spend(b, domain, 1)
	if d.Outcome != quota.Granted {
		t.Fatalf("spend: %s", d.Outcome)
	}
	if d := e.ledger.Peek(domain, 1); d.Outcome == quota.Granted {
		t.Error("one unit can be spent twice at once")
	}
	b.Discard()
	spending.Undo()
	spending.Commit() // comes too late to have an effect
	if !e.accept(t, 1) {
		t.Error("the unit that was given up is lost")
	}
	if call := e.talk(t); call.Leases[0].Spent != 1 {
		t.Errorf("reported %+v, want 1 spent", call.Leases[0])
	}
}

func TestCrashKeepsSpentEqualToTheMessagesStored(t *testing.T) {
	e := startOne(t)
	e.stock(t, 5)
	e.accept(t, 1)
	if e.store(t, 2) == nil {
		t.Fatal("no units")
	}
	e.crash(t) // after the sync, before anybody was told
	e.check(t)
	if call := e.talk(t); call.Leases[0].Spent != 3 {
		t.Errorf("after the crash %d units are reported, want 3", call.Leases[0].Spent)
	}
	if e.accept(t, 3) {
		t.Error("five units paid for six")
	}
}

func TestMessagesStoredAtOnceAreAllCounted(t *testing.T) {
	e := startOne(t)
	e.stock(t, firstLimit)
	var group sync.WaitGroup
	granted := make(chan bool, 2*firstLimit)
	for range 2 * firstLimit {
		group.Go(func() {
			b := e.journal.NewBatch()
			defer b.Discard()
			spending, d := e.ledger.Spend(b, domain, 1)
			if d.Outcome != quota.Granted {
				return
			}
			if err := e.journal.Commit(b); err != nil {
				t.Error(err)
			}
			spending.Commit()
			granted <- true
		})
	}
	group.Wait()
	e.crash(t)
	if call := e.talk(t); len(granted) != firstLimit || call.Leases[0].Spent != firstLimit {
		t.Errorf("%d accepted, %d counted after a crash, want %d", len(granted), call.Leases[0].Spent, firstLimit)
	}
}

func TestLostReplyIsHealedByTheNextCall(t *testing.T) {
	e := startOne(t)
	e.stock(t, 2)
	e.accept(t, 1)
	call, _, err := e.ledger.Report()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := e.plane.answer(e.name, call); !ok { // and nobody hears it
		t.Fatal("no answer")
	}
	e.ledger.Failed()
	again := e.talk(t)
	if again.Sequence <= call.Sequence || again.Leases[0].Spent != 1 {
		t.Errorf("second call is %+v", again)
	}
	net, _ := e.plane.net(e.plane.day().Start.Unix())
	if d := e.ledger.Peek(domain, net-1); d.Outcome != quota.Granted {
		t.Errorf("of %d units lent and 1 spent the edge does not hold the rest", net)
	}
}

func TestSequenceGoesOnOverACrash(t *testing.T) {
	e := startOne(t)
	e.stock(t, 1)
	e.accept(t, 1)
	call, _, err := e.ledger.Report() // sent, and then the process is gone
	if err != nil || call.Sequence == 0 {
		t.Fatalf("report: %+v, %v", call, err)
	}
	e.crash(t)
	if after := e.talk(t); after.Sequence <= call.Sequence {
		t.Errorf("after the crash sequence %d follows %d", after.Sequence, call.Sequence)
	}
}

func TestCompleteIsSaidOnceEveryLeaseWasReported(t *testing.T) {
	e := startOne(t)
	e.stock(t, 2)
	e.accept(t, 1)
	e.talk(t)
	e.crash(t)
	if call := e.talk(t); call.Complete == nil || !*call.Complete || len(call.Leases) != 1 {
		t.Errorf("first call after the start is %+v, want a complete report", call)
	}
	// A control plane that was restored between two calls must not take what the
	// one before it heard for said to itself.
	e.accept(t, 1)
	if call := e.learn(t); call.Complete != nil {
		t.Errorf("before it hears of the restore the edge calls %+v, want no word of being complete", call)
	}
	if call := e.learn(t); len(call.Leases) != 1 || call.Leases[0].Spent != 2 || call.Complete == nil {
		t.Errorf("told of a restored control plane, the edge calls %+v", call)
	}
	if call := e.talk(t); call.Sequence == 0 || call.Complete == nil {
		t.Errorf("while others are waited for the edge calls %+v, want that it asks on", call)
	}
	if call := e.talk(t); call.Sequence != 0 {
		t.Errorf("with nothing to say the edge calls %+v", call)
	}
}

// What a control plane heard before it was away it may have forgotten since.
func TestCompleteReportBeginsAnewAfterACallThatFailed(t *testing.T) {
	e := startOne(t)
	b, day := e.journal.NewBatch(), e.plane.day()
	var held []record
	for i := range callLeases {
		held = append(held, record{Domain: fmt.Sprintf("d%04d.example", i), Start: day.Start, End: day.End, Granted: 1})
	}
	if err := putLeases(b, held, e.journal.Commit); err != nil {
		t.Fatal(err)
	}
	e.crash(t)
	first := e.talk(t)
	if len(first.Leases) != callLeases-1 || first.Complete != nil { // each may need one more
		t.Fatalf("first call has %d leases, complete %v", len(first.Leases), first.Complete)
	}
	if _, _, err := e.ledger.Report(); err != nil {
		t.Fatal(err)
	}
	e.ledger.Failed()
	if again := e.talk(t); len(again.Leases) != len(first.Leases) || again.Complete != nil {
		t.Errorf("after a failure the edge goes on with %d leases, complete %v, want all from the first", len(again.Leases), again.Complete)
	}
	if last := e.talk(t); len(last.Leases) != 1 || last.Complete == nil {
		t.Errorf("the last call has %d leases, complete %v", len(last.Leases), last.Complete)
	}
}

func TestEdgeThatHoldsNothingReportsThatToo(t *testing.T) {
	e := startOne(t)
	if call := e.talk(t); call.Sequence == 0 || len(call.Leases) != 0 || call.Complete == nil {
		t.Errorf("first call is %+v, want an empty complete report", call)
	}
	if call := e.talk(t); call.Sequence != 0 {
		t.Errorf("second call is %+v, want none", call)
	}
	e.plane.now = e.plane.now.Add(silence)
	if call := e.learn(t); call.Sequence == 0 || call.Complete != nil {
		t.Errorf("after some silence the edge calls %+v, want that it asks how things are", call)
	}
	if call := e.talk(t); call.Sequence == 0 || call.Complete == nil {
		t.Errorf("told of a restored control plane, it calls %+v", call)
	}
}

func TestNewGenerationVoidsAllLeases(t *testing.T) {
	e := startOne(t)
	e.stock(t, 5)
	e.accept(t, 1)
	e.plane.writeOff(e.name)
	e.talk(t) // learns of it
	if d := e.ledger.Peek(domain, 1); d.Outcome == quota.Granted {
		t.Fatal("units of the old generation can be spent")
	}
	if g := e.ledger.Generation(); g != 1 {
		t.Errorf("generation is %d, want 1", g)
	}
	e.crash(t)
	if d := e.ledger.Peek(domain, 1); d.Outcome == quota.Granted || e.ledger.Generation() != 1 {
		t.Error("a crash brings the old generation back")
	}
	e.stock(t, 2)
	e.accept(t, 2)
	if call := e.talk(t); call.Leases[0].Spent != 2 || call.Generation != 1 {
		t.Errorf("the new life reports %+v, want its own 2 units", call)
	}
	net, _ := e.plane.net(e.plane.day().Start.Unix())
	if net > firstLimit {
		t.Errorf("%d units are out, the limit is %d", net, firstLimit)
	}
}

func TestMessageOnItsWayWhenTheGenerationEndsIsNotCountedInTheNew(t *testing.T) {
	e := startOne(t)
	e.stock(t, 2)
	b := e.journal.NewBatch()
	spending, d := e.ledger.Spend(b, domain, 1)
	if d.Outcome != quota.Granted {
		t.Fatalf("spend: %s", d.Outcome)
	}
	if err := e.ledger.StartGeneration(7); err != nil {
		t.Fatal(err)
	}
	if err := e.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	spending.Commit()
	e.crash(t) // a count without a lease would be corruption
	if g := e.ledger.Generation(); g != 7 {
		t.Errorf("generation is %d, want 7", g)
	}
}

// A reply may bring another end of the running day, as where a zone was changed, while
// a message is on its way: it is charged to the day that it was told.
func TestAMessageOnItsWayKeepsItsDayWhateverAReplyBrings(t *testing.T) {
	e := startOne(t)
	e.stock(t, 2)
	b := e.journal.NewBatch()
	defer b.Discard()
	spending, d := e.ledger.Spend(b, domain, 1)
	if d.Outcome != quota.Granted {
		t.Fatalf("spend: %s", d.Outcome)
	}
	defer spending.Undo()
	want := e.plane.day()
	call, _, err := e.ledger.Report()
	if err != nil {
		t.Fatal(err)
	}
	reply, ok := e.plane.answer(e.name, call)
	if !ok || len(reply.Leases) != 1 {
		t.Fatalf("reply %+v", reply)
	}
	later := want.End.Add(time.Hour)
	reply.Leases[0].DayEnd = &later
	applied := make(chan error)
	go func() { applied <- e.ledger.Apply(reply) }()
	got := spending.Day() // meanwhile, which the race detector looks at
	if err := <-applied; err != nil {
		t.Fatal(err)
	}
	if !got.End.Equal(want.End) || !spending.Day().End.Equal(want.End) {
		t.Errorf("the message is charged to %v, then to %v, want %v", got, spending.Day(), want)
	}
}

// A count of what was spent, or given back to serve another edge, may be among what a
// damaged log has lost.
func TestLeasesAreWorthNothingOnceTheJournalHasLostChanges(t *testing.T) {
	e := startOne(t)
	e.stock(t, 5)
	e.accept(t, 1)
	e.loseChanges(t)
	for range 2 { // it dies once more before it could call
		e.crash(t)
		if d := e.ledger.Peek(domain, 1); d.Outcome == quota.Granted {
			t.Fatal("units can be spent though what is left of them is not known")
		}
	}
	e.plane.writeOff(e.name) // since the call is of an earlier generation
	e.talk(t)
	e.stock(t, 2)
	if !e.accept(t, 2) {
		t.Error("units of the new generation cannot be spent")
	}
}

func TestLeasesOfAnEarlierBootWaitForTheControlPlane(t *testing.T) {
	e := startOne(t)
	e.stock(t, 2)
	e.boot = "boot-2"
	e.crash(t)
	if d := e.ledger.Peek(domain, 1); d.Outcome != quota.Unavailable {
		t.Fatalf("after a reboot old leases are %s", d.Outcome)
	}
	e.boot = "boot-3" // a second reboot, still off the network
	e.crash(t)
	if d := e.ledger.Peek(domain, 1); d.Outcome != quota.Unavailable {
		t.Fatalf("after two reboots old leases are %s", d.Outcome)
	}
	e.talk(t)
	if !e.accept(t, 2) {
		t.Error("after contact the leases cannot be spent")
	}
	e.crash(t)
	if d := e.ledger.Peek(domain, 1); d.Outcome == quota.Granted {
		t.Error("spent units came back")
	}
}

func TestTrustedHostSpendsAtOnceAfterAReboot(t *testing.T) {
	e := startOne(t)
	e.stock(t, 2)
	e.boot, e.trust = "boot-2", true
	e.crash(t)
	if !e.accept(t, 1) {
		t.Error("the edge that is trusted across boots cannot spend")
	}
}

func TestUnitsAreWorthlessOnceTheirDayIsOver(t *testing.T) {
	e := startOne(t)
	e.stock(t, 5)
	end := e.plane.day().End
	e.plane.now = end.Add(-time.Nanosecond)
	if d := e.ledger.Peek(domain, 1); d.Outcome != quota.Granted {
		t.Errorf("in the last instant of the day units are %s", d.Outcome)
	}
	e.plane.now = end
	if d := e.ledger.Peek(domain, 1); d.Outcome != quota.Unavailable {
		t.Errorf("after the day units are %s", d.Outcome)
	}
	e.stock(t, 1)
	b := e.journal.NewBatch()
	defer b.Discard()
	spending, d := e.ledger.Spend(b, domain, 1)
	if d.Outcome != quota.Granted || !spending.Day().Start.Equal(end) {
		t.Errorf("the new day's units are %s", d.Outcome)
	}
	spending.Undo()
}

func TestRecalledUnitsGoBackAndServeAnotherEdge(t *testing.T) {
	p := newPlane()
	one, two := newEdge(t, p, t.TempDir(), "one"), newEdge(t, p, t.TempDir(), "two")
	defer func() { one.close(); two.close() }()
	one.stock(t, firstLimit)
	one.accept(t, 1)
	one.talk(t)
	if two.talk(t); two.accept(t, 1) {
		t.Fatal("the limit was lent twice")
	}
	one.ledger.Recall(domain)
	one.crash(t) // nothing was promised yet: the recall is forgotten
	one.ledger.Recall(domain)
	one.talk(t)
	one.crash(t) // what was given back stays given back
	two.stock(t, firstLimit-1)
	if !two.accept(t, firstLimit-1) || one.accept(t, 1) {
		t.Error("the returned units are not where they should be")
	}
}

func TestWaitWakesWhenUnitsCome(t *testing.T) {
	e := startOne(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan quota.Decision, 1)
	go func() { got <- e.ledger.Wait(ctx, domain, 2) }()
	select {
	case <-e.ledger.Wanted():
	case <-ctx.Done():
		t.Fatal("nobody was asked for units")
	}
	e.talk(t)
	if d := <-got; d.Outcome != quota.Granted {
		t.Errorf("Wait says %s", d.Outcome)
	}
}

func TestWaitHearsThatTheLimitIsReachedOrTheDomainUnknown(t *testing.T) {
	e := startOne(t)
	e.plane.limits[e.plane.day().Start.Unix()] = 0
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan quota.Decision, 1)
	go func() { got <- e.ledger.Wait(ctx, domain, 1) }()
	<-e.ledger.Wanted()
	e.talk(t)
	if d := <-got; d.Outcome != quota.Reached {
		t.Errorf("over the limit Wait says %s", d.Outcome)
	}
	e.plane.now = e.plane.now.Add(time.Minute)
	go func() { got <- e.ledger.Wait(ctx, "unknown.test", 1) }()
	<-e.ledger.Wanted()
	e.plane.now = e.plane.now.Add(time.Millisecond)
	call, _, err := e.ledger.Report()
	if err != nil {
		t.Fatal(err)
	}
	err = e.ledger.Apply(api.LeaseReply{
		Generation: call.Generation, Sequence: call.Sequence, Now: e.plane.now,
		Leases: []api.LeaseGrant{{Domain: "unknown.test", State: api.LeaseGrantStateUnknownDomain}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := <-got; d.Outcome != quota.Unavailable || ctx.Err() != nil {
		t.Errorf("for a domain that nobody knows Wait says %s", d.Outcome)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	e := startOne(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d := e.ledger.Wait(ctx, domain, 1); d.Outcome != quota.Unavailable {
		t.Errorf("Wait says %s", d.Outcome)
	}
}
