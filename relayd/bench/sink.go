package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// Sink is an SMTP server that accepts every message and keeps none. Its counts may be read at any time.
type Sink struct {
	listener net.Listener
	received func(id string)
	messages atomic.Int64
	bytes    atomic.Int64

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	served sync.WaitGroup
}

// NewSink serves the listener until Close. received, if set, is told the X-Load-Id of each message before it is
// acknowledged; a message without one is told as "". It is called from many goroutines.
func NewSink(listener net.Listener, received func(id string)) *Sink {
	s := &Sink{listener: listener, received: received, conns: map[net.Conn]struct{}{}}
	s.served.Go(s.accept)
	return s
}

// Addr is where the sink listens.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Messages is how many messages were acknowledged.
func (s *Sink) Messages() int64 { return s.messages.Load() }

// Bytes is how many bytes of content they had.
func (s *Sink) Bytes() int64 { return s.bytes.Load() }

// Close ends every connection and waits for them; it may be called twice.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.served.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.track(c) {
			c.Close()
			return
		}
		s.served.Go(func() { s.serve(c) })
	}
}

func (s *Sink) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Sink) serve(c net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		c.Close()
	}()
	in := bufio.NewReaderSize(c, 32<<10)
	out := bufio.NewWriter(c)
	say := func(line string) {
		out.WriteString(line)
		out.WriteString("\r\n")
	}
	say("220 sink.example ESMTP")
	for {
		// Replies to pipelined commands leave together (RFC 2920 3.2).
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-sink.example")
			say("250-PIPELINING")
			say("250-SIZE 104857600")
			say("250 8BITMIME")
		case "DATA":
			say("354 go on")
			if out.Flush() != nil {
				return
			}
			id, size, err := readMessage(in)
			if err != nil {
				return
			}
			if s.received != nil {
				s.received(id)
			}
			s.messages.Add(1)
			s.bytes.Add(size)
			say(fmt.Sprintf("250 2.0.0 Ok: message %d", s.messages.Load()))
		case "QUIT":
			say("221 2.0.0 bye")
			_ = out.Flush()
			return
		default:
			say("250 2.0.0 Ok")
		}
	}
}

// readMessage reads up to the dot and answers the X-Load-Id of the header.
func readMessage(in *bufio.Reader) (id string, size int64, err error) {
	header := true
	lineStart := true
	for {
		chunk, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", 0, err
		}
		if lineStart {
			if bytes.Equal(chunk, []byte(".\r\n")) {
				return id, size, nil
			}
			if len(chunk) <= 2 {
				header = false
			}
			if header && len(chunk) > 11 && bytes.EqualFold(chunk[:11], []byte("X-Load-Id: ")) {
				id = strings.TrimSpace(string(chunk[11:]))
			}
		}
		size += int64(len(chunk))
		lineStart = err == nil
	}
}
