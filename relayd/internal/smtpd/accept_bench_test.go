package smtpd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/maillog"
	"activerelay/relayd/internal/scan"
	"activerelay/relayd/internal/spool"
)

// BenchmarkAccept is the price of a message from the first command to the 250, with everything that an edge has around it: policy,
// quota, journal, spool, outbox, mail log and figures, and a client that costs little. On a busy machine compare the processor time
// and the allocations: of those the client has a part that never changes.
//
// Twenty sessions share the syncs of the disk, as they do on an edge.
func BenchmarkAccept(b *testing.B) {
	const sessions = 20
	for _, size := range []int{5 << 10, 50 << 10} {
		for _, keep := range []bool{true, false} {
			name := fmt.Sprintf("%dKiB/connection-each", size>>10)
			if keep {
				name = fmt.Sprintf("%dKiB/connection-kept", size>>10)
			}
			b.Run(name, func(b *testing.B) {
				e := startBenchEdge(b)
				letter := letterOf(size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				var syncs atomic.Int64
				e.faults.Store(func(op, _ string) error {
					if op == "sync" {
						syncs.Add(1)
					}
					return nil
				})
				before := processorTime()
				b.ResetTimer()
				var senders sync.WaitGroup
				for i := range sessions {
					senders.Go(func() {
						s := benchSender{b: b, address: e.address, letter: letter, keep: keep}
						for range (b.N + i) / sessions {
							s.send()
						}
						s.close()
					})
				}
				senders.Wait()
				b.StopTimer()
				b.ReportMetric(float64(syncs.Load())/float64(b.N), "syncs/op")
				b.ReportMetric(float64((processorTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

func startBenchEdge(b *testing.B) *edge {
	e := startEdge(b, func(o *setup) {
		o.scanner = scan.Chain{}
		o.world.settings(func(s *api.Settings) { s.AllowUnscanned = true })
		o.limits.ConnectionsPerIP = 1000
	})
	e.bank.setLimit("ok.test", 1<<40)
	e.server.mailLog, e.server.Enqueue = maillog.New(maillog.Config{Out: io.Discard}), func(*spool.Message) {}
	return e
}

// letterOf is a message with the header that mail programs write, ready for the wire.
func letterOf(size int) string {
	head := "Received: from pc.ok.test ([192.0.2.77])\r\n\tby mail.ok.test with ESMTP id 4F2B1C9A\r\n\tfor <carl@sink.test>; Sun, 22 Nov 2026 12:00:00 +0000\r\n" +
		"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nFrom: Anna Example <anna@ok.test>\r\nTo: Carl <carl@sink.test>\r\n" +
		"Message-ID: <20261122120000.4F2B1C9A@mail.ok.test>\r\nSubject: The minutes of our last meeting\r\nMIME-Version: 1.0\r\n" +
		"User-Agent: Example Mail 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
	line := strings.Repeat("abcdefghi ", 7) + "\r\n"
	return head + strings.Repeat(line, (size-len(head))/len(line)) + ".\r\n"
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchSender is a client that pipelines and only counts replies.
type benchSender struct {
	b       *testing.B
	address string
	letter  string
	keep    bool
	conn    net.Conn
	in      *bufio.Reader
}

func (s *benchSender) send() {
	if s.conn == nil {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			s.b.Error(err)
			return
		}
		s.conn, s.in = conn, bufio.NewReader(conn)
		s.say("", 1)
		s.say("EHLO mail.ok.test\r\n", 1)
	}
	s.say("MAIL FROM:<anna@ok.test> SIZE=50000\r\nRCPT TO:<carl@sink.test>\r\nDATA\r\n", 3)
	s.say(s.letter, 1)
	if !s.keep {
		s.close()
	}
}

func (s *benchSender) close() {
	if s.conn == nil {
		return
	}
	s.say("QUIT\r\n", 1)
	s.conn.Close()
	s.conn = nil
}

func (s *benchSender) say(text string, replies int) {
	if _, err := io.WriteString(s.conn, text); err != nil {
		s.b.Error(err)
		return
	}
	for replies > 0 {
		line, err := s.in.ReadSlice('\n')
		if err != nil || line[0] > '3' {
			s.b.Errorf("%q, %v", line, err)
			return
		}
		if line[3] == ' ' {
			replies--
		}
	}
}
