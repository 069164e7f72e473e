package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"activerelay/relayd/internal/spool"
)

// flipRecord flips one bit of a record where it lies.
func (s *store) flipRecord(t fataler, key string, bit int) {
	t.Helper()
	value, err := s.journal.Get([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	bit %= 8 * len(value)
	value[bit/8] ^= 1 << (bit % 8)
	b := s.journal.NewBatch()
	b.Set([]byte(key), value)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
}

// changeFile rewrites the file of a large message.
func (s *store) changeFile(t fataler, id string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(s.dir, "bodies", id)
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(content), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flipped(content []byte) []byte {
	content[mathrand.IntN(len(content))] ^= 1 << mathrand.IntN(8)
	return content
}

// checkCaught demands that a damaged body was not handed out and that its
// message is kept for a human, out of the way of the rest.
func (s *store) checkCaught(t *testing.T, m *spool.Message, what string) {
	t.Helper()
	body, err := s.Body(m.ID)
	if err == nil {
		body.Close()
		t.Errorf("%s: the damaged text of %s was handed out", what, m.ID)
		return
	}
	if !errors.Is(err, spool.ErrCorrupt) {
		t.Errorf("%s: %v", what, err)
	}
	if _, err := s.Load(m.ID); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("%s: the message goes on: %v", what, err)
	}
}

// Row 6 of the fault matrix.
func TestRow6OfAThousandFlippedBitsInRecordsEachIsCaughtAndTheRestGoesOn(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	var good, inline, files, envelopes []*spool.Message
	for i := range 1000 {
		switch {
		case i%20 == 0:
			files = append(files, s.put(t, spool.InlineBytes+1+i, "X: y\r\n"))
		case i%4 == 1:
			envelopes = append(envelopes, s.put(t, i))
		default:
			inline = append(inline, s.put(t, 3*i, "X: y\r\n"))
		}
		if i%10 == 0 {
			good = append(good, s.put(t, 10*i, "X: y\r\n"))
		}
	}
	for _, m := range inline {
		s.flipRecord(t, "sb"+m.ID, mathrand.Int())
	}
	for _, m := range envelopes {
		s.flipRecord(t, "se"+m.ID, mathrand.Int())
	}
	for i, m := range files {
		if i%5 == 0 {
			s.flipRecord(t, "sb"+m.ID, mathrand.Int())
		} else {
			s.changeFile(t, m.ID, flipped)
		}
	}
	s = s.reopen(t)
	for _, m := range inline {
		s.checkCaught(t, m, "inline")
	}
	for _, m := range files {
		s.checkCaught(t, m, "file")
	}
	for i, m := range envelopes {
		if i%2 == 0 { // the rest is caught by Each
			if _, err := s.Load(m.ID); !errors.Is(err, spool.ErrCorrupt) {
				t.Errorf("a damaged envelope was handed out: %v", err)
			}
		}
	}
	for range 2 {
		s.checkOnly(t, good)
		if q := s.quarantined(t); len(q) != 1000 {
			t.Errorf("%d of 1000 damaged messages are in quarantine", len(q))
		}
		s = s.reopen(t)
	}
}

// checkOnly demands that exactly these messages are there, whole.
func (s *store) checkOnly(t *testing.T, good []*spool.Message) {
	t.Helper()
	var want []string
	for _, m := range good {
		want = append(want, m.ID)
	}
	slices.Sort(want)
	if got := s.ids(t); !slices.Equal(got, want) {
		t.Errorf("%d messages go on, want %d", len(got), len(want))
	}
	for _, m := range good {
		fields := []byte("X: y\r\n")
		content, err := s.body(m.ID)
		if err != nil || !bytes.Equal(content, append(fields, text(m.ID, int(m.Size)-len(fields))...)) {
			t.Errorf("an undamaged message suffers: %v", err)
		}
	}
}

func TestEveryBitOfARecordCounts(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m := s.put(t, 40, "X: y\r\n")
	for _, key := range []string{"sb" + m.ID, "se" + m.ID} {
		sound, err := s.journal.Get([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		envelope, err := s.journal.Get([]byte("se" + m.ID))
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(sound) {
			s.flipRecord(t, key, bit)
			_, loadErr := s.Load(m.ID)
			content, bodyErr := s.body(m.ID)
			if loadErr == nil && bodyErr == nil {
				t.Fatalf("bit %d of %s: both halves passed, text %q", bit, key[:2], content)
			}
			b := s.journal.NewBatch()
			b.Set([]byte("se"+m.ID), envelope)
			b.Set([]byte(key), sound)
			if err := s.journal.CommitLazy(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if content, err := s.body(m.ID); err != nil || len(content) != 46 {
		t.Errorf("the mended message: %d bytes, %v", len(content), err)
	}
}

func TestATornOrMissingFileIsCaught(t *testing.T) {
	tears := map[string]func([]byte) []byte{
		"cut by one byte": func(c []byte) []byte { return c[:len(c)-1] },
		"cut to half":     func(c []byte) []byte { return c[:len(c)/2] },
		"empty":           func([]byte) []byte { return nil },
		"a byte longer":   func(c []byte) []byte { return append(c, 0) },
		"zeros at the end": func(c []byte) []byte {
			clear(c[len(c)-4096:])
			return c
		},
	}
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	good := s.put(t, 2*spool.InlineBytes, "X: y\r\n")
	var torn []*spool.Message
	for name, tear := range tears {
		m := s.put(t, 2*spool.InlineBytes)
		s.changeFile(t, m.ID, tear)
		s.checkCaught(t, m, name)
		torn = append(torn, m)
	}
	lost := s.put(t, 2*spool.InlineBytes)
	if err := os.Remove(filepath.Join(s.dir, "bodies", lost.ID)); err != nil {
		t.Fatal(err)
	}
	s.checkCaught(t, lost, "removed")

	swapped, other := s.put(t, 2*spool.InlineBytes), text("other", 2*spool.InlineBytes)
	s.changeFile(t, swapped.ID, func([]byte) []byte { return other })
	s.checkCaught(t, swapped, "another message's text")

	s = s.reopen(t)
	s.checkOnly(t, []*spool.Message{good})
	for _, m := range torn {
		if !slices.Contains(s.files(t), m.ID) {
			t.Error("the torn file was not kept for a human")
		}
	}
}

func TestTruncatedRecordsAreCaughtAtEveryLength(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m := s.put(t, 40, "X: y\r\n")
	sound, err := s.journal.Get([]byte("sb" + m.ID))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(sound) {
		b := s.journal.NewBatch()
		b.Set([]byte("sb"+m.ID), sound[:n])
		if err := s.journal.CommitLazy(b); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Body(m.ID); !errors.Is(err, spool.ErrCorrupt) {
			t.Fatalf("%d of %d bytes passed: %v", n, len(sound), err)
		}
	}
}

func TestAnEnvelopeOfAnotherMessageIsNotHandedOut(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	m, other := s.put(t, 10, "X: y\r\n"), s.put(t, 10, "X: y\r\n")
	record, err := s.journal.Get([]byte("se" + other.ID))
	if err != nil {
		t.Fatal(err)
	}
	b := s.journal.NewBatch()
	b.Set([]byte("se"+m.ID), record)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	s.checkOnly(t, []*spool.Message{other})
	if q := s.quarantined(t); q[m.ID].Reason == "" || q[m.ID].Message != nil {
		t.Errorf("quarantine holds %+v", q)
	}
}

func TestQuarantineKeepsTheMessageForAHumanUntilItIsRemoved(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	poison, good := s.put(t, 2*spool.InlineBytes), s.put(t, 100, "X: y\r\n")
	if err := s.Quarantine(poison.ID, "panicked three times"); err != nil {
		t.Fatal(err)
	}
	s = s.reopen(t)
	s.checkOnly(t, []*spool.Message{good})
	q := s.quarantined(t)[poison.ID]
	if q.Reason != "panicked three times" || q.Message == nil || q.Message.Recipients[1].Address.Domain != "z.test" {
		t.Errorf("quarantine holds %+v", q)
	}
	if content, err := s.body(poison.ID); err != nil || !bytes.Equal(content, text(poison.ID, 2*spool.InlineBytes)) {
		t.Errorf("the text is gone: %v", err)
	}
	b := s.journal.NewBatch()
	s.RemoveQuarantined(b, poison.ID)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	if q, files := s.quarantined(t), s.files(t); len(q) != 0 || len(files) != 0 {
		t.Errorf("left in quarantine %v, files %v", q, files)
	}
	s.checkOnly(t, []*spool.Message{good})
}

func TestDamageIsCountedAndSaid(t *testing.T) {
	var out bytes.Buffer
	s, registry := openLogged(t, &out)
	defer s.close(t)
	m := s.put(t, 100)
	s.flipRecord(t, "sb"+m.ID, 8*50)
	s.checkCaught(t, m, "inline")
	if got := gauge(t, registry, "relayd_spool_quarantined_total"); got != 1 {
		t.Errorf("%v messages counted", got)
	}
	if line := out.String(); !bytes.Contains(out.Bytes(), fmt.Appendf(nil, "level=ERROR")) || !bytes.Contains(out.Bytes(), []byte(m.ID)) {
		t.Errorf("log %q", line)
	}
}
