package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

// What the package keeps to itself.
const (
	smallBytes    = 8 << 10
	headroomBytes = 2 << 10
)

// counted is a store that can tell what its texts take up in memory.
type counted struct {
	*store
	registry *prometheus.Registry
}

func openCounted(t fataler, dir string, faults hook, change func(*spool.Config)) *counted {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Faults: faults})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	c := spool.Config{Dir: filepath.Join(dir, "bodies"), Journal: j, Metrics: registry}
	if change != nil {
		change(&c)
	}
	s, err := spool.Open(c)
	if err != nil {
		t.Fatal(errors.Join(err, j.Close()))
	}
	return &counted{&store{Spool: s, journal: j, dir: dir}, registry}
}

// inMemory is what texts take up.
func (s *counted) inMemory(t fataler) int {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "relayd_spool_memory_bytes" {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	t.Fatal("the spool does not tell what its texts take up")
	return 0
}

func (s *counted) wantInMemory(t fataler, want int, when string) {
	t.Helper()
	if got := s.inMemory(t); got != want {
		t.Errorf("%s: texts take up %d bytes of memory, want %d", when, got, want)
	}
}

// staged writes one message and adds it to b.
func (s *store) staged(t fataler, b *journal.Batch, m *spool.Message, content []byte, chunk int, fields ...string) *spool.Writer {
	t.Helper()
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	for piece := range slices.Chunk(content, chunk) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range fields {
		w.Prepend([]byte(f))
	}
	if err := s.Stage(b, m, w); err != nil {
		t.Fatal(err)
	}
	return w
}

// handOver stores one message as a session does: the Writer goes last.
func (s *store) handOver(t fataler, size int, fields ...string) *spool.Message {
	t.Helper()
	m, b := envelope(newID(t)), s.journal.NewBatch()
	w := s.staged(t, b, m, text(m.ID, size), 32<<10, fields...)
	if err := errors.Join(s.journal.Commit(b), w.Discard()); err != nil {
		t.Fatal(err)
	}
	return m
}

// handedOver tells whether the text of a message is still in memory: then all who
// open it see the same bytes, not equal ones.
func (s *store) handedOver(t fataler, id string) bool {
	t.Helper()
	one, err := s.Body(id)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	other, err := s.Body(id)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	return len(one.Bytes()) > 0 && &one.Bytes()[0] == &other.Bytes()[0]
}

func (s *store) update(t fataler, m *spool.Message) {
	t.Helper()
	b := s.journal.NewBatch()
	if err := errors.Join(s.Update(b, m), s.journal.CommitLazy(b)); err != nil {
		t.Fatal(err)
	}
}

func (s *store) remove(t fataler, id string) {
	t.Helper()
	b := s.journal.NewBatch()
	s.Remove(b, id)
	if err := s.journal.CommitLazy(b); err != nil {
		t.Fatal(err)
	}
}

func TestATextThatIsHandedOverIsWhatTheDiskHas(t *testing.T) {
	dirs, n := t.TempDir(), 0
	edges := []int{0, 1, spool.InlineBytes - 1, spool.InlineBytes, spool.InlineBytes + 1}
	for room := smallBytes; room < spool.InlineBytes; room *= 2 {
		edges = append(edges, room-headroomBytes-1, room-headroomBytes, room-headroomBytes+1)
	}
	rapid.Check(t, func(t *rapid.T) {
		n++
		s := openCounted(t, filepath.Join(dirs, strconv.Itoa(n)), nil, nil)
		defer func() { s.close(t) }()
		size := rapid.OneOf(rapid.SampledFrom(edges), rapid.IntRange(0, spool.InlineBytes+5000)).Draw(t, "size")
		var fields []string
		above := 0
		for _, length := range rapid.SliceOfN(rapid.SampledFrom([]int{4, 1000, headroomBytes - 1, headroomBytes}), 0, 3).Draw(t, "fields") {
			fields, above = append(fields, "X: "+strings.Repeat("y", length-4)+"\n"), above+length
		}
		chunk := rapid.SampledFrom([]int{997, 32 << 10, spool.InlineBytes, 1 << 20}).Draw(t, "chunk")
		m, b := envelope(newID(t)), s.journal.NewBatch()
		content := text(m.ID, size)
		w := s.staged(t, b, m, content, chunk, fields...)
		if err := errors.Join(s.journal.Commit(b), w.Discard()); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(fields)
		d := drawn{m, append([]byte(strings.Join(fields, "")), content...)}
		kept := size <= spool.InlineBytes && above <= headroomBytes
		if got := s.inMemory(t) > 0; got != kept {
			t.Fatalf("kept in memory: %v, want %v", got, kept)
		}
		if len(d.whole) > 0 && s.handedOver(t, m.ID) != kept {
			t.Fatalf("handed over: %v, want %v", !kept, kept)
		}
		s.checkDrawn(t, d)
		s.update(t, m)
		s.wantInMemory(t, 0, "after the first attempt")
		s.checkDrawn(t, d)
	})
}

func TestATextIsHandedOverNotBeforeItIsDurable(t *testing.T) {
	var check atomic.Pointer[func()]
	s := openCounted(t, t.TempDir(), func(op, _ string) error {
		if f := check.Load(); f != nil && op == "sync" {
			(*f)()
		}
		return nil
	}, nil)
	defer s.close(t)

	m, b := envelope(newID(t)), s.journal.NewBatch()
	w := s.staged(t, b, m, text(m.ID, 5000), 32<<10)
	if _, err := s.Body(m.ID); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("a text that was only staged: %v", err)
	}
	looked := false
	look := func() {
		if looked = true; s.handedOver(t, m.ID) {
			t.Error("the text was handed over before the sync")
		}
	}
	check.Store(&look)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	check.Store(nil)
	if !looked || !s.handedOver(t, m.ID) {
		t.Errorf("looked during the sync: %v; handed over after it: %v", looked, s.handedOver(t, m.ID))
	}

	late, b := envelope(newID(t)), s.journal.NewBatch()
	other := s.staged(t, b, late, text(late.ID, 5000), 32<<10)
	if err := s.journal.CommitLazy(b); err != nil {
		t.Fatal(err)
	}
	if s.handedOver(t, late.ID) {
		t.Error("the text was handed over before anything was synced")
	}
	if err := s.journal.Sync(); err != nil || !s.handedOver(t, late.ID) {
		t.Errorf("it was not after the sync: %v", err)
	}
	if err := errors.Join(w.Discard(), other.Discard()); err != nil {
		t.Error(err)
	}
}

// A message may be gone by the time that it is durable.
func TestAMessageThatIsRemovedBeforeItIsDurableIsNotHandedOver(t *testing.T) {
	s := openCounted(t, t.TempDir(), nil, nil)
	defer s.close(t)
	m, b := envelope(newID(t)), s.journal.NewBatch()
	w := s.staged(t, b, m, text(m.ID, 5000), 32<<10)
	if err := s.journal.CommitLazy(b); err != nil {
		t.Fatal(err)
	}
	s.remove(t, m.ID)
	if err := errors.Join(s.journal.Sync(), w.Discard()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Body(m.ID); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("its text: %v", err)
	}
	s.wantInMemory(t, 0, "afterwards")
}

func TestWhatWasNotCommittedKeepsNothingInMemory(t *testing.T) {
	f := &trouble{op: "sync", err: syscall.EIO, nth: 1}
	s := openCounted(t, t.TempDir(), f.hook, nil)
	defer s.close(t)

	m, b := envelope(newID(t)), s.journal.NewBatch()
	w := s.staged(t, b, m, text(m.ID, 5000), 32<<10)
	b.Discard()
	if err := w.Discard(); err != nil {
		t.Error(err)
	}
	s.wantInMemory(t, 0, "after a batch that was dropped")

	b = s.journal.NewBatch()
	w = s.staged(t, b, m, text(m.ID, 5000), 32<<10)
	if err := errors.Join(w.Discard(), s.journal.Commit(b)); err != nil {
		t.Error(err)
	}
	s.wantInMemory(t, 0, "after a Writer that was discarded before the commit")
	if content, err := s.body(m.ID); err != nil || !bytes.Equal(content, text(m.ID, 5000)) {
		t.Errorf("%d bytes, %v", len(content), err)
	}

	m, b = envelope(newID(t)), s.journal.NewBatch()
	w = s.staged(t, b, m, text(m.ID, 5000), 32<<10)
	f.armed.Store(true)
	if err := s.journal.Commit(b); !errors.Is(err, syscall.EIO) {
		t.Fatalf("committed with %v", err)
	}
	if err := w.Discard(); err != nil {
		t.Error(err)
	}
	s.wantInMemory(t, 0, "after a commit that failed")
}

func TestTextsAreHandedOverWithinABudgetUntilTheyHaveWaitedForTooLong(t *testing.T) {
	const room = 8
	now := time.Now()
	s := openCounted(t, t.TempDir(), nil, func(c *spool.Config) {
		c.HandoverBytes, c.Now = room*smallBytes, func() time.Time { return now }
	})
	defer s.close(t)
	var all []*spool.Message
	fill := func(messages int) {
		for range messages {
			all = append(all, s.handOver(t, 5000, "X: y\r\n"))
			if got := s.inMemory(t); got > room*smallBytes {
				t.Fatalf("after %d messages texts take up %d bytes of memory", len(all), got)
			}
		}
	}
	kept := func(when string, from, to int) {
		t.Helper()
		for i, m := range all {
			if got, want := s.handedOver(t, m.ID), from <= i && i < to; got != want {
				t.Errorf("%s message %d of %d is handed over: %v", when, i, len(all), got)
			}
		}
	}
	fill(2 * room)
	kept("at once", 0, room)
	now = now.Add(9 * time.Second)
	fill(1)
	kept("after 9 s", 0, room)
	now = now.Add(time.Second)
	fill(room + 2)
	kept("after 10 s", 2*room+1, 3*room+1)
	now = now.Add(10 * time.Second)
	fill(room)
	kept("after 20 s", len(all)-room, len(all))
	now = now.Add(10 * time.Second)

	reading, err := s.Body(all[len(all)-1].ID)
	if err != nil {
		t.Fatal(err)
	}
	if big := s.handOver(t, room*smallBytes-headroomBytes); !s.handedOver(t, big.ID) {
		t.Error("a text as large as the budget was not kept")
	}
	if bigger := s.handOver(t, room*smallBytes); s.handedOver(t, bigger.ID) {
		t.Error("a text larger than the budget was kept")
	}
	s.wantInMemory(t, (room+1)*smallBytes, "with a text that is read")
	for _, m := range all {
		if content, err := s.body(m.ID); err != nil || !bytes.HasSuffix(content, text(m.ID, 5000)) {
			t.Errorf("%d bytes, %v", len(content), err)
		}
	}
	if content, err := io.ReadAll(reading); err != nil || !bytes.HasSuffix(content, text(all[len(all)-1].ID, 5000)) {
		t.Errorf("the text that was open: %d bytes, %v", len(content), err)
	}
	if err := reading.Close(); err != nil {
		t.Error(err)
	}
	s.wantInMemory(t, room*smallBytes, "once it was read")
}

func TestATextGoesWithTheFirstAttemptTheRemovalOrTheQuarantineOfItsMessage(t *testing.T) {
	s := openCounted(t, t.TempDir(), nil, nil)
	defer s.close(t)
	for what, drop := range map[string]func(*spool.Message){
		"deferred":    func(m *spool.Message) { s.update(t, m) },
		"removed":     func(m *spool.Message) { s.remove(t, m.ID) },
		"quarantined": func(m *spool.Message) { _ = s.Quarantine(m.ID, "poison") },
	} {
		m := s.handOver(t, 5000)
		s.wantInMemory(t, smallBytes, what+", before")
		one, err := s.Body(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.Body(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		drop(m)
		if err := errors.Join(one.Close(), one.Close()); err != nil || one.Bytes() != nil {
			t.Errorf("%s: closed with %v, has %d bytes", what, err, len(one.Bytes()))
		}
		if _, err := one.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: reading what was closed: %v", what, err)
		}
		s.handOver(t, 5000) // in another buffer than the one that is read
		if content, err := io.ReadAll(other); err != nil || !bytes.Equal(content, text(m.ID, 5000)) {
			t.Errorf("%s: who has it open reads %d bytes, %v", what, len(content), err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		s.wantInMemory(t, smallBytes, what+", that of the other message aside")
		if err := s.Each(func(m *spool.Message) error { s.remove(t, m.ID); return nil }); err != nil {
			t.Fatal(err)
		}
		s.wantInMemory(t, 0, what)
	}
}

// Row 6 of the fault matrix, for a message that need not be read until it is tried again.
func TestDamageOfATextThatIsInMemoryIsFoundOnceItIsReadFromTheDisk(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m := s.handOver(t, 5000, "X: y\r\n")
	s.flipRecord(t, "sb"+m.ID, mathrand.Int())
	if content, err := s.body(m.ID); err != nil || !bytes.HasSuffix(content, text(m.ID, 5000)) {
		t.Errorf("in memory: %d bytes, %v", len(content), err)
	}
	s.update(t, m)
	s.checkCaught(t, m, "after the first attempt")
}

// Several destinations read one text while one of them ends the message, and the
// buffer then serves the next.
func TestReadersOfATextAreNotDisturbedByItsRemoval(t *testing.T) {
	s := openCounted(t, t.TempDir(), nil, func(c *spool.Config) { c.HandoverBytes = 4 * smallBytes })
	defer s.close(t)
	var sessions sync.WaitGroup
	for range 4 {
		sessions.Go(func() {
			for i := range 50 {
				m := s.handOver(t, 3000+i, "X: y\r\n")
				want := append([]byte("X: y\r\n"), text(m.ID, 3000+i)...)
				var destinations sync.WaitGroup
				for range 4 {
					destinations.Go(func() {
						if err := s.readOften(m.ID, want); err != nil {
							t.Error(err)
						}
					})
				}
				s.remove(t, m.ID)
				destinations.Wait()
			}
		})
	}
	sessions.Wait()
	s.wantInMemory(t, 0, "in the end")
}

// readOften reads a text until its message is gone.
func (s *store) readOften(id string, want []byte) error {
	for {
		body, err := s.Body(id)
		if errors.Is(err, spool.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(body)
		if err == nil && (!bytes.Equal(content, want) || !bytes.Equal(body.Bytes(), want)) {
			err = fmt.Errorf("%d bytes came as %d others", len(want), len(content))
		}
		if err := errors.Join(err, body.Close()); err != nil {
			return err
		}
	}
}
