package outbox_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/outbox"
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
	var err error
	if d.journal, err = journal.Open(journal.Config{Dir: d.dir}); err != nil {
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
	for _, e := range batch.Events {
		text += fmt.Sprintf(" %d=%s", e.Sequence, *e.Detail)
	}
	return text
}

func (d *desk) ack(n int64) {
	d.t.Helper()
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
	if err != nil || batch.Generation != 4 || len(batch.Events) != 1 {
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
	if n := len([]rune(*batch.Events[0].Detail)); n != 1000 {
		t.Errorf("detail of %d characters, want 1000", n)
	}
}
