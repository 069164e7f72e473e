package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// open gives a journal that is closed with the test.
func open(t testing.TB, c Config) *Journal {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	j, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// set commits one key durably.
func set(j *Journal, key, value string) error {
	b := j.NewBatch()
	b.Set([]byte(key), []byte(value))
	return j.Commit(b)
}

func contents(t testing.TB, j *Journal, prefix string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := j.Scan([]byte(prefix), func(key, value []byte) error {
		got[string(key)] = string(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatIsCommittedIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	b := j.NewBatch()
	b.Set([]byte("ta"), []byte("1"))
	b.Set([]byte("tb"), []byte("2"))
	b.Set([]byte("tc"), []byte("3"))
	b.Delete([]byte("tb"))
	if err := j.Commit(b); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, Config{Dir: dir})
	if diff := cmp.Diff(map[string]string{"ta": "1", "tc": "3"}, contents(t, j, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestADiscardedBatchLeavesNothing(t *testing.T) {
	j := open(t, Config{})
	b := j.NewBatch()
	b.Set([]byte("ta"), []byte("1"))
	b.Ordered(func(*Batch) { t.Error("a discarded batch took a place in the log") })
	b.Discard()
	b.Discard()
	if err := j.Commit(b); err == nil {
		t.Error("a discarded batch was committed")
	}
	if got := contents(t, j, "t"); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestABatchIsCommittedOnce(t *testing.T) {
	j := open(t, Config{})
	b := j.NewBatch()
	b.Set([]byte("ta"), nil)
	if err := j.Commit(b); err != nil {
		t.Fatal(err)
	}
	if err := j.Commit(b); err == nil {
		t.Error("the second commit of one batch succeeded")
	}
}

func TestAMissingKeyIsNotFound(t *testing.T) {
	j := open(t, Config{})
	if _, err := j.Get([]byte("tx")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if _, err := j.Last([]byte("t")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Last: %v", err)
	}
	if has, err := j.Has([]byte("tx")); has || err != nil {
		t.Errorf("Has: %v, %v", has, err)
	}
}

func TestAScanStaysInsideItsBounds(t *testing.T) {
	j := open(t, Config{})
	for _, key := range []string{"s\xff", "ta", "tb", "tc", "t\xff\xff", "u"} {
		if err := set(j, key, ""); err != nil {
			t.Fatal(err)
		}
	}
	keys := func(start, end []byte, stopAt string) (got []string) {
		err := j.ScanFrom(start, end, func(key, _ []byte) error {
			got = append(got, string(key))
			if string(key) == stopAt {
				return ErrStop
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	cases := []struct {
		name       string
		start, end []byte
		stopAt     string
		want       []string
	}{
		{name: "prefix", start: []byte("t"), end: prefixEnd([]byte("t")), want: []string{"ta", "tb", "tc", "t\xff\xff"}},
		{name: "prefix of the highest bytes", start: []byte("t\xff"), end: prefixEnd([]byte("t\xff")), want: []string{"t\xff\xff"}},
		{name: "range", start: []byte("tb"), end: []byte("tc"), want: []string{"tb"}},
		{name: "stopped", start: []byte("ta"), end: nil, stopAt: "tb", want: []string{"ta", "tb"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, keys(c.start, c.end, c.stopAt)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if last, err := j.Last([]byte("t")); string(last) != "t\xff\xff" || err != nil {
		t.Errorf("Last: %q, %v", last, err)
	}
	broken := errors.New("broken")
	if err := j.Scan([]byte("t"), func(_, _ []byte) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("the error of fn came back as %v", err)
	}
}

func TestASecondOpenerIsRefusedWithClearText(t *testing.T) {
	dir := t.TempDir()
	first := open(t, Config{Dir: dir})
	_, err := Open(Config{Dir: dir})
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{dir, fmt.Sprintf("process %d", os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if err := set(first, "ta", "1"); err != nil {
		t.Errorf("the first opener was harmed: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Dir: dir})
}

func TestAClosedJournalSaysSo(t *testing.T) {
	j := open(t, Config{Metrics: prometheus.NewRegistry()})
	b := j.NewBatch()
	b.Set([]byte("ta"), nil)
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if err := j.Commit(b); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := j.Get([]byte("ta")); !errors.Is(err, ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	if err := j.Scan(nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Scan: %v", err)
	}
}

func TestTheDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "journal")
	open(t, Config{Dir: dir})
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

// On its first start an edge makes its data directory too: a power cut that took that
// name would take all below it.
func TestEveryDirectoryThatIsMadeIsSyncedWhereItsNameIs(t *testing.T) {
	root := t.TempDir()
	var synced []string
	record := func(dir string) error {
		synced = append(synced, dir)
		return syncDir(dir)
	}
	dir := filepath.Join(root, "lib", "edge", "journal")
	for _, want := range [][]string{{filepath.Join(root, "lib", "edge"), filepath.Join(root, "lib"), root}, {filepath.Join(root, "lib", "edge")}} {
		synced = nil
		if err := makeDir(dir, record); err != nil || !slices.Equal(synced, want) {
			t.Errorf("synced %v, want %v: %v", synced, want, err)
		}
	}
}

func TestManyCommittersShareOneSync(t *testing.T) {
	var syncs atomic.Int64
	j := open(t, Config{Faults: func(op, path string) error {
		if op == "sync" && isLog(path) {
			syncs.Add(1)
		}
		return nil
	}})
	before := syncs.Load()
	const writers, each = 50, 40
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if err := set(j, fmt.Sprintf("t%d/%d", w, i), "v"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := syncs.Load() - before; n > writers*each/3 {
		t.Errorf("%d commits took %d syncs", writers*each, n)
	}
	if got := contents(t, j, "t"); len(got) != writers*each {
		t.Errorf("%d of %d keys", len(got), writers*each)
	}
}

func TestOrderedFunctionsNumberWithoutGaps(t *testing.T) {
	j := open(t, Config{})
	next := 0
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for i := range 30 {
				b := j.NewBatch()
				b.Ordered(func(b *Batch) {
					next++
					b.Set(fmt.Appendf(nil, "t%04d", next), nil)
				})
				if i%3 == 0 {
					b.Discard()
					continue
				}
				if err := j.Commit(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := contents(t, j, "t")
	for i := 1; i <= 400; i++ {
		if _, ok := got[fmt.Sprintf("t%04d", i)]; !ok {
			t.Fatalf("number %d is missing", i)
		}
	}
	if len(got) != 400 {
		t.Errorf("%d numbers", len(got))
	}
}

func TestALazyBatchIsDurableWithTheNextSyncedOne(t *testing.T) {
	j := open(t, Config{})
	var done []string
	lazy := j.NewBatch()
	lazy.Set([]byte("ta"), nil)
	lazy.OnDurable(func() { done = append(done, "lazy") })
	if err := j.CommitLazy(lazy); err != nil {
		t.Fatal(err)
	}
	if len(done) != 0 {
		t.Fatal("the lazy batch was called durable before any sync")
	}
	synced := j.NewBatch()
	synced.Set([]byte("tb"), nil)
	synced.OnDurable(func() { done = append(done, "synced") })
	if err := j.Commit(synced); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"synced", "lazy"}, done); diff != "" {
		t.Error(diff)
	}
}

func TestASyncedBatchWithoutChangesMakesLazyOnesDurableToo(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	for i := range 20 {
		lazy := j.NewBatch()
		lazy.Set(fmt.Appendf(nil, "t%d", i), []byte("x"))
		if err := j.CommitLazy(lazy); err != nil {
			t.Fatal(err)
		}
		if err := j.Commit(j.NewBatch()); err != nil {
			t.Fatal(err)
		}
		j.Fail(errors.New("crash")) // no file changes any more
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = open(t, Config{Dir: dir})
		if n := len(contents(t, j, "t")); n != i+1 {
			t.Fatalf("%d of %d lazy batches survived", n, i+1)
		}
	}
}
