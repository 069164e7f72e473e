package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Load says what to send. The zero value of a field means its default.
type Load struct {
	// Server is the address of the relay, host:port. Required.
	Server string
	// From and To are the envelope addresses; From is also the header From. Required.
	From, To string
	// Messages is how many to send. 0 means 1.
	Messages int
	// Sessions is how many connections send side by side. 0 means 1.
	Sessions int
	// SizeBytes is the size of one message, headers included. 0 means 5120.
	SizeBytes int
	// PerConnection is how many messages one connection carries. 0 means no limit.
	PerConnection int
	// RunID starts the X-Load-Id of each message. Empty means "load".
	RunID string
	// RetryAfter is how long to wait before a connection that broke, or a message that was deferred, is tried again.
	// 0 means that neither is tried again.
	RetryAfter time.Duration
	// Also are further recipients of each message.
	Also []string
	// Acknowledged, if set, is told the id of each message when its 250 has arrived. Called from many goroutines.
	Acknowledged func(id string)
	// Told, if set, is told every reply that decided a try of a message, by its first line, and "" for a try whose connection
	// ended after the text had begun to go out: whether that is stored, nobody knows. A connection that ended before tells
	// nothing. Called from many goroutines.
	Told func(id, reply string)
	// Timeout bounds each reply. 0 means 60 s.
	Timeout time.Duration
}

// Outcome is what became of a load.
type Outcome struct {
	// Accepted is how many messages were answered 250.
	Accepted int
	// Replies counts the final replies of messages that were not accepted, by their first line.
	Replies map[string]int
	// Reference is the last line of the last of those replies, which a relay may have signed with a reference.
	Reference string
	// Broken counts connections that ended in the middle of a transaction.
	Broken int
	// Elapsed runs from the first connection to the last reply.
	Elapsed time.Duration
	// Transactions are how long each accepted message took from MAIL to the reply after the dot, in ascending order; with
	// one message for each connection, from the dialling on.
	Transactions []time.Duration
}

// Percentile answers the p-th percentile (0 to 100) of the accepted transactions; 0 when there are none.
func (o Outcome) Percentile(p float64) time.Duration {
	if len(o.Transactions) == 0 {
		return 0
	}
	i := int(p / 100 * float64(len(o.Transactions)))
	return o.Transactions[min(i, len(o.Transactions)-1)]
}

// Send sends the load and answers when every message has its final reply or ctx ends.
func Send(ctx context.Context, load Load) (Outcome, error) {
	if load.Server == "" || load.From == "" || load.To == "" {
		return Outcome{}, errors.New("load: server, from and to are required")
	}
	load = load.withDefaults()
	run := &run{load: load, pad: padding(load.SizeBytes), outcome: Outcome{Replies: map[string]int{}}}
	start := time.Now()
	var sessions sync.WaitGroup
	for range load.Sessions {
		sessions.Go(func() { run.session(ctx) })
	}
	sessions.Wait()
	run.outcome.Elapsed = time.Since(start)
	sort.Slice(run.outcome.Transactions, func(i, j int) bool { return run.outcome.Transactions[i] < run.outcome.Transactions[j] })
	return run.outcome, ctx.Err()
}

func (l Load) withDefaults() Load {
	l.Messages = max(l.Messages, 1)
	l.Sessions = min(max(l.Sessions, 1), l.Messages)
	if l.SizeBytes == 0 {
		l.SizeBytes = 5120
	}
	if l.RunID == "" {
		l.RunID = "load"
	}
	if l.Timeout == 0 {
		l.Timeout = time.Minute
	}
	return l
}

type run struct {
	load    Load
	pad     []byte
	next    atomic.Int64
	mu      sync.Mutex
	outcome Outcome
}

// session sends messages until none is left, over as many connections as that takes.
func (r *run) session(ctx context.Context) {
	number, ok := r.take()
	for ok && ctx.Err() == nil {
		number, ok = r.connection(ctx, number)
	}
}

func (r *run) take() (int64, bool) {
	n := r.next.Add(1)
	return n, n <= int64(r.load.Messages)
}

// connection sends messages over one connection, starting with number, and answers the message to go on with.
func (r *run) connection(ctx context.Context, number int64) (int64, bool) {
	start := time.Now()
	c, err := dial(ctx, r.load, r.pad)
	if err != nil {
		return r.broken(ctx, number, err)
	}
	defer c.close()
	for sent := 0; ctx.Err() == nil; sent++ {
		if r.load.PerConnection > 0 && sent == r.load.PerConnection {
			return number, true
		}
		id := fmt.Sprintf("%s-%d", r.load.RunID, number)
		if r.load.PerConnection != 1 {
			start = time.Now()
		}
		reply, err := c.send(id)
		if r.load.Told != nil && (err == nil || c.inDoubt) {
			r.load.Told(id, reply)
		}
		if err != nil {
			return r.broken(ctx, number, err)
		}
		refusal := reply
		if reply[0] == '2' {
			refusal = ""
		}
		if refusal != "" && refusal[0] == '4' && r.load.RetryAfter > 0 {
			if !pause(ctx, r.load.RetryAfter) {
				return number, false
			}
			continue
		}
		r.settle(id, refusal, c.refusedBy, time.Since(start))
		var ok bool
		if number, ok = r.take(); !ok {
			return 0, false
		}
	}
	return number, false
}

func (r *run) settle(id, refusal, lastLine string, took time.Duration) {
	if refusal == "" && r.load.Acknowledged != nil {
		r.load.Acknowledged(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if refusal != "" {
		r.outcome.Replies[refusal]++
		r.outcome.Reference = lastLine
		return
	}
	r.outcome.Accepted++
	r.outcome.Transactions = append(r.outcome.Transactions, took)
}

// broken notes a connection that ended; the message is tried again where the load says so, else given up.
func (r *run) broken(ctx context.Context, number int64, err error) (int64, bool) {
	r.mu.Lock()
	r.outcome.Broken++
	if r.load.RetryAfter == 0 {
		r.outcome.Replies["connection: "+err.Error()]++
	}
	r.mu.Unlock()
	if r.load.RetryAfter == 0 {
		return r.take()
	}
	return number, pause(ctx, r.load.RetryAfter)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type conn struct {
	load Load
	net  net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
	pad  []byte
	// lastLine is the last line of the reply that was read last, refusedBy that of the reply that refused a message.
	lastLine, refusedBy string
	// inDoubt is whether the text of the message has begun to go out, and no reply to it has come.
	inDoubt bool
}

func dial(ctx context.Context, load Load, pad []byte) (*conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", load.Server)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := &conn{load: load, net: nc, in: bufio.NewReader(nc), pad: pad}
	if _, err := c.reply(); err != nil {
		nc.Close()
		return nil, err
	}
	if reply, err := c.command("EHLO load.example\r\n"); err != nil || reply[0] != '2' {
		nc.Close()
		return nil, fmt.Errorf("ehlo: %q %w", reply, err)
	}
	return c, nil
}

func (c *conn) close() {
	_, _ = c.command("QUIT\r\n")
	c.net.Close()
}

// send runs one transaction and answers the first line of the reply that decided it.
func (c *conn) send(id string) (reply string, err error) {
	// RFC 2920 3.1: MAIL, RCPT and DATA may go out in one write.
	c.out.Reset()
	recipients := 1 + len(c.load.Also)
	fmt.Fprintf(&c.out, "MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\n", c.load.From, c.load.To)
	for _, to := range c.load.Also {
		fmt.Fprintf(&c.out, "RCPT TO:<%s>\r\n", to)
	}
	c.out.WriteString("DATA\r\n")
	_ = c.net.SetDeadline(time.Now().Add(c.load.Timeout))
	if _, err := c.net.Write(c.out.Bytes()); err != nil {
		return "", fmt.Errorf("write: %w", err)
	}
	var refused string
	for range recipients + 2 {
		reply, err := c.reply()
		if err != nil {
			return "", err
		}
		if refused == "" && reply[0] != '2' && reply[0] != '3' {
			refused, c.refusedBy = reply, c.lastLine
		}
	}
	if refused != "" {
		return refused, c.giveUp()
	}
	c.write(id)
	_ = c.net.SetDeadline(time.Now().Add(c.load.Timeout))
	c.inDoubt = true
	if _, err := c.net.Write(c.out.Bytes()); err != nil {
		return "", fmt.Errorf("write: %w", err)
	}
	if reply, err = c.reply(); err != nil {
		return "", err
	}
	c.inDoubt = false
	c.refusedBy = c.lastLine
	return reply, nil
}

// giveUp ends a transaction that was refused. Where only some recipients were, DATA was answered 354, and the text that is
// owed for it is never sent: so the connection ends with it.
func (c *conn) giveUp() error {
	if c.lastLine[0] == '3' {
		return errors.New("a recipient was refused, DATA was not")
	}
	_, err := c.command("RSET\r\n")
	return err
}

// write puts the message with its final dot into out. Its checksum lets the sink tell a whole message from a part.
func (c *conn) write(id string) {
	c.out.Reset()
	fmt.Fprintf(&c.out, "From: <%s>\r\nTo: <%s>\r\nSubject: load %s\r\nMessage-Id: <%s@load.example>\r\nX-Load-Id: %s\r\n", c.load.From, c.load.To, id, id, id)
	const sumField = "X-Load-Sum: 01234567\r\n\r\n"
	rest := max(0, c.load.SizeBytes-c.out.Len()-len(sumField))
	body := bytes.TrimSuffix(c.pad[:rest], []byte("\r")) // no CR CR LF
	sum := crc32.Update(crc32.Checksum(body, loadSum), loadSum, []byte("\r\n"))
	fmt.Fprintf(&c.out, "X-Load-Sum: %08x\r\n\r\n", sum)
	c.out.Write(body)
	c.out.WriteString("\r\n.\r\n")
}

// loadSum is the checksum of texts, of everything below the empty line.
var loadSum = crc32.MakeTable(crc32.Castagnoli)

func (c *conn) command(line string) (string, error) {
	_ = c.net.SetDeadline(time.Now().Add(c.load.Timeout))
	if _, err := io.WriteString(c.net, line); err != nil {
		return "", fmt.Errorf("write: %w", err)
	}
	return c.reply()
}

// reply reads one reply, however many lines it has, and answers its first line.
func (c *conn) reply() (string, error) {
	_ = c.net.SetDeadline(time.Now().Add(c.load.Timeout))
	first := ""
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("read: %w", err)
		}
		if first == "" {
			first = strings.TrimRight(line, "\r\n")
		}
		if len(line) < 4 {
			return "", fmt.Errorf("reply %q is too short", line)
		}
		if line[3] != '-' {
			c.lastLine = strings.TrimRight(line, "\r\n")
			return first, nil
		}
	}
}

func padding(size int) []byte {
	line := []byte(strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789 ", 2) + "\r\n")
	return bytes.Repeat(line, size/len(line)+1)
}
