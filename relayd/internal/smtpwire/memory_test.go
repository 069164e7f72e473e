package smtpwire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// sink takes every message as it lies in the buffer, as the sessions of an edge do.
type sink struct{ discard }

func (sink) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// keeper remembers what a listener accepted.
type keeper struct {
	net.Listener
	mu       sync.Mutex
	accepted []*net.TCPConn
}

func (k *keeper) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if err == nil {
		k.mu.Lock()
		k.accepted = append(k.accepted, conn.(*net.TCPConn))
		k.mu.Unlock()
	}
	return conn, err
}

// drained waits until the server has read everything that was sent to it.
func (k *keeper) drained(tb testing.TB) {
	tb.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, conn := range k.accepted {
		raw, err := conn.SyscallConn()
		if err != nil {
			tb.Fatal(err)
		}
		for began, left := time.Now(), true; left; runtime.Gosched() {
			err := raw.Control(func(fd uintptr) { // Read would wait for the server's
				n, _, _ := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
				left = n > 0
			})
			if errors.Is(err, net.ErrClosed) {
				break // it has read all that it wanted
			}
			if err != nil || time.Since(began) > 30*time.Second {
				tb.Fatalf("the server does not read: %v", err)
			}
		}
	}
}

// The figures of the package doc: what a connection costs while its client is waited for, with what the test's side of it takes.
// Whoever holds very many of them, slow or silent, costs as much as idle ones.
func TestAConnectionThatWaitsCostsFewKilobytes(t *testing.T) {
	const connections, plain, secure = 100, 24 << 10, 60 << 10 // the race detector makes stacks large: without it 11 and 36
	hello := "EHLO c.test\r\n"
	open := "MAIL FROM:<a@ok.test>\r\nRCPT TO:<b@ok.test>\r\nDATA\r\n"
	full := strings.Repeat("NOOP\r\n", smallBuffer/6-1)
	full += "NOOP" + strings.Repeat("x", smallBuffer-len(full)-6) + "\r\n"
	for _, test := range []struct {
		name    string
		say     []string // at once, after each other
		replies []int    // to each
		most    int64
		tls     bool
	}{
		{name: "after the greeting", most: plain},
		{name: "between two messages", say: []string{hello, open, content(50 << 10)}, replies: []int{1, 3, 1}, most: plain},
		{name: "within a command", say: []string{hello, "MAI"}, replies: []int{1, 0}, most: plain},
		{name: "within a long command", say: []string{hello, "NOOP " + strings.Repeat("x", 3000)}, replies: []int{1, 0}, most: plain + 3<<10},
		{name: "after a full buffer", say: []string{hello, full}, replies: []int{1, smallBuffer / 6}, most: plain},
		{name: "before a message", say: []string{hello, open}, replies: []int{1, 3}, most: plain},
		{name: "within a message", say: []string{hello, open, strings.TrimSuffix(content(50<<10), "\n.\r\n")}, replies: []int{1, 3, 0}, most: plain},
		{name: "between two messages with TLS", tls: true, say: []string{hello, open, content(5 << 10)}, replies: []int{1, 3, 1}, most: secure},
		{name: "within a message with TLS", tls: true, say: []string{hello, open, strings.TrimSuffix(content(5<<10), "\n.\r\n")}, replies: []int{1, 3, 0}, most: secure},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, trust := certificate(t)
			s, err := NewServer(forPeer(func(Peer) (smtp.Session, error) { return sink{}, nil }), Config{Hostname: "mx.test", RefuseEarlyTalkers: true})
			if err != nil {
				t.Fatal(err)
			}
			var all *keeper
			address := listen(t, s, func(l net.Listener) net.Listener {
				all = &keeper{Listener: l}
				if test.tls {
					return tls.NewListener(all, server)
				}
				return all
			})
			before := held()
			clients := make([]net.Conn, connections)
			for i := range clients {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if test.tls {
					conn = tls.Client(conn, trust)
				}
				clients[i] = conn
				talk(t, conn, "", 1)
				for i, text := range test.say {
					talk(t, conn, text, test.replies[i])
				}
			}
			all.drained(t)
			each := (held() - before) / connections
			t.Logf("%d bytes each", each)
			if each > test.most {
				t.Errorf("a connection costs %d bytes, want at most %d", each, test.most)
			}
			runtime.KeepAlive(clients)
		})
	}
}

// talk says something and reads so many replies, keeping no memory.
func talk(tb testing.TB, conn net.Conn, text string, replies int) {
	tb.Helper()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // the read fails
	if _, err := io.WriteString(conn, text); err != nil {
		tb.Fatal(err)
	}
	in := make([]byte, 4<<10)
	for n := 0; replies > 0; {
		got, err := conn.Read(in[n:])
		if err != nil {
			tb.Fatalf("%v after %q", err, in[:n])
		}
		n += got
		for end := bytes.IndexByte(in[:n], '\n') + 1; end > 0; end = bytes.IndexByte(in[:n], '\n') + 1 {
			if in[3] == ' ' {
				replies--
			}
			n = copy(in, in[end:n])
		}
	}
}

// held is what the program holds of memory, without garbage.
func held() int64 {
	for range 3 { // pools are emptied by the second, and each halves a stack that has room to spare
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Under stress all idle connections end in the same moment, each of which stays open a little for its last reply.
func TestALastReplyNeedsNoBigBuffer(t *testing.T) {
	made := 0
	s := newServer(t, &diary{}, func(c *Config) { c.Limits.CommandIdle = time.Millisecond })
	s.buffers.New = func() any { made++; return new([bigBuffer]byte) }
	address := listen(t, s, nil)
	c := connect(t, address)
	if got := c.rest(); !strings.Contains(got, "421 4.4.2") {
		t.Errorf("the client heard %q", got)
	}
	c.send("still here") // which the server reads before it closes
	c.conn.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if made > 0 {
		t.Errorf("%d big buffers were made", made)
	}
}
