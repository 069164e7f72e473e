package spool_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"

	"activerelay/relayd/internal/spool"
)

// Permitted senders who stall within DATA, as many as an edge lets in, hold no more
// memory than the spool has for texts that arrive.
func TestTextsThatArriveTakeNoMoreMemoryThanTheirBudgetAndAreStored(t *testing.T) { stall(t, 8) }

func TestSoakTextsThatArriveTakeNoMoreMemoryThanTheirBudgetAndAreAllStored(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SKIPPED TestSoakTextsThatArriveTakeNoMoreMemoryThanTheirBudgetAndAreAllStored: only with SOAK=1, for its 4,000 syncs; " +
			"the short form stores every eighth")
	}
	stall(t, 1)
}

// stall stores every n-th of the texts in the end.
func stall(t *testing.T, every int) {
	const writers, size, budget = 2000, 200 << 10, 64 << 20 // the default
	s := openCounted(t, t.TempDir(), nil, nil)
	defer s.close(t)
	var open [writers]*spool.Writer
	var ids [writers]string
	for i := range open {
		w, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		open[i], ids[i] = w, newID(t)
	}
	content := make([][][]byte, 10)
	for i := range content {
		content[i] = slices.Collect(slices.Chunk(text(ids[i], size), 25<<10))
	}
	most := 0
	for part := range content[0] {
		for i, w := range open {
			if _, err := w.Write(content[i%len(content)][part]); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				most = max(most, s.inMemory(t))
			}
		}
	}
	if most = max(most, s.inMemory(t)); most > budget+writers*smallBytes {
		t.Errorf("texts took up %d bytes, budget %d and %d of the smallest buffers", most, budget, writers)
	}
	if most < budget {
		t.Errorf("texts took up no more than %d bytes of a budget of %d", most, budget)
	}
	b := s.journal.NewBatch()
	for i := 0; i < writers; i += every {
		if err := s.Stage(b, envelope(ids[i]), open[i]); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 1<<20 || i+every >= writers {
			if err := s.journal.CommitLazy(b); err != nil {
				t.Fatal(err)
			}
			b = s.journal.NewBatch()
		}
	}
	b.Discard()
	for i, w := range open {
		if err := w.Discard(); err != nil {
			t.Fatal(err)
		}
		if i%every != 0 {
			continue
		}
		got, err := s.body(ids[i])
		if err != nil || !bytes.Equal(got, bytes.Join(content[i%len(content)], nil)) {
			t.Fatalf("message %d came back as %d bytes, %v", i, len(got), err)
		}
	}
	s.wantInMemory(t, 0, "once all was discarded")
	files := len(s.files(t))
	if files == 0 || files == writers/every {
		t.Errorf("%d of %d texts are files", files, writers/every)
	}
	s.handOver(t, size)
	if now := len(s.files(t)); now != files {
		t.Error("the next text finds no memory")
	}
}

// Who asks at the same moment gets no more than who asks in turn.
func TestWritersThatGrowAtOnceKeepToTheBudget(t *testing.T) {
	const writers, budget = 20, 100 << 10
	s := openCounted(t, t.TempDir(), nil, func(c *spool.Config) { c.WritingBytes, c.HandoverBytes = budget, -1 })
	defer s.close(t)
	for range 20 {
		var open [writers]*spool.Writer
		var growing sync.WaitGroup
		for i := range open {
			w, err := s.Create()
			if err != nil {
				t.Fatal(err)
			}
			open[i] = w
			growing.Go(func() {
				for range 10 {
					if _, err := w.Write(make([]byte, 4<<10)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		growing.Wait()
		if got := s.inMemory(t); got > budget+writers*smallBytes {
			t.Errorf("texts take up %d bytes", got)
		}
		var err error
		for _, w := range open {
			err = errors.Join(err, w.Discard())
		}
		if err != nil {
			t.Fatal(err)
		}
		s.wantInMemory(t, 0, "once all was discarded")
	}
}
