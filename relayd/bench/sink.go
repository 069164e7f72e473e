package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// Sink is an SMTP server that accepts every message, and keeps none unless it is a mailbox. Its counts may be read at any
// time.
type Sink struct {
	listener net.Listener
	received func(id string)
	keepDir  string
	messages atomic.Int64
	bytes    atomic.Int64
	kept     atomic.Int64

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	served sync.WaitGroup
}

// NewSink serves the listener until Close. received, if set, is told the X-Load-Id of each message before it is
// acknowledged; a message without one is told as "". It is called from many goroutines.
func NewSink(listener net.Listener, received func(id string)) *Sink {
	return newSink(listener, received, "")
}

// NewMailbox is a sink that also writes each message to a file in dir, named by the order of arrival: 000001.eml. Files that are there stay.
func NewMailbox(listener net.Listener, received func(id string), dir string) *Sink {
	return newSink(listener, received, dir)
}

func newSink(listener net.Listener, received func(id string), keepDir string) *Sink {
	s := &Sink{listener: listener, received: received, keepDir: keepDir, conns: map[net.Conn]struct{}{}}
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
			reply, ok := s.take(in)
			if !ok {
				return
			}
			say(reply)
		case "QUIT":
			say("221 2.0.0 bye")
			_ = out.Flush()
			return
		default:
			say("250 2.0.0 Ok")
		}
	}
}

// take reads one message and answers the reply to it, or false when the connection broke off.
func (s *Sink) take(in *bufio.Reader) (reply string, ok bool) {
	var text *bytes.Buffer
	if s.keepDir != "" {
		text = &bytes.Buffer{}
	}
	id, size, err := readMessage(in, text)
	if err != nil {
		return "", false
	}
	if s.received != nil {
		s.received(id)
	}
	number := s.messages.Add(1)
	s.bytes.Add(size)
	if text != nil {
		if err := s.keep(text.Bytes()); err != nil {
			return "451 4.3.0 cannot keep the message", true
		}
	}
	return fmt.Sprintf("250 2.0.0 Ok: message %d", number), true
}

// keep writes a message under the first number that is free, so that nothing of an earlier run is written over.
func (s *Sink) keep(text []byte) error {
	for {
		name := filepath.Join(s.keepDir, fmt.Sprintf("%06d.eml", s.kept.Add(1)))
		file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = file.Write(text)
		return errors.Join(err, file.Close())
	}
}

// readMessage reads up to the dot and answers the X-Load-Id of the header. The text without the dots of RFC 5321 4.5.2 is
// written to text, unless that is nil.
func readMessage(in *bufio.Reader, text *bytes.Buffer) (id string, size int64, err error) {
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
		if text != nil {
			if lineStart && chunk[0] == '.' {
				chunk = chunk[1:]
			}
			text.Write(chunk)
		}
		lineStart = err == nil
	}
}
