package journal

import (
	"fmt"
	"math/rand"
	"testing"
)

// Events are kept for a day, mail is gone within a second. What passes must not make the engine write again and again what is
// kept: after a hundred thousand messages that takes as much CPU as all else.
func TestWhatIsKeptIsNotRewrittenForWhatPasses(t *testing.T) {
	const messages, underWay = 30_000, 40
	j := open(t, Config{Dir: t.TempDir()})
	body := make([]byte, 5<<10)
	rand.New(rand.NewSource(1)).Read(body)
	for n := range messages {
		b := j.NewBatch()
		b.Set(fmt.Appendf(nil, "se%026d", n), body[:150])
		b.Set(fmt.Appendf(nil, "sb%026d", n), body)
		b.Set(fmt.Appendf(nil, "oe%016d", 2*n), body[n%1000:n%1000+350])
		b.Set([]byte("lsexample.com"), body[:60])
		if n >= underWay {
			b.Delete(fmt.Appendf(nil, "se%026d", n-underWay))
			b.DeleteOnce(fmt.Appendf(nil, "sb%026d", n-underWay))
			b.Set(fmt.Appendf(nil, "oe%016d", 2*n+1), body[n%1000:n%1000+350])
		}
		if err := j.CommitLazy(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.db.Flush(); err != nil {
		t.Fatal(err)
	}
	var flushed, compacted uint64
	for _, level := range j.db.Metrics().Levels {
		flushed += level.TableBytesFlushed
		compacted += level.TableBytesCompacted
	}
	t.Logf("%d KiB written to tables by flushes, %d KiB by compactions", flushed>>10, compacted>>10)
	if compacted > flushed/2 {
		t.Errorf("compactions wrote %d KiB for %d KiB that were flushed", compacted>>10, flushed>>10)
	}
}
