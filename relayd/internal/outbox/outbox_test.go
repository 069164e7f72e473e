package outbox_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/outbox"

	"github.com/prometheus/client_golang/prometheus"
)

// desk is an outbox over a journal of its own, with a clock that the test moves.
type desk struct {
	t       *testing.T
	dir     string
	now     time.Time
	journal *journal.Journal
	outbox  *outbox.Outbox
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	d.open()
	t.Cleanup(func() { _ = d.journal.Close() })
	return d
}

func (d *desk) open() {
	d.t.Helper()
	d.openWith(journal.Config{Dir: d.dir})
}

func (d *desk) openWith(c journal.Config) {
	d.t.Helper()
	var err error
	if d.journal, err = journal.Open(c); err != nil {
		d.t.Fatal(err)
	}
	d.outbox, err = outbox.Open(outbox.Config{Journal: d.journal, Now: func() time.Time { return d.now }})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) reopen() {
	d.t.Helper()
	if err := d.journal.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.open()
}

// note commits one batch with an event for each detail.
func (d *desk) note(details ...string) {
	d.t.Helper()
	b := d.journal.NewBatch()
	defer b.Discard()
	for _, text := range details {
		if err := d.outbox.Append(b, api.EdgeEvent{Time: d.now, Kind: api.EdgeEventKindMessageAccepted, Detail: &text}); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := d.journal.Commit(b); err != nil {
		d.t.Fatal(err)
	}
}

// next answers the batch to send as "first-kept: sequence=detail …".
func (d *desk) next(limit int) string {
	d.t.Helper()
	batch, err := d.outbox.Next(limit)
	if err != nil {
		d.t.Fatal(err)
	}
	text := fmt.Sprintf("%d:", batch.FirstKept)
	for _, e := range sent(d.t, batch) {
		text += fmt.Sprintf(" %d=%s", e.Sequence, *e.Detail)
	}
	return text
}

// ack acknowledges events once they were sent.
func (d *desk) ack(n int64) {
	d.t.Helper()
	if _, err := d.outbox.Next(1000); err != nil {
		d.t.Fatal(err)
	}
	if err := d.outbox.Ack(n); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) want(got, want string) {
	d.t.Helper()
	if got != want {
		d.t.Errorf("to send %q, want %q", got, want)
	}
}

func TestEventsAreSentInOrderUntilTheyAreAcknowledged(t *testing.T) {
	d := newDesk(t)
	d.want(d.next(10), "1:")
	d.note("a", "b")
	d.note("c")
	d.want(d.next(2), "1: 1=a 2=b")
	d.want(d.next(10), "1: 1=a 2=b 3=c")
	d.ack(2)
	d.want(d.next(10), "1: 3=c")
	if n := d.outbox.Backlog(); n != 1 {
		t.Errorf("backlog %d, want 1", n)
	}
	d.reopen()
	d.want(d.next(10), "1: 3=c")
	d.note("d")
	d.want(d.next(10), "1: 3=c 4=d")
}

func TestABatchThatIsDroppedUsesNoNumber(t *testing.T) {
	d := newDesk(t)
	b := d.journal.NewBatch()
	if err := d.outbox.Append(b, api.EdgeEvent{Kind: api.EdgeEventKindMessageAccepted}); err != nil {
		t.Fatal(err)
	}
	b.Discard()
	d.note("a")
	d.want(d.next(10), "1: 1=a")
}

func TestARestoredControlPlaneIsSentAgainWhatIsStillKept(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b", "c")
	d.ack(3)
	d.want(d.next(10), "1:")
	d.ack(1)
	d.want(d.next(10), "1: 2=b 3=c")
}

func TestAcknowledgedEventsGoAfterADayAndTheGapIsDeclared(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b")
	d.ack(2)
	d.note("c")
	d.now = d.now.Add(outbox.KeepFor - time.Minute)
	if err := d.outbox.Prune(); err != nil {
		t.Fatal(err)
	}
	d.want(d.next(10), "1: 3=c")
	d.now = d.now.Add(time.Hour)
	if err := d.outbox.Prune(); err != nil {
		t.Fatal(err)
	}
	d.want(d.next(10), "3: 3=c")
	d.ack(0)
	d.want(d.next(10), "3: 3=c")
	d.reopen()
	d.want(d.next(10), "3: 3=c")
}

func TestAnAcknowledgementOfWhatWasNeverSentShowsThatTheDiskWentBack(t *testing.T) {
	d := newDesk(t)
	d.note("a")
	if err := d.outbox.Ack(7); !errors.Is(err, outbox.ErrAhead) {
		t.Fatalf("error %v, want ErrAhead", err)
	}
	if err := d.outbox.StartGeneration(4); err != nil {
		t.Fatal(err)
	}
	batch, err := d.outbox.Next(10)
	if err != nil || batch.Generation != 4 || batch.Events != 1 {
		t.Errorf("batch %+v, error %v; want generation 4 with one event", batch, err)
	}
}

func TestATextLongerThanTheContractAllowsIsCutAndHoldsUpNothing(t *testing.T) {
	d := newDesk(t)
	d.note(strings.Repeat("ü", 5000))
	batch, err := d.outbox.Next(1)
	if err != nil {
		t.Fatal(err)
	}
	if n := len([]rune(*sent(t, batch)[0].Detail)); n != 1000 {
		t.Errorf("detail of %d characters, want 1000", n)
	}
}

// The disk went back to before event 3; since then others took the numbers from
// 3 on, but they were not sent, so what the control plane acknowledges is the old ones.
func TestAnAcknowledgementOfWhatExistsButWasNotSentShowsItToo(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b")
	d.want(d.next(10), "1: 1=a 2=b")
	d.note("c", "d", "e")
	if err := d.outbox.Ack(4); !errors.Is(err, outbox.ErrAhead) {
		t.Fatalf("error %v, want ErrAhead", err)
	}
	d.want(d.next(10), "1: 1=a 2=b 3=c 4=d 5=e")
	d.ack(5)
}

// The last process may have sent all that was on its disk, and died before it
// noted the acknowledgement.
func TestAfterARestartAllThatWasOnTheDiskMayBeAcknowledged(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b", "c")
	d.reopen()
	d.want(d.next(1), "1: 1=a")
	if err := d.outbox.Ack(3); err != nil {
		t.Fatal(err)
	}
	d.want(d.next(10), "1:")
	d.note("d")
	if err := d.outbox.Ack(4); !errors.Is(err, outbox.ErrAhead) {
		t.Fatalf("error %v, want ErrAhead", err)
	}
}

func TestANewGenerationSendsAllThatIsKeptAgain(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b", "c")
	d.ack(2)
	d.now = d.now.Add(outbox.KeepFor + time.Hour)
	if err := d.outbox.Prune(); err != nil {
		t.Fatal(err)
	}
	d.ack(3)
	<-d.outbox.Wake()
	for _, g := range []int64{7, 7, 3} { // the same again and an older one change nothing
		if err := d.outbox.StartGeneration(g); err != nil {
			t.Fatal(err)
		}
		if got := d.outbox.Generation(); got != 7 {
			t.Fatalf("generation %d after StartGeneration(%d)", got, g)
		}
	}
	select {
	case <-d.outbox.Wake():
	default:
		t.Error("nobody is told that there is something to send")
	}
	d.want(d.next(10), "3: 3=c")
	d.reopen()
	if got := d.outbox.Generation(); got != 7 {
		t.Errorf("generation %d after a restart", got)
	}
	d.want(d.next(10), "3: 3=c")
	d.ack(3)
	if err := d.outbox.StartGeneration(7); err != nil {
		t.Fatal(err)
	}
	d.want(d.next(10), "3:")
}

func TestABatchIsBoundedInEventsAndInBytes(t *testing.T) {
	d := newDesk(t)
	var many []string
	for range 2500 {
		many = append(many, strings.Repeat(`"`, 1000)) // two bytes each as JSON
	}
	d.note(many...)
	var after int64
	for calls := 0; after < 2500; calls++ {
		batch, err := d.outbox.Next(1000)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(sent(t, batch)); n == 0 || n > 1000 || len(batch.Body) > 1<<20 {
			t.Fatalf("%d events in %d bytes", n, len(batch.Body))
		}
		if calls == 0 && len(batch.Body) < outbox.BatchBytes/2 {
			t.Errorf("a batch of only %d bytes", len(batch.Body))
		}
		if batch.First != after+1 {
			t.Fatalf("batch begins at %d after %d", batch.First, after)
		}
		after = batch.Last
		if err := d.outbox.Ack(after); err != nil {
			t.Fatal(err)
		}
	}
	small := make([]string, 1500)
	d.note(small...)
	if batch, err := d.outbox.Next(1000); err != nil || batch.Events != 1000 {
		t.Errorf("%d events, %v", batch.Events, err)
	}
	if batch, err := d.outbox.Next(0); err != nil || batch.Events != 0 {
		t.Errorf("%d events, %v", batch.Events, err)
	}
}

// An event that was seen by the control plane and then lost in a crash would
// give its number to another one.
func TestAnEventThatIsNotDurableIsNotSent(t *testing.T) {
	var armed atomic.Bool
	d := newDesk(t)
	if err := d.journal.Close(); err != nil {
		t.Fatal(err)
	}
	d.openWith(journal.Config{Dir: d.dir, Faults: func(op, _ string) error {
		if armed.Load() && op == "sync" {
			return syscall.EIO
		}
		return nil
	}})
	d.note("a")
	b := d.journal.NewBatch()
	detail := "b"
	if err := d.outbox.Append(b, api.EdgeEvent{Kind: api.EdgeEventKindMessageRefused, Detail: &detail}); err != nil {
		t.Fatal(err)
	}
	if err := d.journal.CommitLazy(b); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if batch, err := d.outbox.Next(10); !errors.Is(err, syscall.EIO) || batch.Events != 0 {
		t.Errorf("sent %d events, %v", batch.Events, err)
	}
}

// Refusals are committed lazily, and an edge may do nothing but refuse.
func TestALazyEventWakesTheSenderWithoutWaitingForAnothersSync(t *testing.T) {
	d := newDesk(t)
	b := d.journal.NewBatch()
	detail := "a"
	if err := d.outbox.Append(b, api.EdgeEvent{Kind: api.EdgeEventKindMessageRefused, Detail: &detail}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.outbox.Wake():
		t.Fatal("woken by an event that does not exist yet")
	default:
	}
	if err := d.journal.CommitLazy(b); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.outbox.Wake():
	default:
		t.Fatal("nobody is told")
	}
	d.want(d.next(10), "1: 1=a")
}

func TestABacklogFromBeforeTheRestartWakesTheSender(t *testing.T) {
	d := newDesk(t)
	d.note("a")
	d.reopen()
	select {
	case <-d.outbox.Wake():
	default:
		t.Error("nobody is told")
	}
	d.ack(1)
	d.reopen()
	select {
	case <-d.outbox.Wake():
		t.Error("woken for nothing")
	default:
	}
}

func TestTheBacklogIsMeasured(t *testing.T) {
	d, registry := newDesk(t), prometheus.NewRegistry()
	var err error
	d.outbox, err = outbox.Open(outbox.Config{Journal: d.journal, Now: time.Now, Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	d.note("a", "b", "c")
	d.ack(1)
	families, err := registry.Gather()
	if err != nil || len(families) != 2 || families[0].GetName() != "relayd_outbox_backlog" || families[0].GetMetric()[0].GetGauge().GetValue() != 2 {
		t.Errorf("metrics %v, %v", families, err)
	}
}

func TestAnEventIsKeptForTheWholeDayWheneverItWasAcknowledged(t *testing.T) {
	for _, minute := range []int{0, 1, 29, 30, 59} {
		d := newDesk(t)
		d.now = d.now.Add(time.Duration(minute) * time.Minute)
		d.note("a")
		d.ack(1)
		d.now = d.now.Add(outbox.KeepFor - time.Minute)
		if err := d.outbox.Prune(); err != nil {
			t.Fatal(err)
		}
		d.ack(0)
		d.want(d.next(10), "1: 1=a")
	}
}

func TestNumbersGoOnWhenNoEventIsKeptAnyMore(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b")
	d.ack(2)
	d.now = d.now.Add(outbox.KeepFor + time.Hour)
	if err := d.outbox.Prune(); err != nil {
		t.Fatal(err)
	}
	d.reopen()
	d.note("c")
	d.want(d.next(10), "3: 3=c")
}

// dropFirst gives up the event that is sent next.
func (d *desk) dropFirst() {
	d.t.Helper()
	batch, err := d.outbox.Next(1)
	if err := errors.Join(err, d.outbox.Drop(batch.First)); err != nil {
		d.t.Fatal(err)
	}
}

func TestAnEventThatIsGivenUpLeavesAGapThatIsDeclaredUntilItIsPassed(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b", "c", "d")
	d.ack(1)
	d.dropFirst()
	d.want(d.next(10), "3: 3=c 4=d")
	d.ack(1) // the control plane has not heard of the gap yet
	d.want(d.next(1), "3: 3=c")
	d.reopen()
	d.want(d.next(1), "3: 3=c")
	d.ack(3)
	d.want(d.next(10), "1: 4=d")
	d.ack(0) // it was restored: what stands before the gap goes first, and goes alone
	d.want(d.next(10), "1: 1=a")
	d.ack(1)
	d.want(d.next(10), "3: 3=c 4=d")
	d.ack(4)
	d.want(d.next(10), "1:")
}

func TestTheNumberOfAnEventThatWasGivenUpIsGivenToNoOther(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b")
	d.ack(1)
	d.dropFirst()
	if n := d.outbox.Backlog(); n != 0 {
		t.Errorf("backlog %d, want 0", n)
	}
	d.want(d.next(10), "1:")
	d.reopen()
	d.note("c")
	d.want(d.next(10), "3: 3=c")
	if err := d.outbox.Drop(1); err != nil { // acknowledged already
		t.Fatal(err)
	}
	d.ack(0)
	d.want(d.next(10), "1: 1=a")
}
