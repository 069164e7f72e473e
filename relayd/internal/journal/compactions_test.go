package journal

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A compaction that meets a damaged table fails, and the engine would begin it again at once: a core busy for nothing, and a log
// full of it. What is written meanwhile is not held up.
func TestADamagedTableIsNotCompactedAgainAndAgain(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	for n := range 3 {
		fill(t, j, n)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) < 3 {
		t.Fatalf("tables %v: %v", tables, err)
	}
	for _, table := range tables {
		if content, err := os.ReadFile(table); err == nil && bytes.Contains(content, []byte("ta0")) {
			flip(t, table, 10)
		}
	}
	var text bytes.Buffer
	j = open(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&text, nil))})
	for n := range 100 {
		fill(t, j, n)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	failed := strings.Count(text.String(), "not merged")
	if failed == 0 || failed > 2 {
		t.Errorf("compactions failed %d times, want once or twice\n%s", failed, tail(text.String()))
	}
}

// fill writes keys of one family and makes a table of them.
func fill(t *testing.T, j *Journal, round int) {
	t.Helper()
	b := j.NewBatch()
	for i := range 10 {
		b.Set(fmt.Appendf(nil, "ta%d", i), fmt.Append(nil, round))
	}
	if err := j.Commit(b); err != nil {
		t.Fatal(err)
	}
	if err := j.db.Flush(); err != nil {
		t.Fatal(err)
	}
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
