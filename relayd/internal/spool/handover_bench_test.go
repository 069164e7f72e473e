package spool_test

import (
	"errors"
	"fmt"
	"testing"

	"activerelay/relayd/internal/spool"
)

// BenchmarkAMessageIsStoredReadAndRemoved is what the spool costs for a message
// that is delivered at once, twenty at a time.
func BenchmarkAMessageIsStoredReadAndRemoved(b *testing.B) {
	const together = 20
	fields := make([]byte, 700)
	for _, size := range []int{5 << 10, 50 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := open(b, b.TempDir(), nil)
			defer s.close(b)
			content, ids, writers := text("bench", size), make([]string, together), make([]*spool.Writer, together)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			b.ResetTimer()
			for done := 0; done < b.N; done += together {
				batch := s.journal.NewBatch()
				for i := range ids {
					m := envelope(newID(b))
					w, err := s.Create()
					if err != nil {
						b.Fatal(err)
					}
					_, err = w.Write(content)
					w.Prepend(fields)
					if err := errors.Join(err, s.Stage(batch, m, w)); err != nil {
						b.Fatal(err)
					}
					ids[i], writers[i] = m.ID, w
				}
				if err := s.journal.Commit(batch); err != nil {
					b.Fatal(err)
				}
				batch = s.journal.NewBatch()
				for i, id := range ids {
					body, err := s.Body(id)
					if err != nil {
						b.Fatal(err)
					}
					if len(body.Bytes()) != size+len(fields) {
						b.Fatalf("%d bytes", len(body.Bytes()))
					}
					s.Remove(batch, id)
					if err := errors.Join(body.Close(), writers[i].Discard()); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.journal.CommitLazy(batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
