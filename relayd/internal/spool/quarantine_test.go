package spool_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"

	"github.com/google/go-cmp/cmp"
)

// Two attempts that read the same damaged text both say so.
func TestASecondQuarantineKeepsWhatTheFirstHasKept(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m := s.put(t, 100)
	s.flipRecord(t, "sb"+m.ID, 8*50)
	for range 2 {
		if _, err := s.Body(m.ID); !errors.Is(err, spool.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	late := s.journal.NewBatch() // of an attempt that began before
	if err := errors.Join(s.NoteAttempt(late, m, []int{0}), s.journal.Commit(late), s.Quarantine(m.ID, "another reason")); err != nil {
		t.Fatal(err)
	}
	q, err := s.LoadQuarantined(m.ID)
	if err != nil || q.Reason != "checksum of the text" {
		t.Errorf("kept for %q, %v", q.Reason, err)
	}
	if diff := cmp.Diff(m, q.Message, addresses); diff != "" {
		t.Errorf("the envelope that is kept (-stored +kept):\n%s", diff)
	}
}

func TestAQuarantineThatFailsLeavesTheMessageWhereItWas(t *testing.T) {
	trouble := errors.New("input/output error")
	var failing error
	s := open(t, t.TempDir(), func(op, _ string) error {
		if op == "quarantine" {
			return failing
		}
		return nil
	})
	defer s.close(t)
	m := s.put(t, 100, "X: y\r\n")
	failing = trouble
	if err := s.Quarantine(m.ID, "x"); !errors.Is(err, trouble) {
		t.Errorf("got %v", err)
	}
	if q := s.quarantined(t); len(q) != 0 {
		t.Errorf("in quarantine are %v", q)
	}
	s.checkOnly(t, []*spool.Message{m})
	failing = nil
	if err := s.Quarantine(m.ID, "x"); err != nil || len(s.quarantined(t)) != 1 {
		t.Errorf("the next time: %v", err)
	}
}

func TestAReleasedMessageGoesOnAsItWasAndIsInQuarantineNoMore(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	small, large := s.put(t, 100), s.put(t, 2*spool.InlineBytes)
	for _, m := range []*spool.Message{small, large} {
		if err := s.Quarantine(m.ID, "x"); err != nil {
			t.Fatal(err)
		}
	}
	s = s.reopen(t)
	for _, m := range []*spool.Message{small, large} {
		q, err := s.LoadQuarantined(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		b := s.journal.NewBatch()
		if err := errors.Join(s.Release(b, q.Message), s.journal.Commit(b)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.LoadQuarantined(m.ID); !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("released, and still in quarantine: %v", err)
		}
		got, err := s.Load(m.ID)
		if diff := cmp.Diff(m, got, addresses); diff != "" || err != nil {
			t.Errorf("%v, released (-stored +got):\n%s", err, diff)
		}
		if content, err := s.body(m.ID); err != nil || !bytes.Equal(content, text(m.ID, int(m.Size))) {
			t.Errorf("its text: %d bytes, %v", len(content), err)
		}
	}
	// Settled, it leaves nothing behind.
	b := s.journal.NewBatch()
	s.Remove(b, small.ID)
	s.Remove(b, large.ID)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	s = s.reopen(t)
	for _, key := range []string{"se", "sb", "sq"} {
		for _, m := range []*spool.Message{small, large} {
			if there, err := s.journal.Has([]byte(key + m.ID)); there || err != nil {
				t.Errorf("%s of a settled message: %v, %v", key, there, err)
			}
		}
	}
	if files := s.files(t); len(files) > 0 {
		t.Errorf("files %q", files)
	}
}

func TestADamagedRecordOfTheQuarantineHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer func() { s.close(t) }()
	var messages []*spool.Message
	for range 3 {
		m := s.put(t, 100)
		messages = append(messages, m)
		if err := s.Quarantine(m.ID, "x"); err != nil {
			t.Fatal(err)
		}
	}
	b := s.journal.NewBatch()
	b.Set([]byte("sq"+messages[1].ID), []byte(`{"id":`))
	other, err := s.journal.Get([]byte("sq" + messages[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	b.Set([]byte("sq"+messages[2].ID), other) // what is told of another message is believed of neither
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	q := s.quarantined(t)
	if len(q) != 3 || q[messages[0].ID].Message == nil || q[messages[1].ID].Message != nil || q[messages[2].ID].Message != nil {
		t.Errorf("in quarantine are %+v", q)
	}
	for i, m := range messages {
		one, err := s.LoadQuarantined(m.ID)
		if err != nil || (one.Message == nil) != (i > 0) || one.ID != m.ID {
			t.Errorf("read by itself: %+v, %v", one, err)
		}
		b := s.journal.NewBatch()
		s.RemoveQuarantined(b, m.ID)
		if err := s.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
	}
	if q := s.quarantined(t); len(q) != 0 {
		t.Errorf("left are %+v", q)
	}
}

// An envelope that cannot be read just now is not one that is damaged.
func TestAClosedJournalIsNoDamagedEnvelope(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	m := s.put(t, 100, "X: y\r\n")
	s.close(t)
	if err := s.Quarantine(m.ID, "x"); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("got %v", err)
	}
	s = open(t, dir, nil)
	defer s.close(t)
	s.checkOnly(t, []*spool.Message{m})
}

// An attempt for another recipient may have been recorded while the damage was found.
func TestAnEnvelopeThatWasWrittenAfterQuarantineIsTheOneKept(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m := s.put(t, 100)
	if err := s.Quarantine(m.ID, "damaged"); err != nil {
		t.Fatal(err)
	}
	m.Recipients[0].LastReply = "450 later"
	b := s.journal.NewBatch()
	if err := errors.Join(s.Update(b, m), s.journal.Commit(b), s.Quarantine(m.ID, "damaged")); err != nil {
		t.Fatal(err)
	}
	s.checkOnly(t, nil)
	if q := s.quarantined(t)[m.ID]; q.Message == nil || q.Message.Recipients[0].LastReply != "450 later" {
		t.Errorf("in quarantine: %+v", q)
	}
}

func TestAMessageThatIsReleasedWhileTheSpoolIsReadStaysReleased(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	other, m := s.put(t, 100), s.put(t, 100)
	if err := s.Quarantine(m.ID, "panicked"); err != nil {
		t.Fatal(err)
	}
	s.note(t, m, noon, 0) // came late
	if err := s.Each(func(seen *spool.Message) error {
		if seen.ID != other.ID {
			return nil
		}
		b := s.journal.NewBatch()
		return errors.Join(s.Release(b, m), s.journal.Commit(b))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(m.ID); err != nil || len(s.quarantined(t)) != 0 {
		t.Errorf("after its release: %v, in quarantine %v", err, s.quarantined(t))
	}
}

// What says that a message was told may come when it has been released already.
func TestOfAQuarantineOnlyWhatWasToldOfItselfCounts(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m := s.put(t, 100)
	untold := func(want ...string) {
		t.Helper()
		if ids, err := s.Untold(); err != nil || !slices.Equal(ids, want) {
			t.Errorf("untold are %q, %v; want %q", ids, err, want)
		}
	}
	told := func() {
		t.Helper()
		b := s.journal.NewBatch()
		s.Told(b, m.ID)
		if err := s.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
	}
	told()
	untold()
	if err := s.Quarantine(m.ID, "panicked"); err != nil {
		t.Fatal(err)
	}
	untold(m.ID)
	told()
	untold()
	b := s.journal.NewBatch()
	if err := errors.Join(s.Release(b, m), s.journal.Commit(b), s.Quarantine(m.ID, "panicked")); err != nil {
		t.Fatal(err)
	}
	untold(m.ID)
}
