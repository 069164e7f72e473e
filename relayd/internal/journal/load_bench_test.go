package journal

import (
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkLoad is what a relay under load asks of its journal for one message
// of 5 KiB: a synced batch with envelope, body, event and a changed counter; a
// while of work on other things; then, as the message is delivered, an attempt
// noted, the body read, and a batch with its end and another event.
// "cpu-us/msg" is all CPU of the process without that work, "syncs/msg" the
// syncs of the log.
func BenchmarkLoad(b *testing.B) {
	for _, sessions := range []int{1, 20, 100} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			var syncs atomic.Int64
			j := open(b, Config{Dir: b.TempDir(), Faults: func(op, path string) error {
				if op == "sync" && isLog(path) {
					syncs.Add(1)
				}
				return nil
			}})
			var next atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			before, began := cpuTime(b), time.Now()
			var all sync.WaitGroup
			for range sessions {
				all.Go(func() {
					s := session{j: j, body: make([]byte, 5<<10)}
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if err := s.message(n); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			per := func(v float64) float64 { return v / float64(b.N) }
			b.ReportMetric(per(float64(cpuTime(b)-before)/1e3), "cpu-us/msg")
			b.ReportMetric(per(float64(syncs.Load())), "syncs/msg")
			b.ReportMetric(per(float64(time.Since(began))/1e3)*float64(sessions), "latency-us")
		})
	}
}

type session struct {
	j    *Journal
	body []byte
}

func (s *session) message(n int64) error {
	envelope, body := fmt.Appendf(nil, "se%026d", n), fmt.Appendf(nil, "sb%026d", n)
	work(s.body)
	b := s.j.NewBatch()
	b.Set(envelope, s.body[:150])
	b.Set(body, s.body)
	b.Ordered(func(b *Batch) {
		b.Set(fmt.Appendf(nil, "oe%016d", 2*n), s.body[:350])
		b.Set([]byte("lexample.com"), s.body[:60])
	})
	if err := s.j.Commit(b); err != nil {
		return err
	}
	b = s.j.NewBatch()
	b.Append(envelope, s.body[:16])
	if err := s.j.CommitLazy(b); err != nil {
		return err
	}
	if _, err := s.j.Get(body); err != nil {
		return err
	}
	work(s.body)
	b = s.j.NewBatch()
	b.Delete(envelope)
	b.Delete(body)
	b.Set(fmt.Appendf(nil, "oe%016d", 2*n+1), s.body[:350])
	if n%500 == 0 { // the control plane has what is older
		b.DeleteRange([]byte("oe"), fmt.Appendf(nil, "oe%016d", max(0, 2*(n-1000))))
	}
	return s.j.CommitLazy(b)
}

// work stands for what the rest of the relay does meanwhile.
func work(text []byte) {
	sum := uint32(0)
	for range 40 {
		sum = crc32.Update(sum, crc32.IEEETable, text)
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
