package spool

import (
	"errors"
	"testing"

	"activerelay/relayd/internal/journal"
)

// A look at a text may come between the settlement of its message and the
// removal of its file: that is no damage, and no alarm.
func TestATextWhoseMessageWasJustSettledIsNotFoundRatherThanDamaged(t *testing.T) {
	const id = "01KAQ7M2Z8Y3F6N5T4R1W0X9VB"
	dir := t.TempDir()
	j, err := journal.Open(journal.Config{Dir: dir + "/journal"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	s, err := Open(Config{Dir: dir + "/bodies", Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Discard()
	if _, err := w.Write(make([]byte, InlineBytes+1)); err != nil {
		t.Fatal(err)
	}
	b := j.NewBatch()
	if err := errors.Join(s.Stage(b, &Message{ID: id}, w), j.Commit(b)); err != nil {
		t.Fatal(err)
	}
	record, err := j.Get(bodyKey(id)) // the looker is here when the message ends
	if err != nil {
		t.Fatal(err)
	}
	head, err := decodeBodyHead(record)
	if err != nil {
		t.Fatal(err)
	}
	b = j.NewBatch()
	s.Remove(b, id)
	if err := j.Commit(b); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fileBody(id, nil, head); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
		t.Errorf("looking at it: %v", err)
	}
	err = s.EachQuarantined(func(q Quarantined) error { return errors.New(q.ID + " is in quarantine") })
	if err != nil {
		t.Error(err)
	}
}
