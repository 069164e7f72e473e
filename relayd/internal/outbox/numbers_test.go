package outbox_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/outbox"

	"pgregory.net/rapid"
)

// fataler is what the helpers need of a test or of a rapid check.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// stored reads the events of a journal where they lie, by number.
func stored(t fataler, j *journal.Journal) map[int64]string {
	t.Helper()
	all := map[int64]string{}
	err := j.Scan([]byte("oe"), func(key, value []byte) error {
		var e api.EdgeEvent
		if err := json.Unmarshal(append([]byte(`{"sequence":1`), value...), &e); err != nil {
			return err
		}
		all[int64(binary.BigEndian.Uint64(key[2:]))] = *e.Detail
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sent decodes a batch as the control plane does, and holds what is said of it
// to what is in it.
func sent(t fataler, batch outbox.Batch) []api.EdgeEvent {
	t.Helper()
	if batch.Events == 0 {
		return nil
	}
	var decoded api.EventBatch
	if err := json.Unmarshal(batch.Body, &decoded); err != nil {
		t.Fatalf("%v: %s", err, batch.Body)
	}
	n := len(decoded.Events)
	if decoded.Generation != batch.Generation || decoded.FirstKept != batch.FirstKept || n != batch.Events ||
		decoded.Events[0].Sequence != batch.First || decoded.Events[n-1].Sequence != batch.Last {
		t.Fatalf("batch %+v is not as told: %s", batch, batch.Body)
	}
	return decoded.Events
}

// model is an outbox beside what it must hold. Events are named by the order
// in which their batches were committed, so the detail of event n is its name.
type model struct {
	dir     string
	now     time.Time
	journal *journal.Journal
	outbox  *outbox.Outbox

	names  []string // of events 1, 2, …
	made   int      // names given so far
	synced int64    // events that a crash must not take
	sent   int64
	acked  int64
	pruned int64
	// When an event was acknowledged for good, at the earliest and the latest: a
	// crash may forget acknowledgements.
	earliest, latest map[int64]time.Time
}

func (m *model) open(t fataler) {
	t.Helper()
	var err error
	if m.journal, err = journal.Open(journal.Config{Dir: m.dir}); err != nil {
		t.Fatal(err)
	}
	if m.outbox, err = outbox.Open(outbox.Config{Journal: m.journal, Now: func() time.Time { return m.now }}); err != nil {
		t.Fatal(err)
	}
}

func (m *model) batch(t *rapid.T) (*journal.Batch, []string) {
	b, names := m.journal.NewBatch(), []string(nil)
	for range rapid.IntRange(0, 4).Draw(t, "events") {
		m.made++
		name := strconv.Itoa(m.made)
		names = append(names, name)
		if err := m.outbox.Append(b, api.EdgeEvent{Time: m.now, Kind: api.EdgeEventKindMessageAccepted, Detail: &name}); err != nil {
			t.Fatal(err)
		}
	}
	return b, names
}

func (m *model) commit(t *rapid.T) {
	b, names := m.batch(t)
	if err := m.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	m.names = append(m.names, names...)
	m.synced = int64(len(m.names))
}

func (m *model) commitLazily(t *rapid.T) {
	b, names := m.batch(t)
	if err := m.journal.CommitLazy(b); err != nil {
		t.Fatal(err)
	}
	m.names = append(m.names, names...)
}

func (m *model) drop(t *rapid.T) {
	b, _ := m.batch(t)
	b.Discard()
}

func (m *model) send(t *rapid.T) {
	limit := rapid.IntRange(1, 6).Draw(t, "limit")
	batch, err := m.outbox.Next(limit)
	if err != nil {
		t.Fatal(err)
	}
	want := min(int64(limit), int64(len(m.names))-m.acked)
	if int64(batch.Events) != want || batch.FirstKept != m.pruned+1 {
		t.Fatalf("%d events from %d on, want %d from %d on", batch.Events, batch.FirstKept, want, m.pruned+1)
	}
	for i, e := range sent(t, batch) {
		if n := m.acked + 1 + int64(i); e.Sequence != n || *e.Detail != m.names[n-1] {
			t.Fatalf("event %d is %s, want %d, %s", e.Sequence, *e.Detail, n, m.names[n-1])
		}
		m.sent = max(m.sent, e.Sequence)
	}
	m.synced = max(m.synced, m.sent)
}

func (m *model) acknowledge(t *rapid.T) {
	n := rapid.Int64Range(0, m.sent).Draw(t, "n")
	if err := m.outbox.Ack(n); err != nil {
		t.Fatal(err)
	}
	back := max(n, m.pruned) <= m.acked // the control plane was restored: it may ask from here again
	m.acked = max(n, m.pruned)
	for i := range int64(len(m.names)) + 1 {
		if _, ok := m.latest[i]; i <= m.acked && !ok {
			m.earliest[i], m.latest[i] = m.now, m.now
		} else if i <= m.acked && back {
			m.latest[i] = m.now
		} else if i > m.acked {
			delete(m.latest, i)
		}
	}
}

func (m *model) acknowledgeTooMuch(t *rapid.T) {
	n := m.sent + rapid.Int64Range(1, 3).Draw(t, "beyond")
	if err := m.outbox.Ack(n); !errors.Is(err, outbox.ErrAhead) {
		t.Fatalf("Ack(%d) after %d sent: %v", n, m.sent, err)
	}
}

func (m *model) age(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 30*60).Draw(t, "minutes")) * time.Minute)
	if err := m.outbox.Prune(); err != nil {
		t.Fatal(err)
	}
	first := m.firstKept(t)
	for n := m.pruned + 1; n <= int64(len(m.names)); n++ {
		switch age := m.now.Sub(m.earliest[n]); {
		case n < first && (n > m.acked || age < outbox.KeepFor):
			t.Fatalf("event %d went %v after it was acknowledged, up to %d", n, age, m.acked)
		case n >= first && n <= m.acked && m.allOlder(n, outbox.KeepFor+time.Hour):
			t.Fatalf("event %d is kept for ever", n)
		}
	}
	m.pruned = first - 1
}

// allOlder tells whether all events up to n were acknowledged that long ago.
func (m *model) allOlder(n int64, age time.Duration) bool {
	for i := m.pruned + 1; i <= n; i++ {
		if m.now.Sub(m.latest[i]) < age {
			return false
		}
	}
	return true
}

func (m *model) firstKept(t *rapid.T) int64 {
	batch, err := m.outbox.Next(1)
	if err != nil {
		t.Fatal(err)
	}
	m.synced = int64(len(m.names))
	m.sent = max(m.sent, batch.Last)
	return batch.FirstKept
}

func (m *model) newGeneration(t *rapid.T) {
	if err := m.outbox.StartGeneration(m.outbox.Generation() + 1); err != nil {
		t.Fatal(err)
	}
	m.acked, m.synced = m.pruned, int64(len(m.names))
	clear(m.latest)
}

func (m *model) restart(t *rapid.T) {
	if err := m.journal.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
	m.synced, m.sent = int64(len(m.names)), int64(len(m.names))
}

// crash goes on from what the disk holds at this moment: after Fail no file
// changes any more, so what was lazy and not written yet is gone.
func (m *model) crash(t *rapid.T) {
	m.journal.Fail(errors.New("crash"))
	if err := m.journal.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
	last := m.pruned
	events := stored(t, m.journal)
	for n := range events {
		last = max(last, n)
	}
	if last < m.synced || last > int64(len(m.names)) {
		t.Fatalf("events up to %d survived, %d were safe, %d made", last, m.synced, len(m.names))
	}
	m.names, m.synced, m.sent = m.names[:last], last, last
	// What was acknowledged and pruned may be known no more; it is no secret how far.
	m.acked = last - m.outbox.Backlog()
	m.pruned = m.firstKept(t) - 1
	clear(m.latest)
	for n := int64(1); n <= m.acked; n++ {
		m.earliest[n], m.latest[n] = time.Time{}, m.now
	}
}

// check demands that the disk holds exactly the events that it should, under
// their numbers, without gaps.
func (m *model) check(t *rapid.T) {
	events := stored(t, m.journal)
	if int64(len(events)) != int64(len(m.names))-m.pruned {
		t.Fatalf("%d events on the disk, want %d after %d", len(events), len(m.names), m.pruned)
	}
	for n, name := range events {
		if n <= m.pruned || n > int64(len(m.names)) || m.names[n-1] != name {
			t.Fatalf("event %d is %s; %d pruned, %d made", n, name, m.pruned, len(m.names))
		}
	}
	if got, want := m.outbox.Backlog(), int64(len(m.names))-m.acked; got != want {
		t.Fatalf("backlog %d, want %d", got, want)
	}
}

func TestNumbersHaveNoGapsOverDroppedBatchesRestartsAndCrashes(t *testing.T) {
	dirs, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &model{
			dir: filepath.Join(dirs, strconv.Itoa(n)), now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC),
			earliest: map[int64]time.Time{}, latest: map[int64]time.Time{},
		}
		m.open(t)
		defer func() { _ = m.journal.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"commit": m.commit, "commit again": m.commit, "commit lazily": m.commitLazily, "drop": m.drop, "send": m.send, "send again": m.send,
			"acknowledge": m.acknowledge, "acknowledge too much": m.acknowledgeTooMuch, "age": m.age,
			"new generation": m.newGeneration, "restart": m.restart, "crash": m.crash, "": m.check,
		})
	})
}

// The last number that was given may be among what a damaged log has lost: another
// event under it would be taken for the one that the control plane has.
func TestWhereTheJournalHasLostChangesANewGenerationBegins(t *testing.T) {
	d := newDesk(t)
	d.note("a", "b")
	d.ack(2)
	if err := os.WriteFile(filepath.Join(d.dir, "changes-lost"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := d.outbox.Generation()
	d.reopen()
	if g := d.outbox.Generation(); g != before+1 {
		t.Errorf("generation %d follows %d", g, before)
	}
	d.note("c")
	d.want(d.next(10), "1: 1=a 2=b 3=c")
	if err := d.journal.LossHandled(); err != nil {
		t.Fatal(err)
	}
	d.reopen()
	if g := d.outbox.Generation(); g != before+1 {
		t.Errorf("after the next start generation %d, want %d", g, before+1)
	}
}

func TestConcurrentBatchesAreNumberedOneAfterTheOther(t *testing.T) {
	d := newDesk(t)
	const writers, batches, size = 8, 60, 3
	var all, reader sync.WaitGroup
	var done atomic.Bool
	var got []api.EdgeEvent
	reader.Go(func() {
		for int64(len(got)) < writers*batches*size && !done.Load() || d.outbox.Backlog() > 0 {
			batch, err := d.outbox.Next(50)
			if err != nil {
				t.Error(err)
				return
			}
			if batch.Events > 0 {
				got = append(got, sent(t, batch)...)
				if err := d.outbox.Ack(batch.Last); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for w := range writers {
		all.Go(func() {
			for i := range batches {
				b := d.journal.NewBatch()
				for part := range size {
					detail := fmt.Sprintf("%d/%d/%d", w, i, part)
					if err := d.outbox.Append(b, api.EdgeEvent{Kind: api.EdgeEventKindMessageAccepted, Detail: &detail}); err != nil {
						t.Error(err)
					}
				}
				if err := [](func(*journal.Batch) error){d.journal.Commit, d.journal.CommitLazy}[i%2](b); err != nil {
					t.Error(err)
				}
				dropped := d.journal.NewBatch()
				_ = d.outbox.Append(dropped, api.EdgeEvent{Kind: api.EdgeEventKindMessageAccepted})
				dropped.Discard()
			}
		})
	}
	all.Wait()
	done.Store(true)
	reader.Wait()
	if len(got) != writers*batches*size {
		t.Fatalf("%d events, want %d", len(got), writers*batches*size)
	}
	seen := map[string]bool{}
	for i, e := range got {
		batch, part, _ := strings.Cut((*e.Detail)[strings.Index(*e.Detail, "/")+1:], "/")
		if e.Sequence != int64(i+1) || seen[*e.Detail] || part != strconv.Itoa(i%size) {
			t.Fatalf("event %d has number %d and is %s (of batch %s)", i+1, e.Sequence, *e.Detail, batch)
		}
		seen[*e.Detail] = true
	}
}
