package smtpwire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// discard takes every message and keeps nothing.
type discard struct{}

func (discard) Reset()                               {}
func (discard) Logout() error                        { return nil }
func (discard) Mail(string, *smtp.MailOptions) error { return nil }
func (discard) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (discard) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{r})
	return err
}
func newDiscard(Peer) (smtp.Session, error) { return discard{}, nil }
func (discard) AuthMechanisms() []string    { return nil }
func content(size int) string {
	return strings.Repeat(strings.Repeat("a", 70)+"\r\n", size/72) + ".\r\n"
}

func oursDiscarding(b *testing.B) engine {
	s, err := NewServer(forPeer(newDiscard), Config{Hostname: "mx.test"})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func stockDiscarding(*testing.B) engine {
	s := smtp.NewServer(onStock(newDiscard))
	s.Domain = "mx.test"
	s.ReadTimeout, s.WriteTimeout = 5*time.Minute, 2*time.Minute
	s.ErrorLog = quiet{}
	return s
}

// BenchmarkEngines sends each message to both engines in turn, so that noise of
// the machine strikes both, and reports the ratio of the time they take,
// client included.
func BenchmarkEngines(b *testing.B) {
	for _, size := range []int{5 << 10, 50 << 10} {
		for _, keep := range []bool{true, false} {
			name := fmt.Sprintf("%dKiB/connection-each", size>>10)
			if keep {
				name = fmt.Sprintf("%dKiB/connection-kept", size>>10)
			}
			b.Run(name, func(b *testing.B) { compare(b, content(size), keep) })
		}
	}
}

func compare(b *testing.B, body string, keep bool) {
	mine := &sender{b: b, address: listen(b, oursDiscarding(b), nil), body: body, keep: keep}
	other := &sender{b: b, address: listen(b, stockDiscarding(b), nil), body: body, keep: keep}
	var ourTime, theirTime time.Duration
	b.ReportAllocs()
	for b.Loop() {
		ourTime += mine.timed()
		theirTime += other.timed()
	}
	b.ReportMetric(float64(ourTime.Nanoseconds())/float64(b.N), "ns/smtpwire")
	b.ReportMetric(float64(theirTime.Nanoseconds())/float64(b.N), "ns/go-smtp")
	b.ReportMetric(float64(theirTime)/float64(ourTime), "times-faster")
}

// sender is a client that costs little: it pipelines and counts replies.
type sender struct {
	b       *testing.B
	address string
	body    string
	keep    bool
	conn    net.Conn
	in      *bufio.Reader
}

func (s *sender) timed() time.Duration {
	began := time.Now()
	if s.conn == nil {
		s.open()
	}
	s.say("MAIL FROM:<a@ok.test>\r\nRCPT TO:<b@ok.test>\r\nDATA\r\n", 3)
	s.say(s.body, 1)
	if !s.keep {
		s.say("QUIT\r\n", 1)
		s.conn.Close()
		s.conn = nil
	}
	return time.Since(began)
}

func (s *sender) open() {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		s.b.Fatal(err)
	}
	s.b.Cleanup(func() { conn.Close() })
	s.conn, s.in = conn, bufio.NewReader(conn)
	s.say("", 1)
	s.say("EHLO c.test\r\n", 1)
}

func (s *sender) say(text string, replies int) {
	if _, err := io.WriteString(s.conn, text); err != nil {
		s.b.Fatal(err)
	}
	for replies > 0 {
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			s.b.Fatal(err)
		}
		if line[3] == ' ' {
			replies--
		}
		if line[0] > '3' {
			s.b.Fatalf("%q", line)
		}
	}
}

// BenchmarkBody measures the reader alone, on one core.
func BenchmarkBody(b *testing.B) {
	body := content(50 << 10)
	s := oursDiscarding(b).(*Server)
	b.SetBytes(int64(len(body)))
	p := make([]byte, 32<<10)
	for b.Loop() {
		c := newConn(s, &script{chunks: [][]byte{[]byte(body)}})
		c.body = &Body{conn: c, lineStart: true, began: time.Now()}
		for {
			if _, err := c.body.Read(p); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		c.cancel()
		c.release()
	}
}

// BenchmarkIdle measures what a connection costs the server's side while its
// client is silent after a message; the client's side is small and the same for
// both.
func BenchmarkIdle(b *testing.B) {
	for name, build := range map[string]func(*testing.B) engine{"smtpwire": oursDiscarding, "go-smtp": stockDiscarding} {
		b.Run(name, func(b *testing.B) {
			address, body := listen(b, build(b), nil), content(5<<10)
			const connections = 300
			var perConnection float64
			for b.Loop() {
				before := inUse()
				open := make([]*sender, connections)
				for i := range open {
					open[i] = &sender{b: b, address: address, body: body, keep: true}
					open[i].timed()
					open[i].in = nil
				}
				perConnection = float64(inUse()-before) / connections
				for _, s := range open {
					s.conn.Close()
				}
			}
			b.ReportMetric(perConnection, "bytes/connection")
		})
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC() // pools are emptied by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
