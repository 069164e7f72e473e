package spool_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/spool"
	"activerelay/relayd/relaytest"
)

// The re-executed test binary is the victim. It works in childDir; with
// childStep it follows the script and kills itself before the n-th operation on
// a file, without it runs under load until it is killed.
const (
	childDir  = "SPOOL_TEST_CHILD_DIR"
	childStep = "SPOOL_TEST_CHILD_STEP"
)

// victim reports on standard output: "begin ID SIZE" before a message exists,
// then "stored ID", "updated ID", "removing ID", "removed ID".
type victim struct {
	*store
	mu sync.Mutex
}

func (v *victim) say(verb, id string, more ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Println(append([]any{verb, id}, more...)...)
}

func child(dir string) int {
	step, _ := strconv.ParseInt(os.Getenv(childStep), 10, 64)
	var count atomic.Int64
	faults := func(string, string) error {
		if count.Add(1) == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
		return nil
	}
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Faults: faults})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "bodies"), Journal: j, Faults: faults})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	v := &victim{store: &store{Spool: s, journal: j, dir: dir}}
	if step > 0 {
		err = errors.Join(v.script(), s.Close(), j.Close())
	} else {
		err = v.load()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// small and large are sizes on both sides of InlineBytes.
const (
	small = 3000
	large = spool.InlineBytes + 50_000
)

func (v *victim) storeAll(sizes ...int) ([]string, error) {
	var ids []string
	b := v.journal.NewBatch()
	for _, size := range sizes {
		id, err := spool.NewID(noon, rand.Reader)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		v.say("begin", id, size)
		if err := v.stage(b, envelope(id), text(id, size), 100_000); err != nil {
			return nil, err
		}
	}
	if err := v.journal.Commit(b); err != nil {
		return nil, err
	}
	v.say("stored", strings.Join(ids, "+"))
	return ids, nil
}

func (v *victim) update(id string) error {
	m, err := v.Load(id)
	if err != nil {
		return err
	}
	m.Recipients[0].Attempts = 7
	b := v.journal.NewBatch()
	if err := v.Update(b, m); err != nil {
		return err
	}
	if err := v.journal.Commit(b); err != nil {
		return err
	}
	v.say("updated", id)
	return nil
}

func (v *victim) remove(id string) error {
	v.say("removing", id)
	b := v.journal.NewBatch()
	v.Remove(b, id)
	if err := v.journal.Commit(b); err != nil {
		return err
	}
	v.say("removed", id)
	return nil
}

// script goes once through everything that happens to messages.
func (v *victim) script() error {
	first, err := v.storeAll(small)
	if err != nil {
		return err
	}
	second, err := v.storeAll(large)
	if err != nil {
		return err
	}
	if _, err := v.storeAll(large, small, large); err != nil {
		return err
	}
	if err := errors.Join(v.update(first[0]), v.remove(second[0]), v.remove(first[0])); err != nil {
		return err
	}
	w, err := v.Create()
	if err != nil {
		return err
	}
	if _, err := w.Write(make([]byte, large)); err != nil {
		return err
	}
	return w.Discard()
}

// load stores, updates and removes from several goroutines, for ever.
func (v *victim) load() error {
	errs := make(chan error)
	for range 4 {
		go func() {
			for {
				ids, err := v.storeAll(small, 10*small, []int{small, large}[mathrand.IntN(2)])
				if err == nil {
					err = errors.Join(v.update(ids[0]), v.remove(ids[1]))
				}
				if err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// record is what the victims told, and so what must be found.
type record struct {
	size    map[string]int    // begun
	batch   map[string]string // id to the batch that was acknowledged with it
	updated map[string]bool
	leaving map[string]bool // removal begun
	left    map[string]bool // removal acknowledged
}

func newRecord() *record {
	return &record{map[string]int{}, map[string]string{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
}

// run starts a victim, kills it after stop acknowledgements (0: never), notes
// what it told, and reports whether it came to its end.
func (r *record) run(t *testing.T, dir string, step, stop int) (ended bool) {
	t.Helper()
	stored := 0
	env := []string{childDir + "=" + dir, fmt.Sprintf("%s=%d", childStep, step)}
	return !relaytest.RunVictim(t, env, func(line string) bool {
		r.note(t, strings.Fields(line))
		if strings.HasPrefix(line, "stored") {
			stored++
		}
		return stop > 0 && stored == stop
	})
}

func (r *record) note(t *testing.T, words []string) {
	t.Helper()
	verb, id := words[0], words[1]
	switch verb {
	case "begin":
		size, err := strconv.Atoi(words[2])
		if err != nil {
			t.Fatal(err)
		}
		r.size[id] = size
	case "stored":
		for one := range strings.SplitSeq(id, "+") {
			r.batch[one] = id
		}
	case "updated":
		r.updated[id] = true
	case "removing":
		r.leaving[id] = true
	case "removed":
		r.left[id] = true
	}
}

// check opens what a victim left and compares.
func (r *record) check(t *testing.T, dir, when string) {
	t.Helper()
	s := open(t, dir, nil)
	defer s.close(t)
	present := map[string]bool{}
	err := s.Each(func(m *spool.Message) error {
		present[m.ID] = true
		size, begun := r.size[m.ID]
		content, err := s.body(m.ID)
		if !begun || err != nil || !bytes.Equal(content, text(m.ID, size)) {
			t.Errorf("%s: message %s (begun %v) holds %d of %d bytes: %v", when, m.ID, begun, len(content), size, err)
		}
		if r.updated[m.ID] && m.Recipients[0].Attempts != 7 {
			t.Errorf("%s: the update of %s is lost", when, m.ID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range r.batch {
		if !present[id] && !r.leaving[id] {
			t.Errorf("%s: message %s was acknowledged and is lost", when, id)
		}
		if present[id] && r.left[id] {
			t.Errorf("%s: message %s was removed and is back", when, id)
		}
	}
	if n := len(s.quarantined(t)); n != 0 {
		t.Errorf("%s: %d messages in quarantine", when, n)
	}
	for _, name := range s.files(t) {
		if !present[name] {
			t.Errorf("%s: file %s belongs to no message", when, name)
		}
	}
	r.forget(present)
}

// forget closes the books over a crash: what is there now is a fact.
func (r *record) forget(present map[string]bool) {
	for id := range r.size {
		if !present[id] {
			delete(r.size, id)
			delete(r.batch, id)
		}
	}
}

func TestAKillBeforeAnyFileOperationLeavesWholeMessagesOrNothing(t *testing.T) {
	for step := 1; ; step++ {
		if step > 300 {
			t.Fatal("the script does not end")
		}
		dir, r := t.TempDir(), newRecord()
		ended := r.run(t, dir, step, 0)
		torn := r.batchesBegun()
		r.check(t, dir, fmt.Sprintf("killed before operation %d", step))
		for _, batch := range torn {
			if n := r.sized(batch); n != 0 && n != len(batch) {
				t.Errorf("killed before operation %d: %d of %d messages of one batch", step, n, len(batch))
			}
		}
		if ended {
			if step < 25 {
				t.Fatalf("the script has only %d operations: the test shows little", step)
			}
			return
		}
	}
}

// batchesBegun are the messages begun and not acknowledged: the victim commits
// one batch at a time, so they are of one batch.
func (r *record) batchesBegun() [][]string {
	var open []string
	for id := range r.size {
		if r.batch[id] == "" {
			open = append(open, id)
		}
	}
	if open == nil {
		return nil
	}
	return [][]string{open}
}

func (r *record) sized(ids []string) (n int) {
	for _, id := range ids {
		if _, ok := r.size[id]; ok {
			n++
		}
	}
	return n
}

func TestKillNineUnderLoadLosesNoMessageAndLeavesNoFileBehind(t *testing.T) {
	dir, r := t.TempDir(), newRecord()
	for round := range 6 {
		r.run(t, dir, 0, 5+mathrand.IntN(60))
		r.check(t, dir, fmt.Sprintf("round %d", round))
	}
	t.Logf("%d messages over 6 kills", len(r.size))
}
