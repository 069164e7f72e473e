package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkCommit stores messages of 5 KiB from many writers, and beside it,
// alternating with it in the same run, a bare loop of one write and one
// fdatasync for each message by one writer: what the disk gives a journal that
// does not share its syncs. "x_bare" is the ratio of the two rates.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 20, 100} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			var ours, bare time.Duration
			oursN, bareN := 0, 0
			j := open(b, Config{Dir: b.TempDir()})
			log := newBareLog(b)
			for oursN < b.N {
				n := min(4000, b.N-oursN)
				ours += commitMany(b, j, oursN, n, writers)
				oursN += n
				m := max(n/10, 1)
				bare += log.appendMany(b, m)
				bareN += m
			}
			rate := float64(oursN) / ours.Seconds()
			bareRate := float64(bareN) / bare.Seconds()
			b.ReportMetric(rate, "msg/s")
			b.ReportMetric(bareRate, "bare/s")
			b.ReportMetric(rate/bareRate, "x_bare")
			b.ReportMetric(0, "ns/op") // mixes the two
		})
	}
}

// commitMany stores n messages and, as the queue does, lazily removes each.
func commitMany(b *testing.B, j *Journal, first, n, writers int) time.Duration {
	b.Helper()
	body := make([]byte, 5<<10)
	began := time.Now()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := first + w; i < first+n; i += writers {
				key := fmt.Appendf(nil, "t%010d", i)
				store := j.NewBatch()
				store.Set(key, body)
				if err := j.Commit(store); err != nil {
					b.Error(err)
					return
				}
				remove := j.NewBatch()
				remove.Delete(key)
				if err := j.CommitLazy(remove); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

// bareLog is a growing file.
type bareLog struct{ f *os.File }

func newBareLog(b *testing.B) bareLog {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return bareLog{f}
}

func (l bareLog) appendMany(b *testing.B, n int) time.Duration {
	b.Helper()
	body := make([]byte, 5<<10)
	began := time.Now()
	for range n {
		if _, err := l.f.Write(body); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(l.f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}
