package journal

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"activerelay/relayd/relaytest"
)

// childDir tells the re-executed test binary to be the victim.
const childDir = "JOURNAL_TEST_CHILD_DIR"

// child commits batches from several goroutines until it is killed and prints
// the number of each batch after its acknowledgement.
func child(dir string) int {
	j, err := Open(Config{Dir: dir, MemtableBytes: 512 << 10})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	round := os.Getpid()
	var out sync.Mutex
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d.%d.%d", round, w, i)
				b := j.NewBatch()
				for part := range 3 {
					b.Set(fmt.Appendf(nil, "t%s/%d", name, part), victim(name, part))
				}
				if err := j.Commit(b); err != nil {
					return
				}
				out.Lock()
				fmt.Println(name)
				out.Unlock()
			}
		})
	}
	all.Wait()
	return 1
}

// victim is the value of one part of a batch: its content proves its key.
func victim(name string, part int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", name, part))
	return bytes.Repeat(sum[:], 32+32*part)
}

func TestKillNineLosesAndTearsNothing(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]bool{}
	for round := range 12 {
		for _, name := range runVictim(t, dir, 50+rand.IntN(1500)) {
			acked[name] = true
		}
		checkVictims(t, dir, round, acked)
	}
	t.Logf("%d batches acknowledged over 12 kills", len(acked))
}

// runVictim starts a child, kills it once it has acknowledged n batches, and
// returns all that it did acknowledge.
func runVictim(t *testing.T, dir string, n int) (acked []string) {
	t.Helper()
	if !relaytest.RunVictim(t, []string{childDir + "=" + dir}, func(line string) bool {
		acked = append(acked, line)
		return len(acked) == n
	}) {
		t.Fatalf("the victim ended by itself after %d batches", len(acked))
	}
	return acked
}

func checkVictims(t *testing.T, dir string, round int, acked map[string]bool) {
	t.Helper()
	j, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	parts := map[string]int{}
	err = j.Scan([]byte("t"), func(key, value []byte) error {
		name, part, _ := strings.Cut(string(key[1:]), "/")
		n, err := strconv.Atoi(part)
		if err != nil || !bytes.Equal(value, victim(name, n)) {
			t.Errorf("round %d: %s holds a foreign value", round, key)
		}
		parts[name]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range parts {
		if n != 3 {
			t.Errorf("round %d: batch %s is torn: %d of 3", round, name, n)
		}
	}
	for name := range acked {
		if parts[name] == 0 {
			t.Errorf("round %d: batch %s was acknowledged and is lost", round, name)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, Config{Dir: dir})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("the second process opened the journal")
	}
	if want := fmt.Sprintf("journal is in use: %s is open in process %d", dir, os.Getpid()); !strings.Contains(string(out), want) {
		t.Errorf("got %q, want %q in it", out, want)
	}
}
