package spool_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"

	"github.com/prometheus/client_golang/prometheus"
)

func openLogged(t *testing.T, out io.Writer) (*store, *prometheus.Registry) {
	t.Helper()
	dir, registry := t.TempDir(), prometheus.NewRegistry()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(spool.Config{
		Dir: filepath.Join(dir, "bodies"), Journal: j, Log: slog.New(slog.NewTextHandler(out, nil)), Metrics: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &store{Spool: s, journal: j, dir: dir}, registry
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// trouble fails the n-th operation of a kind, once armed, and only that one.
type trouble struct {
	op    string
	err   error
	nth   int64
	armed atomic.Bool
	met   atomic.Int64
}

func (f *trouble) hook(op, _ string) error {
	if f.armed.Load() && op == f.op && f.met.Add(1) == f.nth {
		return f.err
	}
	return nil
}

func TestAfterAFailedOperationTheMessageIsRefusedAndNothingElseIsLost(t *testing.T) {
	for _, f := range []*trouble{
		{op: "create", err: syscall.ENOSPC, nth: 1},
		{op: "write", err: syscall.ENOSPC, nth: 1},
		{op: "write", err: syscall.ENOSPC, nth: 3},
		{op: "rename", err: syscall.EIO, nth: 1},
	} {
		s := open(t, t.TempDir(), f.hook)
		before := s.put(t, large, "X: y\r\n")
		f.armed.Store(true)
		b := s.journal.NewBatch()
		id := newID(t)
		if err := s.stage(b, envelope(id), text(id, large), 32<<10); !errors.Is(err, f.err) {
			t.Errorf("%s: staged with %v", f.op, err)
		}
		b.Discard()
		if s.journal.Err() != nil {
			t.Errorf("%s: the journal failed too: %v", f.op, s.journal.Err())
		}
		if files := s.files(t); !slices.Equal(files, []string{before.ID}) {
			t.Errorf("%s: files %v", f.op, files)
		}
		after := s.put(t, large, "X: y\r\n")
		s.checkBoth(t, f.op, before, after)
		s = s.reopen(t)
		s.checkBoth(t, f.op+", after a restart", before, after)
		s.close(t)
	}
}

func (s *store) checkBoth(t *testing.T, when string, good ...*spool.Message) {
	t.Helper()
	for _, m := range good {
		content, err := s.body(m.ID)
		if err != nil || !bytes.HasSuffix(content, text(m.ID, large)) {
			t.Errorf("%s: a good message suffers: %d bytes, %v", when, len(content), err)
		}
	}
	if n := len(s.ids(t)); n != len(good) {
		t.Errorf("%s: %d messages, want %d", when, n, len(good))
	}
}

// A writer that ignores one failed Write must not get a text with a hole
// stored.
func TestATextWithAHoleCannotBeStaged(t *testing.T) {
	for _, nth := range []int64{1, 2} {
		f := &trouble{op: "write", err: syscall.ENOSPC, nth: nth}
		f.armed.Store(true)
		s := open(t, t.TempDir(), f.hook)
		w, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		for range 5 {
			if _, err := w.Write(make([]byte, 200_000)); err != nil {
				failed++
			}
		}
		if failed < 3 {
			t.Errorf("only %d writes failed", failed)
		}
		b := s.journal.NewBatch()
		if err := s.Stage(b, envelope(newID(t)), w); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("staged with %v", err)
		}
		b.Discard()
		if err := w.Discard(); err != nil {
			t.Error(err)
		}
		if files := s.files(t); len(files) != 0 {
			t.Errorf("files %v", files)
		}
		s.close(t)
	}
}

// Row 4 of the fault matrix.
func TestAfterAFailedSyncOfABodyNothingIsAcceptedAndNoSyncIsTriedAgain(t *testing.T) {
	for _, op := range []string{"sync", "syncdir"} {
		f := &trouble{op: op, err: syscall.EIO, nth: 1}
		s := open(t, t.TempDir(), f.hook)
		good := s.put(t, large, "X: y\r\n")
		late, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := late.Write(make([]byte, large)); err != nil {
			t.Fatal(err)
		}
		f.armed.Store(true)
		b, id := s.journal.NewBatch(), newID(t)
		if err := s.stage(b, envelope(id), text(id, large), 32<<10); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: staged with %v", op, err)
		}
		b.Discard()
		if err := s.journal.Err(); !errors.Is(err, journal.ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: the journal goes on: %v", op, err)
		}
		if err := s.Stage(s.journal.NewBatch(), envelope(newID(t)), late); !errors.Is(err, journal.ErrFailed) {
			t.Errorf("%s: a text that came before the failure was staged after it: %v", op, err)
		}
		if n := f.met.Load(); n != 1 {
			t.Errorf("%s was tried %d times more", op, n-1)
		}
		if _, err := s.Create(); !errors.Is(err, journal.ErrFailed) {
			t.Errorf("%s: a new message was begun: %v", op, err)
		}
		s.checkBoth(t, op, good)
		if err := late.Discard(); err != nil {
			t.Error(err)
		}
		s = s.reopen(t)
		s.checkBoth(t, op+", after a restart", good)
		if files := s.files(t); !slices.Equal(files, []string{good.ID}) {
			t.Errorf("%s: files %v", op, files)
		}
		s.close(t)
	}
}

// A sync of the log that fails leaves open whether the batch is on the disk, so
// the file must stay for the next process.
func TestAFileStaysWhenTheSyncOfItsRecordFails(t *testing.T) {
	dir := t.TempDir()
	f := &trouble{op: "sync", err: syscall.EIO, nth: 1}
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Faults: f.hook})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "bodies"), Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{Spool: inner, journal: j, dir: dir}
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	m, b := envelope(newID(t)), j.NewBatch()
	if _, err := w.Write(text(m.ID, large)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stage(b, m, w); err != nil {
		t.Fatal(err)
	}
	f.armed.Store(true)
	if err := j.Commit(b); !errors.Is(err, syscall.EIO) {
		t.Fatalf("committed with %v", err)
	}
	if err := w.Discard(); err != nil {
		t.Error(err)
	}
	s = s.reopen(t)
	defer s.close(t)
	ids, files := s.ids(t), s.files(t)
	if !slices.Equal(ids, files) {
		t.Errorf("messages %v, files %v", ids, files)
	}
	if len(ids) == 1 {
		s.checkBoth(t, "after a restart", m)
	}
}

func TestAFileThatCannotBeRemovedIsSweptAwayByTheNextStart(t *testing.T) {
	f := &trouble{op: "remove", err: syscall.EIO, nth: 1}
	s := open(t, t.TempDir(), f.hook)
	m := s.put(t, large)
	f.armed.Store(true)
	b := s.journal.NewBatch()
	s.Remove(b, m.ID)
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	if files := s.files(t); len(files) != 1 {
		t.Fatalf("files %v", files)
	}
	s = s.reopen(t)
	defer s.close(t)
	if files := s.files(t); len(files) != 0 {
		t.Errorf("files %v", files)
	}
}

func TestOpenRemovesWhatBelongsToNoMessageAndNothingElse(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	kept, held := s.put(t, large), s.put(t, large)
	if err := s.Quarantine(held.ID, "poison"); err != nil {
		t.Fatal(err)
	}
	bodies := filepath.Join(s.dir, "bodies")
	for _, name := range []string{"123.part", kept.ID + ".part", newID(t), "core"} {
		if err := os.WriteFile(filepath.Join(bodies, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(bodies, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	s = s.reopen(t)
	defer s.close(t)
	want := []string{kept.ID, held.ID, "lost+found"}
	slices.Sort(want)
	if got := s.files(t); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

func TestTheTextOfAMessageThatADamagedLogHasLostStays(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	kept, lost := s.put(t, large), newID(t)
	bodies := filepath.Join(s.dir, "bodies")
	for name, path := range map[string]string{lost: bodies, "123.part": bodies, "changes-lost": filepath.Join(s.dir, "journal")} {
		if err := os.WriteFile(filepath.Join(path, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{kept.ID, lost + ".lost"}
	slices.Sort(want)
	s = s.reopen(t)
	if got := s.files(t); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	if err := s.journal.LossHandled(); err != nil {
		t.Fatal(err)
	}
	s = s.reopen(t)
	defer s.close(t)
	if got := s.files(t); !slices.Equal(got, want) {
		t.Errorf("at the next start: files %v, want %v", got, want)
	}
}

// A power cut may take a name whose directory was never synced, that of the
// directory itself included.
func TestTheDirectoryAndEveryFileAreSyncedBeforeTheRecordThatNamesThem(t *testing.T) {
	var ops []string
	dir := t.TempDir()
	s := open(t, dir, func(op, path string) error {
		name, err := filepath.Rel(dir, path)
		if err == nil && op != "statfs" {
			ops = append(ops, op+" "+name)
		}
		return err
	})
	defer s.close(t)
	if !slices.Equal(ops, []string{"syncdir ."}) {
		t.Errorf("opening: %v", ops)
	}
	ops = nil
	id, b := newID(t), s.journal.NewBatch()
	if err := s.stage(b, envelope(id), text(id, large), large); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"create bodies", "write bodies/", "write bodies/", "sync bodies/", "rename bodies/" + id, "syncdir bodies"} {
		if i >= len(ops) || !strings.HasPrefix(ops[i], want) {
			t.Fatalf("operation %d of %v, want %s", i, ops, want)
		}
	}
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "bodies", id))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("file: %v, %v", info.Mode(), err)
	}
	if info, err = os.Stat(filepath.Join(dir, "bodies")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
}
