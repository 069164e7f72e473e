package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
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
	options  SinkOptions
	messages atomic.Int64
	bytes    atomic.Int64
	kept     atomic.Int64

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	served sync.WaitGroup
}

// SinkOptions say what a sink does beyond counting. The zero value does nothing else.
type SinkOptions struct {
	// Received, if set, is told of each message before it is acknowledged. It is called from many goroutines.
	Received func(Arrival)
	// Refuse, if set, answers the reply that refuses a recipient, or "" for one that is accepted. It is called from many goroutines.
	Refuse func(recipient string) (reply string)
	// KeepDir is a directory that takes each message as a file, named by the order of arrival: 000001.eml. Files that are there
	// stay. Empty keeps none.
	KeepDir string
}

// Arrival is a message as the sink took it.
type Arrival struct {
	// ID is its X-Load-Id; empty where it has none.
	ID string
	// QueueID is what the relay that added the topmost Received field called it; empty where there is none.
	QueueID string
	// From and Recipients are the envelope; an empty From is the null sender.
	From       string
	Recipients []string
	// Damaged is whether it has an X-Load-Sum which is not that of its text.
	Damaged bool
	// Text is the whole message where the sender is null; of other messages it is nil.
	Text []byte
}

// NewSink serves the listener until Close. received, if set, is told the X-Load-Id of each message before it is
// acknowledged; a message without one is told as "". It is called from many goroutines.
func NewSink(listener net.Listener, received func(id string)) *Sink {
	var options SinkOptions
	if received != nil {
		options.Received = func(a Arrival) { received(a.ID) }
	}
	return ServeSink(listener, options)
}

// ServeSink serves the listener until Close.
func ServeSink(listener net.Listener, options SinkOptions) *Sink {
	s := &Sink{listener: listener, options: options, conns: map[net.Conn]struct{}{}}
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
	var envelope Arrival
	for {
		// Replies to pipelined commands leave together (RFC 2920 3.2).
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-sink.example")
			say("250-PIPELINING")
			say("250-SIZE 104857600")
			say("250 8BITMIME")
		case "MAIL":
			envelope = Arrival{From: address(rest)}
			say("250 2.1.0 Ok")
		case "RCPT":
			say(s.recipient(&envelope, address(rest)))
		case "DATA":
			if len(envelope.Recipients) == 0 {
				say("554 5.5.1 no valid recipients")
				continue
			}
			say("354 go on")
			if out.Flush() != nil {
				return
			}
			reply, ok := s.take(in, envelope)
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

// recipient answers RCPT.
func (s *Sink) recipient(envelope *Arrival, to string) (reply string) {
	if s.options.Refuse != nil {
		if refusal := s.options.Refuse(to); refusal != "" {
			return refusal
		}
	}
	envelope.Recipients = append(envelope.Recipients, to)
	return "250 2.1.5 Ok"
}

// address is what stands between the angle brackets of MAIL and RCPT.
func address(argument string) string {
	_, argument, _ = strings.Cut(argument, "<")
	argument, _, _ = strings.Cut(argument, ">")
	return argument
}

// take reads one message and answers the reply to it, or false when the connection broke off.
func (s *Sink) take(in *bufio.Reader, envelope Arrival) (reply string, ok bool) {
	var text *bytes.Buffer
	if s.options.KeepDir != "" || envelope.From == "" && s.options.Received != nil {
		text = &bytes.Buffer{}
	}
	size, err := readMessage(in, &envelope, text)
	if err != nil {
		return "", false
	}
	if envelope.From == "" && text != nil {
		envelope.Text = text.Bytes()
	}
	if s.options.Received != nil {
		s.options.Received(envelope)
	}
	number := s.messages.Add(1)
	s.bytes.Add(size)
	if s.options.KeepDir != "" {
		if err := s.keep(text.Bytes()); err != nil {
			return "451 4.3.0 cannot keep the message", true
		}
	}
	return fmt.Sprintf("250 2.0.0 Ok: message %d", number), true
}

// keep writes a message under the first number that is free, so that nothing of an earlier run is written over.
func (s *Sink) keep(text []byte) error {
	for {
		name := filepath.Join(s.options.KeepDir, fmt.Sprintf("%06d.eml", s.kept.Add(1)))
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

// readMessage reads up to the dot and notes in a what the header says and whether the text is whole. The text without the
// dots of RFC 5321 4.5.2 is written to text, unless that is nil.
func readMessage(in *bufio.Reader, a *Arrival, text *bytes.Buffer) (size int64, err error) {
	header, lineStart := true, true
	var want string
	var sum uint32
	for {
		chunk, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		size += int64(len(chunk))
		if lineStart && chunk[0] == '.' {
			if string(chunk) == ".\r\n" {
				a.Damaged = want != "" && want != fmt.Sprintf("%08x", sum)
				return size - int64(len(chunk)), nil
			}
			chunk = chunk[1:]
		}
		switch {
		case !header && want != "":
			sum = crc32.Update(sum, loadSum, chunk)
		case header && lineStart && len(chunk) <= 2:
			header = false
		case header && lineStart:
			noteField(a, chunk, &want)
		}
		if text != nil {
			text.Write(chunk)
		}
		lineStart = err == nil
	}
}

// noteField notes what one line of the header says that the sink is asked for.
func noteField(a *Arrival, line []byte, sum *string) {
	if value, ok := cutField(line, "X-Load-Id: "); ok {
		a.ID = value
	} else if value, ok := cutField(line, "X-Load-Sum: "); ok {
		*sum = value
	} else if line[0] == '\t' && a.QueueID == "" {
		if _, id, found := strings.Cut(string(line), " id "); found {
			a.QueueID = strings.TrimRight(id, ";\r\n")
		}
	}
}

func cutField(line []byte, name string) (value string, ok bool) {
	if len(line) <= len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return "", false
	}
	return strings.TrimSpace(string(line[len(name):])), true
}
