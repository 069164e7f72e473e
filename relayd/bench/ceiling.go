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
	"time"
)

// Ceiling is the bare loop that relays are measured against: receive, sync, reply, send. It stores every message durably
// before the 250, as a relay must, and does nothing else that a relay does: no policy, no quota, no header fields, no log,
// no retry, no recovery. What separates a relay from it is the price of being one.
type Ceiling struct {
	listener net.Listener
	next     string
	log      *groupLog
	queue    chan delivery

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	served sync.WaitGroup
}

// delivery is a message on its way out: the commands as they came, the text with its final dot.
type delivery struct{ envelope, text []byte }

// ceilingQueue bounds what is accepted and not sent yet; the next message waits with its 250.
const ceilingQueue = 2000

// NewCeiling relays what comes over the listener to next, over as many connections as senders says, through a log in dir.
func NewCeiling(listener net.Listener, next, dir string, senders int) (*Ceiling, error) {
	log, err := openGroupLog(dir)
	if err != nil {
		return nil, fmt.Errorf("ceiling: %w", err)
	}
	c := &Ceiling{listener: listener, next: next, log: log, queue: make(chan delivery, ceilingQueue), conns: map[net.Conn]struct{}{}}
	for range senders {
		go c.send()
	}
	c.served.Go(c.accept)
	return c, nil
}

// Close ends it. What was not sent yet is lost.
func (c *Ceiling) Close() error {
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	err := c.listener.Close()
	c.served.Wait()
	close(c.queue)
	return errors.Join(err, c.log.close())
}

func (c *Ceiling) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			conn.Close()
			return
		}
		c.conns[conn] = struct{}{}
		c.mu.Unlock()
		c.served.Go(func() { c.serve(conn) })
	}
}

func (c *Ceiling) serve(conn net.Conn) {
	defer func() {
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
		conn.Close()
	}()
	in, out := bufio.NewReaderSize(conn, 16<<10), bufio.NewWriterSize(conn, 1<<10)
	out.WriteString("220 ceiling.example ESMTP\r\n")
	var envelope []byte
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		if err != nil || len(line) < 4 {
			return
		}
		switch string(bytes.ToUpper(line[:4])) {
		case "EHLO":
			out.WriteString("250-ceiling.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
		case "MAIL", "RCPT":
			envelope = append(envelope, line...)
			out.WriteString("250 2.0.0 Ok\r\n")
		case "DATA":
			if !c.data(in, out, envelope) {
				return
			}
			envelope = nil
		case "QUIT":
			out.WriteString("221 2.0.0 bye\r\n")
			out.Flush()
			return
		default:
			out.WriteString("250 2.0.0 Ok\r\n")
		}
	}
}

// data takes one message: it is on the disk when the 250 goes into out.
func (c *Ceiling) data(in *bufio.Reader, out *bufio.Writer, envelope []byte) bool {
	out.WriteString("354 go on\r\n")
	if out.Flush() != nil {
		return false
	}
	text, err := readToDot(in)
	if err != nil || c.log.append(envelope, text) != nil {
		return false
	}
	c.queue <- delivery{envelope: append(envelope, "DATA\r\n"...), text: text}
	out.WriteString("250 2.0.0 Ok\r\n")
	return true
}

// readToDot reads a message with its final dot, in blocks.
func readToDot(in *bufio.Reader) ([]byte, error) {
	text := make([]byte, 0, 8<<10)
	for {
		if _, err := in.Peek(1); err != nil {
			return nil, err
		}
		block, err := in.Peek(in.Buffered())
		if err != nil {
			return nil, err
		}
		from := max(0, len(text)-4)
		text = append(text, block...)
		i := bytes.Index(text[from:], []byte("\r\n.\r\n"))
		if i < 0 {
			in.Discard(len(block))
			continue
		}
		end := from + i + 5
		in.Discard(len(block) - (len(text) - end))
		return text[:end], nil
	}
}

// send delivers over one connection, opened anew when it breaks.
func (c *Ceiling) send() {
	var conn net.Conn
	var in *bufio.Reader
	for d := range c.queue {
		for {
			if conn == nil {
				if conn, in = c.connect(); conn == nil {
					break
				}
			}
			if transmit(conn, in, d) == nil {
				break
			}
			conn.Close()
			conn = nil
		}
	}
	if conn != nil {
		conn.Close()
	}
}

func (c *Ceiling) connect() (net.Conn, *bufio.Reader) {
	conn, err := net.DialTimeout("tcp", c.next, 10*time.Second)
	if err != nil {
		return nil, nil
	}
	in := bufio.NewReader(conn)
	if expect(in, 1, "2") != nil {
		conn.Close()
		return nil, nil
	}
	if _, err := io.WriteString(conn, "EHLO ceiling.example\r\n"); err != nil || expect(in, 1, "2") != nil {
		conn.Close()
		return nil, nil
	}
	return conn, in
}

func transmit(conn net.Conn, in *bufio.Reader, d delivery) error {
	if _, err := conn.Write(d.envelope); err != nil {
		return err
	}
	if err := expect(in, bytes.Count(d.envelope, []byte("\n")), "23"); err != nil {
		return err
	}
	if _, err := conn.Write(d.text); err != nil {
		return err
	}
	return expect(in, 1, "2")
}

// expect reads replies and fails at the first whose class is not among good.
func expect(in *bufio.Reader, replies int, good string) error {
	for replies > 0 {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || !strings.ContainsRune(good, rune(line[0])) {
			return fmt.Errorf("reply %q", line)
		}
		if line[3] != '-' {
			replies--
		}
	}
	return nil
}
