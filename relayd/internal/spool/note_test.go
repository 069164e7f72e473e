package spool_test

import (
	"errors"
	"testing"
	"time"

	"activerelay/relayd/internal/spool"

	"github.com/google/go-cmp/cmp"
)

// note begins an attempt on these recipients of m, as the queue does.
func (s *store) note(t fataler, m *spool.Message, at time.Time, recipients ...int) {
	t.Helper()
	for _, i := range recipients {
		r := &m.Recipients[i]
		r.Attempts++
		r.LastAttempt, r.LastReply = at, spool.UnderWay
	}
	b := s.journal.NewBatch()
	if err := errors.Join(s.NoteAttempt(b, m, recipients), s.journal.CommitLazy(b)); err != nil {
		t.Fatal(err)
	}
}

// checkSeen demands that Load and Each give m as it is.
func (s *store) checkSeen(t fataler, m *spool.Message) {
	t.Helper()
	loaded, err := s.Load(m.ID)
	if diff := cmp.Diff(m, loaded, addresses); err != nil || diff != "" {
		t.Fatalf("Load: %v\n%s", err, diff)
	}
	err = s.Each(func(each *spool.Message) error {
		if diff := cmp.Diff(m, each, addresses); diff != "" {
			t.Fatalf("Each: %s", diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestANotedAttemptIsSeenAsAnUpdateWouldBe(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	m := s.put(t, 100)
	m.Recipients = append(m.Recipients, m.Recipients[0], m.Recipients[1])
	b := s.journal.NewBatch()
	if err := errors.Join(s.Update(b, m), s.journal.Commit(b)); err != nil {
		t.Fatal(err)
	}
	s.note(t, m, noon.Add(time.Second), 0, 3)
	s.note(t, m, noon.Add(2*time.Second), 1) // while the first is under way
	s.checkSeen(t, m)
	s = s.reopen(t)
	s.checkSeen(t, m)
	s.note(t, m, noon.Add(time.Hour), 0)
	s.checkSeen(t, m)
}

func TestAnUpdateEndsTheNotesOfAttempts(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	m := s.put(t, 100)
	s.note(t, m, noon, 0, 1)
	m.Recipients[0].LastReply, m.Recipients[0].Attempts = "451 later", 0
	b := s.journal.NewBatch()
	if err := errors.Join(s.Update(b, m), s.journal.Commit(b)); err != nil {
		t.Fatal(err)
	}
	s.checkSeen(t, m)
	s = s.reopen(t)
	s.checkSeen(t, m)
}

func TestARemovedMessageLeavesNoNote(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	m := s.put(t, 100)
	s.note(t, m, noon, 0)
	b := s.journal.NewBatch()
	s.Remove(b, m.ID)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	s = s.reopen(t)
	if ids := s.ids(t); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}

// An attempt may begin while the message is removed.
func TestANoteThatComesAfterTheMessageWentIsNoDamage(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	removed, kept := s.put(t, 100), s.put(t, 100)
	b := s.journal.NewBatch()
	s.Remove(b, removed.ID)
	if err := errors.Join(s.journal.Commit(b), s.Quarantine(kept.ID, "panicked")); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*spool.Message{removed, kept} {
		s.note(t, m, noon, 0)
		if _, err := s.Load(m.ID); !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("Load: %v", err)
		}
	}
	s = s.reopen(t)
	if ids := s.ids(t); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
	for _, m := range []*spool.Message{removed, kept} {
		if there, err := s.journal.Has([]byte("se" + m.ID)); there || err != nil {
			t.Errorf("the note is still there: %v", err)
		}
	}
	if q := s.quarantined(t); len(q) != 1 || q[kept.ID].Reason != "panicked" || q[kept.ID].Message == nil {
		t.Errorf("quarantine holds %v", q)
	}
}

func TestNotesWhoseEnvelopeIsLostAreDamage(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	loaded, seen := s.put(t, 100), s.put(t, 100)
	for _, m := range []*spool.Message{loaded, seen} {
		b := s.journal.NewBatch()
		b.Delete([]byte("se" + m.ID)) // as damage may undo it
		if err := s.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		s.note(t, m, noon, 0)
	}
	if _, err := s.Load(loaded.ID); !errors.Is(err, spool.ErrCorrupt) {
		t.Errorf("Load: %v", err)
	}
	s.checkOnly(t, nil)
	if q := s.quarantined(t); len(q) != 2 {
		t.Errorf("quarantine holds %v", q)
	}
}

func TestEveryBitOfANoteCounts(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m := s.put(t, 10)
	key := []byte("se" + m.ID)
	before, err := s.journal.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	s.note(t, m, noon, 0, 1)
	sound, err := s.journal.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	for bit := 8 * len(before); bit < 8*len(sound); bit++ {
		s.flipRecord(t, string(key), bit)
		if _, err := s.Load(m.ID); !errors.Is(err, spool.ErrCorrupt) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		b := s.journal.NewBatch()
		b.Set(key, sound)
		if err := s.journal.CommitLazy(b); err != nil {
			t.Fatal(err)
		}
	}
}
