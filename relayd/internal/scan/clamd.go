package scan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ClamdConfig says where clamd is. Only Address is required.
type ClamdConfig struct {
	// Address is "unix:/path", "/path", "tcp:host:port" or "host:port".
	Address string
	// Timeout bounds one scan from dialling to the reply. 0 means 60 s, with
	// which a zip bomb holds a session no longer than a patient client waits.
	Timeout time.Duration
	// MaxScans is how many scans run at once; more wait. 0 means 10, clamd's
	// own number of threads.
	MaxScans int
	// Log receives changes of the scanner's health. Nil discards.
	Log *slog.Logger
	// Metrics registers the scanner's figures. Nil registers nothing.
	Metrics prometheus.Registerer
	// Now is the clock of the health state. Nil means time.Now.
	Now func() time.Time
}

// Clamd scans with a clamd daemon, over its INSTREAM command: the bytes go over
// the connection, so the daemon needs no access to our files and can run as
// another user or on another host.
//
// clamd says OK to parts that its own limits made it skip, unless clamd.conf
// has "AlertExceedsMax yes": set it. What exceeds StreamMaxLength it refuses,
// and so do we.
type Clamd struct {
	network, address string
	connect          func(ctx context.Context, network, address string) (net.Conn, error)
	timeout          time.Duration
	slots            chan struct{}
	log              *slog.Logger
	circuit          circuit
	metrics          *metrics
}

var _ Scanner = (*Clamd)(nil)

const (
	// probeTimeout bounds the question whether clamd is there at all.
	probeTimeout = 2 * time.Second
	// lostAfter is how long clamd's host may leave unanswered what a host that
	// lives answers at once, however busy its clamd is.
	lostAfter = 3 * time.Second
	// lostPoll is between two looks at whether it answers.
	lostPoll = time.Second
)

// NewClamd checks the configuration. It does not connect: an edge starts
// whether its scanner is up or not.
func NewClamd(c ClamdConfig) (*Clamd, error) {
	network, address, err := splitAddress(c.Address)
	if err != nil {
		return nil, fmt.Errorf("clamd: %w", err)
	}
	if c.Timeout == 0 {
		c.Timeout = 60 * time.Second
	}
	if c.MaxScans == 0 {
		c.MaxScans = 10
	}
	if c.Timeout < 0 || c.MaxScans < 0 {
		return nil, fmt.Errorf("clamd: timeout %v and %d scans at once must not be negative", c.Timeout, c.MaxScans)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	d := &Clamd{
		network: network, address: address, connect: dialer().DialContext, timeout: c.Timeout,
		slots: make(chan struct{}, c.MaxScans), log: c.Log, circuit: circuit{now: c.Now},
	}
	d.circuit.health.State = Up
	if d.metrics, err = newMetrics(c.Metrics, d); err != nil {
		return nil, fmt.Errorf("clamd: %w", err)
	}
	return d, nil
}

func splitAddress(s string) (network, address string, err error) {
	switch {
	case strings.HasPrefix(s, "unix:"):
		network, address = "unix", strings.TrimPrefix(s, "unix:")
	case strings.HasPrefix(s, "/"):
		network, address = "unix", s
	default:
		network, address = "tcp", strings.TrimPrefix(s, "tcp:")
		if _, _, err := net.SplitHostPort(address); err != nil {
			return "", "", fmt.Errorf("address %q is neither unix:/path nor host:port: %w", s, err)
		}
	}
	if address == "" {
		return "", "", errors.New("no address given")
	}
	return network, address, nil
}

// Name implements Scanner.
func (d *Clamd) Name() string { return "clamd" }

// Health is the state of the daemon as the last scans found it.
func (d *Clamd) Health() Health { return d.circuit.state() }

// Scan implements Scanner.
func (d *Clamd) Scan(ctx context.Context, m Message) (Verdict, error) {
	began := time.Now()
	v, err := d.scan(ctx, m)
	d.metrics.scanned(v, err, time.Since(began))
	if err != nil {
		return Verdict{}, fmt.Errorf("scan %s: %w: %w", m.ID, ErrUnavailable, err)
	}
	return v, nil
}

func (d *Clamd) scan(ctx context.Context, m Message) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return Verdict{}, fmt.Errorf("waiting for a free scan: %w", ctx.Err())
	}
	way, health := d.circuit.enter()
	if way == passNone {
		return Verdict{}, fmt.Errorf("not asked while down: %s", health.LastError)
	}
	if way == passProbe {
		if err := d.probe(ctx); err != nil {
			return Verdict{}, err
		}
	}
	v, err := d.instream(ctx, m)
	return v, d.note(ctx, err)
}

// probe asks a scanner that is down whether it is back, and puts it back in use
// if so. What it must give a verdict on is a message of our own: the
// caller's may take the whole timeout, and all others would be deferred meanwhile.
// PONG alone is no proof, since clamd says it also while all its threads hang;
// but PING comes first, so that a process that hangs holds no caller for long.
func (d *Clamd) probe(ctx context.Context) error {
	defer d.circuit.probed()
	err := d.ping(ctx)
	if err == nil {
		_, err = d.instream(ctx, Message{
			SizeBytes: int64(len(probeText)), Open: func() io.Reader { return strings.NewReader(probeText) },
		})
	}
	return d.note(ctx, err)
}

// probeText is the message that a scanner that is down has to give a verdict on.
const probeText = "Subject: probe\r\n\r\nprobe\r\n"

// note keeps the health state and gives err back. A session that went away, a
// message that we cannot read and one that is too big say nothing about the
// scanner.
func (d *Clamd) note(ctx context.Context, err error) error {
	before := d.circuit.state().State
	switch {
	case errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, errOurs):
	case err == nil || errors.Is(err, ErrTooBig):
		d.circuit.worked()
	default:
		d.circuit.failed(err)
	}
	after := d.circuit.state()
	switch {
	case after.State == before:
	case after.State == Down:
		d.log.Error("content scanner is down, mail is deferred", "scanner", d.Name(), "err", after.LastError)
	case after.State == Up:
		d.log.Info("content scanner is back", "scanner", d.Name())
	}
	return err
}

// Ping asks whether the daemon is there. One that is down it probes: while the
// edge is not ready because of it there may be no mail to find out that it is back.
func (d *Clamd) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if way, _ := d.circuit.enter(); way == passProbe {
		return d.probe(ctx)
	}
	return d.ping(ctx)
}

func (d *Clamd) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, done, err := d.dial(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, err := conn.Write([]byte("zPING\x00")); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	reply, err := readReply(conn)
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if reply != "PONG" {
		return fmt.Errorf("ping: answer %q is not PONG", reply)
	}
	return nil
}

// dialer makes connections on which a living host is heard of every second,
// also while clamd is at work.
func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         lostAfter,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: lostPoll, Interval: lostPoll, Count: int(lostAfter / lostPoll)},
	}
}

// dial connects with the deadline of ctx, and makes the end of ctx, or of the
// path to clamd, end all reading and writing.
func (d *Clamd) dial(ctx context.Context) (conn net.Conn, done func(), err error) {
	conn, err = d.connect(ctx, d.network, d.address)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // an error here comes again at the first write
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	ended := make(chan struct{})
	if tcp, ok := conn.(*net.TCPConn); ok {
		go endWhenLost(tcp, ended)
	}
	return conn, func() { stop(); close(ended); _ = conn.Close() }, nil
}

// endWhenLost ends all reading and writing once the host at the other end is
// gone without a word, so that such connections do not hold the scans of others
// until their deadline. Keepalive does not see it while data is under way. Nor
// does TCP_USER_TIMEOUT serve: it also ends a connection whose living host says
// that clamd does not read just now, as while it loads its database.
func endWhenLost(conn *net.TCPConn, ended <-chan struct{}) {
	poll := time.NewTicker(lostPoll)
	defer poll.Stop()
	for owed := false; ; { // at the last look too: what was sent just now is not overdue
		select {
		case <-ended:
			return
		case <-poll.C:
		}
		owes, silent := unanswered(conn)
		if owes && owed && silent >= lostAfter {
			_ = conn.SetDeadline(time.Unix(1, 0))
			return
		}
		owed = owes
	}
}

// instream sends the message and reads what clamd says. clamd answers before
// the end, and closes, where it refuses to go on: then our write fails, and the
// reply says why. Only a message that was sent to its end can be clean.
func (d *Clamd) instream(ctx context.Context, m Message) (Verdict, error) {
	conn, done, err := d.dial(ctx)
	if err != nil {
		return Verdict{}, err
	}
	defer done()
	sendErr := sendChunks(conn, m)
	if errors.Is(sendErr, errOurs) {
		return Verdict{}, sendErr // clamd waits for the rest: there is no reply
	}
	reply, err := readReply(conn)
	if err != nil {
		return Verdict{}, errors.Join(sendErr, err)
	}
	v, err := parseReply(reply)
	if err == nil && sendErr != nil {
		err = fmt.Errorf("answer %q before the end of the message: %w", reply, sendErr)
	}
	if err != nil {
		return Verdict{}, err
	}
	return v, nil
}

// errOurs marks failures to read the message, which are not the daemon's.
var errOurs = errors.New("read message")

// chunkBytes is the size of one INSTREAM chunk.
const chunkBytes = 64 << 10

// sendChunks writes the command, the message in chunks with their length in
// front, and the empty chunk that ends it.
func sendChunks(conn net.Conn, m Message) error {
	if _, err := conn.Write([]byte("zINSTREAM\x00")); err != nil {
		return fmt.Errorf("send command: %w", err)
	}
	in, sent := m.Open(), int64(0)
	chunk := make([]byte, 4+chunkBytes)
	for {
		n, err := io.ReadFull(in, chunk[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(chunk, uint32(n))
			if _, err := conn.Write(chunk[:4+n]); err != nil {
				return fmt.Errorf("send message: %w", err)
			}
			sent += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errOurs, err)
		}
	}
	if sent != m.SizeBytes {
		return fmt.Errorf("%w: %d bytes, not %d", errOurs, sent, m.SizeBytes)
	}
	if _, err := conn.Write([]byte{0, 0, 0, 0}); err != nil {
		return fmt.Errorf("send end: %w", err)
	}
	return nil
}

// maxReplyBytes bounds what we read from the daemon; a signature name is short.
const maxReplyBytes = 4 << 10

// readReply reads up to the NUL that ends a reply to a "z" command.
func readReply(conn net.Conn) (string, error) {
	buf, n := make([]byte, maxReplyBytes), 0
	for {
		m, err := conn.Read(buf[n:])
		n += m
		if end := bytes.IndexByte(buf[:n], 0); end >= 0 {
			return string(buf[:end]), nil
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "", errors.New("no answer in time")
		case err != nil:
			return "", fmt.Errorf("read answer after %d bytes: %w", n, err)
		case n == len(buf):
			return "", fmt.Errorf("answer has no end within %d bytes", n)
		}
	}
}

// parseReply knows two answers that are verdicts. All others are failures.
func parseReply(reply string) (Verdict, error) {
	const stream, found = "stream: ", " FOUND"
	if reply == "stream: OK" {
		return Verdict{Outcome: Clean}, nil
	}
	if strings.HasPrefix(reply, stream) && strings.HasSuffix(reply, found) && len(reply) > len(stream)+len(found) {
		name := reply[len(stream) : len(reply)-len(found)]
		return Verdict{Outcome: Malware, Signature: name}, nil
	}
	if strings.HasPrefix(reply, "INSTREAM size limit exceeded") {
		return Verdict{}, ErrTooBig
	}
	return Verdict{}, fmt.Errorf("answer %q is not understood", reply)
}
