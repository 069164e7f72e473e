package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// families are prefixes of the edge's keys, whose tables lie in several levels here.
var families = []string{"se", "sb", "oe", "ls", "pd", "k1"}

// stockedFamilies is a closed journal that has all kinds of changes in tables of all
// families, in two levels, and every key that ever was in it.
func stockedFamilies(t *testing.T, c Config) (keys [][]byte) {
	t.Helper()
	j := open(t, c)
	rng := rand.New(rand.NewPCG(1, 1))
	value := make([]byte, 300)
	commit := func(fill func(b *Batch, key []byte, n int)) {
		for _, family := range families {
			b := j.NewBatch()
			for n := range 200 {
				for at := range value {
					value[at] = byte(rng.Uint32())
				}
				fill(b, fmt.Appendf(nil, "%s%04d", family, n), n)
			}
			if err := j.Commit(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	commit(func(b *Batch, key []byte, n int) {
		keys = append(keys, key)
		if n%3 > 0 {
			b.Set(key, value)
		}
	})
	if err := j.db.Compact(t.Context(), []byte("a"), []byte("z"), false); err != nil {
		t.Fatal(err)
	}
	commit(func(b *Batch, key []byte, n int) {
		switch {
		case n%3 == 0:
			b.Set(key, value)
		case n%6 == 1:
			b.Append(key, value[:20])
		case n%6 == 2:
			b.DeleteOnce(key)
		case n%6 == 4:
			b.Delete(key)
		}
	})
	for _, family := range families {
		b := j.NewBatch()
		b.Set([]byte(family+"0050"), []byte("newest"))
		b.Delete([]byte(family + "0051"))
		b.DeleteRange([]byte(family+"0150"), []byte(family+"0155"))
		if err := j.Commit(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	return keys
}

// answers is what a journal says of each key: its value, or why there is none.
func answers(t *testing.T, j *Journal, keys [][]byte) map[string]string {
	t.Helper()
	said := map[string]string{}
	for _, key := range keys {
		value, err := j.Get(key)
		switch {
		case err == nil:
			said[string(key)] = "=" + string(value)
		case errors.Is(err, ErrNotFound):
			said[string(key)] = "missing"
		case errors.Is(err, ErrCorrupt):
			said[string(key)] = "damaged"
		default:
			t.Fatal(err)
		}
	}
	return said
}

// compare holds what a healed journal says against what it said before.
func compare(t *testing.T, name string, before, after map[string]string) (damaged int) {
	t.Helper()
	for key, was := range before {
		if was == "damaged" {
			damaged++
		}
		// A key that was deleted after the damage may be unknown now, at worst.
		if is := after[key]; is != was && (was != "missing" || is != "damaged") {
			t.Errorf("%s: %s was %.20q and is %.20q", name, key, was, is)
		}
	}
	return damaged
}

// scanned are the keys that reading around damage finds, and how many places it leaves out.
func scanned(t *testing.T, j *Journal) (values map[string]string, gaps int) {
	t.Helper()
	values = map[string]string{}
	err := j.ScanAround([]byte("a"), []byte("z"), func(key, value []byte) error {
		values[string(key)] = "=" + string(value)
		return nil
	}, func(from, to []byte, _ error) error {
		if bytes.Compare(from, to) >= 0 {
			t.Errorf("a place from %q to %q", from, to)
		}
		gaps++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values, gaps
}

// logText is a log that the engine may write to at any time.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logText) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Wherever the bit is: the start after the one that met it cuts the table out, nothing that could be read is lost, nothing that was
// lost is taken for missing, nothing old comes back, and what is left can be compacted.
func TestRow6ADamagedTableIsCutOutAtTheNextStart(t *testing.T) {
	master := t.TempDir()
	keys := stockedFamilies(t, Config{Dir: master})
	sound := answers(t, open(t, Config{Dir: copyOf(t, master)}), keys)
	tables, err := filepath.Glob(filepath.Join(master, "*.sst"))
	if err != nil || len(tables) < 2*len(families) {
		t.Fatalf("tables %v: %v", tables, err)
	}
	healed := 0
	for n, table := range tables {
		if n%4 > 0 && os.Getenv("SOAK") == "" {
			continue // each look at damage takes the engine 10 ms
		}
		size := sizeOf(t, table)
		// In the first block, in a later one, in what tells where they are.
		for _, offset := range []int64{10, size / 2, size * 98 / 100}[n%3:][:1] {
			name := fmt.Sprintf("byte %d of %d of %s", offset, size, filepath.Base(table))
			dir := copyOf(t, master)
			flip(t, filepath.Join(dir, filepath.Base(table)), offset)
			if healsOnce(t, name, dir, keys, sound) {
				healed++
			}
		}
	}
	t.Logf("%d tables cut out", healed)
	if healed < 4 {
		t.Errorf("only %d: the test shows little", healed)
	}
}

// healsOnce opens a damaged journal three times, and reports whether the second time healed it.
func healsOnce(t *testing.T, name, dir string, keys [][]byte, sound map[string]string) bool {
	t.Helper()
	var text logText
	j := open(t, Config{Dir: dir, Log: text.logger(), unmerged: true})
	before := answers(t, j, keys)
	compare(t, name, sound, without(before, sound))
	if err := j.Close(); err != nil {
		t.Fatal(name, err)
	}
	j = open(t, Config{Dir: dir, Log: text.logger()})
	after := answers(t, j, keys)
	damaged := compare(t, name, before, after)
	found, left := scanned(t, j)
	for key, value := range found {
		if after[key] != value {
			t.Errorf("%s: a scan says %.20q of %s, Get %.20q", name, value, key, after[key])
		}
	}
	if (damaged > 0) != (left > 0) {
		t.Errorf("%s: %d keys are damaged, scans leave out %d places", name, damaged, left)
	}
	told := strings.Contains(text.String(), "the journal is healed")
	if told {
		if err := j.db.Compact(t.Context(), []byte("\x00"), []byte("\xff"), false); err != nil {
			t.Errorf("%s: tables cannot be merged: %v", name, err)
		}
	}
	compare(t, name, after, answers(t, j, keys))
	if err := errors.Join(set(j, "t", "more"), j.Close()); err != nil {
		t.Error(name, err)
	}
	if damaged > 0 && !told {
		t.Errorf("%s: not healed\n%s", name, &text)
	}
	var again logText
	j = open(t, Config{Dir: dir, Log: again.logger()})
	compare(t, name, after, answers(t, j, keys))
	if err := j.Close(); err != nil || again.String() != "" {
		t.Errorf("%s: the third start: %v\n%s", name, err, &again)
	}
	return told
}

// without is before with sound's answer where it says damaged.
func without(before, sound map[string]string) map[string]string {
	known := map[string]string{}
	for key, is := range before {
		if is == "damaged" {
			is = sound[key]
		}
		known[key] = is
	}
	return known
}

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// Two blocks are damaged, and what is between them is not.
func TestWhatIsBetweenTwoDamagedBlocksIsKept(t *testing.T) {
	master := t.TempDir()
	keys := stockedFamilies(t, Config{Dir: master})
	tables, err := filepath.Glob(filepath.Join(master, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	sound := answers(t, open(t, Config{Dir: copyOf(t, master)}), keys)
	for n, table := range tables {
		size := sizeOf(t, table)
		if size < 20<<10 || n%4 > 0 {
			continue
		}
		dir := copyOf(t, master)
		for _, offset := range []int64{5 << 10, 14 << 10} { // blocks of 4 KiB
			flip(t, filepath.Join(dir, filepath.Base(table)), offset)
		}
		healsOnce(t, filepath.Base(table), dir, keys, sound)
	}
}

// What is lost is known again once its owner has written or deleted it, and another heal of the same place keeps both apart.
func TestWhatIsLostIsUnknownUntilItsOwnerWritesOrDeletesIt(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	value := bytes.Repeat([]byte("0123456789abcdef"), 100)
	for n := range uint64(100) {
		b := j.NewBatch()
		b.Set(binary.BigEndian.AppendUint64([]byte("oe"), n), value)
		if err := j.CommitLazy(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	damageFamily(t, dir)
	j = meetAndHeal(t, dir)
	lost, err := j.firstLost([]byte("oe"), []byte("of"))
	if err != nil || lost == nil {
		t.Fatal(lost, err)
	}
	inside := append(bytes.Clone(lost.from), 'x')
	if _, err := j.Get(inside); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a lost key: %v", err)
	}
	if err := j.Scan([]byte("oe"), func(_, _ []byte) error { return nil }); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a scan over it: %v", err)
	}
	if err := set(j, string(inside), "new"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.db.Flush(), j.Close()); err != nil {
		t.Fatal(err)
	}
	damageFamily(t, dir) // elsewhere, since the tables were written anew
	j = meetAndHeal(t, dir)
	if got, err := j.Get(inside); string(got) != "new" {
		t.Errorf("after another heal: %q, %v", got, err)
	}
	if _, err := j.Get(append(bytes.Clone(inside), 'x')); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a lost key after another heal: %v", err)
	}
	b := j.NewBatch()
	b.DeleteRange([]byte("oe"), []byte("of"))
	if err := errors.Join(j.Commit(b), j.Close()); err != nil {
		t.Fatal(err)
	}
	j = open(t, Config{Dir: dir})
	if _, err := j.Get(inside); !errors.Is(err, ErrNotFound) || j.lost {
		t.Errorf("after all was deleted: %v, marks %v", err, j.lost)
	}
}

// damageFamily flips a bit in the middle of the largest table.
func damageFamily(t *testing.T, dir string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	largest := ""
	for _, table := range tables {
		if largest == "" || sizeOf(t, table) > sizeOf(t, largest) {
			largest = table
		}
	}
	flip(t, largest, sizeOf(t, largest)/2)
}

// meetAndHeal reads a damaged journal once, and opens it anew.
func meetAndHeal(t *testing.T, dir string) *Journal {
	t.Helper()
	j := open(t, Config{Dir: dir, unmerged: true})
	scanned(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var text logText
	j = open(t, Config{Dir: dir, Log: text.logger()})
	if !strings.Contains(text.String(), "the journal is healed") {
		t.Errorf("not healed:\n%s", &text)
	}
	return j
}
