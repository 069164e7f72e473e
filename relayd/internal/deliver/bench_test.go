package deliver_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/internal/deliver"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/relaytest"
)

// BenchmarkAttempt is one message over a connection that is kept, to a server
// on the same machine that does as little as a server can.
func BenchmarkAttempt(b *testing.B) {
	conf, roots := relaytest.Certificate(b, time.Hour, "127.0.0.1")
	for _, size := range []int{5 << 10, 50 << 10} {
		for _, rule := range []queue.TLSRule{queue.TLSNone, queue.TLSImplicit} {
			name := map[queue.TLSRule]string{queue.TLSNone: "plain", queue.TLSImplicit: "TLS"}[rule]
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, name), func(b *testing.B) {
				s, err := deliver.New(deliver.Config{Hostname: "edge1.relay.test", AllowTargetNetworks: loopback, RootCAs: roots})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				route := queue.Route{Host: "127.0.0.1", TLS: rule}
				if rule == queue.TLSImplicit {
					route.Port = quietServer(b, conf)
				} else {
					route.Port = quietServer(b, nil)
				}
				text := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72))
				job := jobByMX("", "b@y.test")
				job.Route, job.SizeBytes = route, int64(len(text))
				job.Open = func() (io.ReadCloser, error) { return &stored{bytes.NewReader(text), text}, nil }
				b.SetBytes(job.SizeBytes)
				b.ReportAllocs()
				for b.Loop() {
					if got := s.Attempt(b.Context(), job); got[0].Class != queue.Delivered {
						b.Fatal(briefs(got))
					}
				}
			})
		}
	}
}

// stored is a message as the spool gives it.
type stored struct {
	*bytes.Reader
	text []byte
}

func (s *stored) Bytes() []byte { return s.text }
func (*stored) Close() error    { return nil }

// quietServer takes everything, with TLS from the first byte when conf is
// given, and allocates nothing for a message. It returns its port.
func quietServer(b *testing.B, conf *tls.Config) uint16 {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	if conf != nil {
		listener = tls.NewListener(listener, conf)
	}
	b.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return port
}

func answer(c net.Conn) {
	defer c.Close()
	say := func(text string) { _, _ = io.WriteString(c, text) }
	say("220 quiet\r\n")
	buf, body := make([]byte, 64<<10), false
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		heard := buf[:n]
		switch {
		case body && bytes.HasSuffix(heard, []byte("\r\n.\r\n")):
			say("250 2.0.0 Ok: queued as 3f2504e04f8911d3\r\n")
			body, n = false, 0
		case body:
			n = copy(buf, heard[max(0, n-5):])
		case bytes.HasPrefix(heard, []byte("EHLO")):
			say("250-quiet\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250 8BITMIME\r\n")
			n = 0
		case bytes.HasSuffix(heard, []byte("\r\nDATA\r\n")):
			say("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go on\r\n")
			body, n = true, 0
		case bytes.HasPrefix(heard, []byte("QUIT")):
			return
		}
	}
}
