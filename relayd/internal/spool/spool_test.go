package spool_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"activerelay/api/mailaddr"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

// fataler is what the helpers need of a test or of a rapid check.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// store is a spool over a real journal in one directory.
type store struct {
	*spool.Spool
	journal *journal.Journal
	dir     string
}

// hook is the Faults of a spool or a journal.
type hook func(op, path string) error

func open(t fataler, dir string, faults hook) *store {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "bodies"), Journal: j, Faults: faults})
	if err != nil {
		t.Fatal(errors.Join(err, j.Close()))
	}
	return &store{Spool: s, journal: j, dir: dir}
}

func (s *store) close(t fataler) {
	t.Helper()
	if err := errors.Join(s.Close(), s.journal.Close()); err != nil {
		t.Fatal(err)
	}
}

func (s *store) reopen(t fataler) *store {
	t.Helper()
	s.close(t)
	return open(t, s.dir, nil)
}

// files are the names in the directory of bodies.
func (s *store) files(t fataler) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "bodies"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

var addresses = cmpopts.EquateComparable(netip.Addr{})

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newID(t fataler) string {
	t.Helper()
	id, err := spool.NewID(noon, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func envelope(id string) *spool.Message {
	return &spool.Message{
		ID: id, Domain: "example.com", Partner: "acme",
		From: mailaddr.Address{Local: "anna", Domain: "example.com"},
		Recipients: []spool.Recipient{
			{Address: mailaddr.Address{Local: "b", Domain: "y.test"}, State: spool.Pending},
			{Address: mailaddr.Address{Local: "c", Domain: "z.test"}, State: spool.Pending, Notify: []string{"NEVER"}},
		},
		Client:     netip.MustParseAddr("2001:db8::10"),
		AcceptedAt: noon, Units: 1, DayStart: noon.Truncate(24 * time.Hour),
	}
}

// text is content of a size that proves whose it is.
func text(id string, size int) []byte {
	seed := fnv.New64a()
	seed.Write([]byte(id))
	var key [32]byte
	copy(key[:], fmt.Appendf(nil, "%x", seed.Sum64()))
	content := make([]byte, size)
	_, _ = mathrand.NewChaCha8(key).Read(content) // never fails
	return content
}

// stage writes content in pieces of at most chunk bytes and adds the message to b.
func (s *store) stage(b *journal.Batch, m *spool.Message, content []byte, chunk int, fields ...string) error {
	w, err := s.Create()
	if err != nil {
		return err
	}
	b.OnDurable(func() { _ = w.Discard() })
	for piece := range slices.Chunk(content, chunk) {
		if _, err := w.Write(piece); err != nil {
			return errors.Join(err, w.Discard())
		}
	}
	for _, f := range fields {
		w.Prepend([]byte(f))
	}
	if err := s.Stage(b, m, w); err != nil {
		return errors.Join(err, w.Discard())
	}
	return nil
}

// put stores one message.
func (s *store) put(t fataler, size int, fields ...string) *spool.Message {
	t.Helper()
	m, b := envelope(newID(t)), s.journal.NewBatch()
	if err := s.stage(b, m, text(m.ID, size), 32<<10, fields...); err != nil {
		t.Fatal(err)
	}
	if err := s.journal.Commit(b); err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *store) body(id string) ([]byte, error) {
	body, err := s.Body(id)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	if err == nil && int64(len(content)) != body.Size() {
		err = fmt.Errorf("%d bytes, Size %d", len(content), body.Size())
	}
	if held := body.Bytes(); err == nil && held != nil && !bytes.Equal(held, content) {
		err = fmt.Errorf("%d bytes read, Bytes has %d others", len(content), len(held))
	}
	return content, errors.Join(err, body.Close(), body.Close())
}

func (s *store) ids(t fataler) []string {
	t.Helper()
	var ids []string
	if err := s.Each(func(m *spool.Message) error { ids = append(ids, m.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	return ids
}

func (s *store) quarantined(t fataler) map[string]spool.Quarantined {
	t.Helper()
	all := map[string]spool.Quarantined{}
	if err := s.EachQuarantined(func(q spool.Quarantined) error { all[q.ID] = q; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// drawn is one message of the property test and what must be read back.
type drawn struct {
	message *spool.Message
	whole   []byte
}

func drawMessage(t *rapid.T, s *store, b *journal.Batch) drawn {
	size := rapid.OneOf(
		rapid.SampledFrom([]int{0, 1, spool.InlineBytes - 1, spool.InlineBytes, spool.InlineBytes + 1, 3 * spool.InlineBytes}),
		rapid.IntRange(0, 5000), rapid.IntRange(0, 2*spool.InlineBytes),
	).Draw(t, "size")
	fields := rapid.SliceOfN(rapid.StringMatching(`X-[a-z]{1,9}: [a-z ]{0,40}\r\n`), 0, 3).Draw(t, "fields")
	chunk := rapid.SampledFrom([]int{997, 32 << 10, spool.InlineBytes, 1 << 20}).Draw(t, "chunk")
	m := envelope(newID(t))
	content := text(m.ID, size)
	if err := s.stage(b, m, content, chunk, fields...); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(fields)
	var whole []byte
	for _, f := range fields {
		whole = append(whole, f...)
	}
	return drawn{m, append(whole, content...)}
}

func (s *store) checkDrawn(t *rapid.T, d drawn) {
	got, err := s.body(d.message.ID)
	if err != nil || !bytes.Equal(got, d.whole) {
		t.Fatalf("body of %d bytes came back as %d, %v", len(d.whole), len(got), err)
	}
	if d.message.Size != int64(len(d.whole)) {
		t.Fatalf("size %d, want %d", d.message.Size, len(d.whole))
	}
	m, err := s.Load(d.message.ID)
	if diff := cmp.Diff(d.message, m, addresses); err != nil || diff != "" {
		t.Fatalf("envelope: %v\n%s", err, diff)
	}
	if len(d.whole) == 0 {
		return
	}
	body, err := s.Body(d.message.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	at := rapid.IntRange(0, len(d.whole)-1).Draw(t, "offset")
	part := make([]byte, min(rapid.IntRange(1, 4096).Draw(t, "length"), len(d.whole)-at))
	if _, err := body.ReadAt(part, int64(at)); err != nil && err != io.EOF || !bytes.Equal(part, d.whole[at:at+len(part)]) {
		t.Fatalf("%d bytes at %d of %d are wrong: %v", len(part), at, len(d.whole), err)
	}
}

func TestWhatWasCommittedIsReadBackByteForByteAlsoAfterARestart(t *testing.T) {
	dirs, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		s := open(t, filepath.Join(dirs, strconv.Itoa(n)), nil)
		defer func() { s.close(t) }()
		var all []drawn
		b := s.journal.NewBatch()
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			all = append(all, drawMessage(t, s, b))
		}
		if err := s.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			s.checkDrawn(t, d)
		}
		s = s.reopen(t)
		for _, d := range all {
			s.checkDrawn(t, d)
		}
		b = s.journal.NewBatch()
		for _, d := range all {
			s.Remove(b, d.message.ID)
		}
		if err := s.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		if ids, files := s.ids(t), s.files(t); len(ids) != 0 || len(files) != 0 {
			t.Fatalf("removed messages left %v and files %v", ids, files)
		}
	})
}

func TestAScannerReadsWhatHasArrivedWithoutTheAddedFields(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Discard()
	content := text("scan", 2*spool.InlineBytes)
	var sent int
	for piece := range slices.Chunk(content, 100_000) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		w.Prepend([]byte("X: y\r\n"))
		sent += len(piece)
		one, other := w.Reader(), w.Reader()
		if _, err := io.CopyN(io.Discard, other, 10); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(one); err != nil || !bytes.Equal(got, content[:sent]) || w.Size() != int64(sent) {
			t.Fatalf("after %d bytes: %d, %v, size %d", sent, len(got), err, w.Size())
		}
	}
}

func TestAnUpdateOfTheEnvelopeDoesNotWriteTheBodyAgain(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer func() { s.close(t) }()
	for _, size := range []int{100_000, spool.InlineBytes + 100_000} {
		m := s.put(t, size, "X: y\r\n")
		before, err := s.journal.Get([]byte("sb" + m.ID))
		if err != nil {
			t.Fatal(err)
		}
		m.Recipients[0].State, m.Recipients[0].LastReply = spool.Delivered, "250 ok"
		m.Recipients[1].Attempts, m.Recipients[1].NextAttempt = 3, noon.Add(time.Hour)
		b := s.journal.NewBatch()
		if err := s.Update(b, m); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 2000 {
			t.Errorf("the update of one envelope is %d bytes", b.Len())
		}
		if err := s.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		s = s.reopen(t)
		after, err := s.journal.Get([]byte("sb" + m.ID))
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("the body record changed: %v", err)
		}
		got, err := s.Load(m.ID)
		if diff := cmp.Diff(m, got, addresses); err != nil || diff != "" {
			t.Errorf("envelope: %v\n%s", err, diff)
		}
	}
}

func TestMessagesAreSeenOldestFirst(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	var want []string
	for i := range 20 {
		id, err := spool.NewID(noon.Add(time.Duration(i)*time.Second), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	for _, i := range mathrand.Perm(len(want)) {
		b := s.journal.NewBatch()
		if err := s.stage(b, envelope(want[i]), []byte("x"), 10); err != nil {
			t.Fatal(err)
		}
		if err := s.journal.CommitLazy(b); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.ids(t); !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	stop, seen := errors.New("stop"), 0
	if err := s.Each(func(*spool.Message) error { seen++; return stop }); !errors.Is(err, stop) || seen != 1 {
		t.Errorf("after an error: %v, %d seen", err, seen)
	}
}

func TestAMessageThatWasNotCommittedLeavesNothingBehind(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	for _, size := range []int{10, 2 * spool.InlineBytes} {
		w, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text("gone", size)); err != nil {
			t.Fatal(err)
		}
		b, m := s.journal.NewBatch(), envelope(newID(t))
		if err := s.Stage(b, m, w); err != nil {
			t.Fatal(err)
		}
		b.Discard()
		if err := errors.Join(w.Discard(), w.Discard()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(m.ID); !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("load: %v", err)
		}
		if _, err := s.Body(m.ID); !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("body: %v", err)
		}
		if files := s.files(t); len(files) != 0 {
			t.Errorf("files %v", files)
		}
		if err := s.Stage(s.journal.NewBatch(), m, w); err == nil || s.journal.Err() != nil {
			t.Errorf("a discarded text was staged: %v, journal %v", err, s.journal.Err())
		}
	}
}

// An attempt may hold the text open while another settles the message.
func TestAnOpenBodyOutlivesTheRemovalOfItsMessage(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	for _, size := range []int{10_000, 2 * spool.InlineBytes} {
		m := s.put(t, size)
		body, err := s.Body(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		b := s.journal.NewBatch()
		s.Remove(b, m.ID)
		if err := s.journal.Commit(b); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, text(m.ID, size)) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNothingButAMessageIDBecomesAKeyOrAFileName(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	defer s.close(t)
	for _, id := range []string{"", "../../etc/passwd", "01KAQ7M2Z8Y3F6N5T4R1W0X9V", "01KAQ7M2Z8Y3F6N5T4R1W0X9V/", "01KAQ7M2Z8Y3F6N5T4R1W0X9VB.part"} {
		b := s.journal.NewBatch()
		if err := s.stage(b, envelope(id), text("x", 2*spool.InlineBytes), 1<<20); err == nil {
			t.Errorf("%q was staged", id)
		}
		if err := s.Update(b, envelope(id)); err == nil {
			t.Errorf("%q was updated", id)
		}
		b.Discard()
	}
	if files := s.files(t); len(files) != 0 {
		t.Errorf("files %v", files)
	}
}
