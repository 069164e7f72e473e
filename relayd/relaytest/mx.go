package relaytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// Message is one message that an MX took.
type Message struct {
	// Connection says which connection brought it, counted from 1.
	Connection int
	// From is the path of MAIL without brackets; FromParams what followed it.
	From, FromParams string
	Recipients       []Recipient
	// Body is the message with dot-stuffing undone.
	Body []byte
	// Wire is the message as it came, with dot-stuffing, without the final dot.
	Wire []byte
	// TLS says that the channel was encrypted.
	TLS bool
	// User is the login, empty without AUTH.
	User string
	// Helo is the name that the client gave, Client the address that it came
	// from.
	Helo   string
	Client netip.Addr
}

// Recipient is one accepted RCPT.
type Recipient struct {
	Address, Params string
}

// Addresses returns the recipients' addresses.
func (m Message) Addresses() []string {
	var out []string
	for _, r := range m.Recipients {
		out = append(out, r.Address)
	}
	return out
}

// MX is a scripted mail server.
type MX struct {
	script   Script
	listener net.Listener
	done     chan struct{}
	wait     sync.WaitGroup

	mu          sync.Mutex
	changed     chan struct{} // closed and replaced at every change
	messages    []Message
	commands    []string
	connections int
	plain       int
	open        map[net.Conn]struct{}
	closed      bool
}

// StartMX starts a server and stops it when the test ends.
func StartMX(t testing.TB, script Script) *MX {
	t.Helper()
	if script.Listen == "" {
		script.Listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", script.Listen)
	if err != nil {
		t.Fatalf("relaytest: listening for an MX: %v", err)
	}
	mx := &MX{
		script: script, listener: listener, done: make(chan struct{}),
		changed: make(chan struct{}), open: make(map[net.Conn]struct{}),
	}
	mx.wait.Add(1)
	go mx.accept()
	t.Cleanup(mx.Close)
	return mx
}

// Addr returns where the server listens.
func (mx *MX) Addr() netip.AddrPort {
	return mx.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Port returns the server's port.
func (mx *MX) Port() uint16 { return mx.Addr().Port() }

// Messages returns what has been taken so far, oldest first.
func (mx *MX) Messages() []Message {
	mx.mu.Lock()
	defer mx.mu.Unlock()
	return slices.Clone(mx.messages)
}

// Commands returns every command line of every connection, in the order in
// which they were read.
func (mx *MX) Commands() []string {
	mx.mu.Lock()
	defer mx.mu.Unlock()
	return slices.Clone(mx.commands)
}

// Connections returns how many connections have been accepted.
func (mx *MX) Connections() int {
	mx.mu.Lock()
	defer mx.mu.Unlock()
	return mx.connections
}

// PlainTextMail returns how many bytes of mail, envelope commands included,
// have come over channels that were not encrypted.
func (mx *MX) PlainTextMail() int {
	mx.mu.Lock()
	defer mx.mu.Unlock()
	return mx.plain
}

// WaitMessages returns as soon as n messages have been taken, with all of
// them, or fails the test when ctx ends before.
func (mx *MX) WaitMessages(ctx context.Context, t testing.TB, n int) []Message {
	t.Helper()
	for {
		mx.mu.Lock()
		got, changed := slices.Clone(mx.messages), mx.changed
		mx.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("relaytest: MX took %d messages, want %d: %v", len(got), n, ctx.Err())
		}
	}
}

// Close stops the server and all its connections. It may be called twice.
func (mx *MX) Close() {
	mx.mu.Lock()
	if mx.closed {
		mx.mu.Unlock()
		return
	}
	mx.closed = true
	close(mx.done)
	_ = mx.listener.Close()
	for c := range mx.open {
		_ = c.Close()
	}
	mx.mu.Unlock()
	mx.wait.Wait()
}

// accept runs until the listener closes.
func (mx *MX) accept() {
	defer mx.wait.Done()
	for {
		conn, err := mx.listener.Accept()
		if err != nil {
			return
		}
		number, ok := mx.register(conn)
		if !ok {
			_ = conn.Close()
			return
		}
		mx.wait.Add(1)
		go func() {
			defer mx.wait.Done()
			defer mx.forget(conn)
			mx.serve(conn, number)
		}()
	}
}

func (mx *MX) register(conn net.Conn) (number int, ok bool) {
	mx.mu.Lock()
	defer mx.mu.Unlock()
	if mx.closed {
		return 0, false
	}
	mx.connections++
	mx.open[conn] = struct{}{}
	return mx.connections, true
}

func (mx *MX) forget(conn net.Conn) {
	_ = conn.Close()
	mx.mu.Lock()
	defer mx.mu.Unlock()
	delete(mx.open, conn)
}

// serve holds one conversation.
func (mx *MX) serve(conn net.Conn, number int) {
	s := &session{mx: mx, raw: conn, number: number}
	s.use(conn)
	if mx.script.ImplicitTLS {
		if err := s.startTLS(); err != nil {
			return
		}
	}
	s.run()
}

func (mx *MX) record(change func()) {
	mx.mu.Lock()
	defer mx.mu.Unlock()
	change()
	close(mx.changed)
	mx.changed = make(chan struct{})
}

// session is one connection's state.
type session struct {
	mx     *MX
	raw    net.Conn
	conn   net.Conn
	in     *bufio.Reader
	number int

	helo, user string
	tls        bool
	mail       *Message
}

func (s *session) use(conn net.Conn) {
	s.conn, s.in = conn, bufio.NewReader(conn)
}

func (s *session) startTLS() error {
	if s.mx.script.TLS == nil {
		return fmt.Errorf("relaytest: no TLS configuration")
	}
	conn := tls.Server(s.conn, s.mx.script.TLS)
	if err := conn.Handshake(); err != nil {
		return err
	}
	s.tls = true
	s.use(conn)
	return nil
}
