package scan

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// Matrix row 22 where the path to clamd's host is lost without a word, at whatever moment of a scan, while all scans are in use.
func TestRow22AConnectionThatIsLostWithoutAWordHoldsNoScanForLong(t *testing.T) {
	for i, c := range []struct {
		moment string
		before int   // scans that are under way
		come   int64 // bytes that have come of each: the command is 10, all are 20
	}{
		{moment: "before a connection is there"},
		{moment: "while the message is sent", before: 10, come: 10},
		{moment: "while the reply is awaited", before: 10, come: 20},
	} {
		t.Run(c.moment, func(t *testing.T) {
			t.Parallel()
			n := relaytest.NewNetwork(t, i)
			var lost atomic.Bool
			arrived := make(chan struct{})
			d := clamdBehind(t, n, func(conn net.Conn) {
				if lost.Load() {
					answer(conn, "stream: OK", "PONG")
				} else if _, err := io.CopyN(io.Discard, conn, c.come); err == nil {
					arrived <- struct{}{}
					_, _ = io.Copy(io.Discard, conn) // and is forgotten
				}
			})
			ctx, end := context.WithCancel(t.Context())
			var scans sync.WaitGroup
			defer scans.Wait()
			defer end()
			rest, open := make(chan struct{}), make(chan struct{})
			close(open)
			if c.come == 20 {
				rest = open
			}
			for range c.before {
				scans.Go(func() { _ = scanAfter(ctx, d, rest) })
			}
			for range c.before {
				<-arrived
			}
			n.Inside("nft add rule inet test in drop")
			lost.Store(true)
			if c.come != 20 {
				close(rest)
			}

			var back, passed atomic.Int64 // when, since began; 0 until then
			messages := time.NewTicker(100 * time.Millisecond)
			defer messages.Stop()
			for began := time.Now(); passed.Load() == 0; <-messages.C {
				switch since := time.Since(began); {
				case back.Load() > 0 && since > time.Duration(back.Load())+5*time.Second:
					t.Fatalf("no message passed within 5 s of the return: %+v", d.Health())
				case back.Load() == 0 && since > 8*time.Second:
					if h := d.Health(); h.State != Down {
						t.Errorf("the loss was not noticed in 8 s: %+v", h)
					}
					back.Store(int64(since))
					n.Inside("nft flush chain inet test in")
				}
				scans.Go(func() {
					if scanAfter(ctx, d, open) == nil {
						passed.CompareAndSwap(0, int64(time.Since(began)))
					}
				})
			}
			if back.Load() == 0 {
				t.Fatal("a message passed while the path was lost")
			}
			t.Logf("it took %s", time.Duration(passed.Load()-back.Load()))
		})
	}
}

// scanAfter scans a message of two bytes that can be read once ready is closed, and answers nil if it is clean.
func scanAfter(ctx context.Context, d *Clamd, ready <-chan struct{}) error {
	v, err := d.Scan(ctx, Message{ID: "m", SizeBytes: 2, Open: func() io.Reader { <-ready; return strings.NewReader("xx") }})
	if err == nil && v.Outcome != Clean {
		err = fmt.Errorf("verdict %v", v)
	}
	return err
}

// While its host lives, clamd may take its time, whether to answer or to read on.
func TestASlowScannerWhoseHostLivesIsWaitedFor(t *testing.T) {
	const slow = 2 * lostAfter
	for i, c := range []struct {
		name string
		size int
		do   func(net.Conn)
	}{
		{"to answer", 1, func(conn net.Conn) {
			var in bytes.Buffer
			for !bytes.HasSuffix(in.Bytes(), []byte{0, 0, 0, 0}) {
				if _, err := io.CopyN(&in, conn, 1); err != nil {
					return
				}
			}
			<-time.After(slow)
			_, _ = io.WriteString(conn, "stream: OK\x00")
		}},
		{"to read", 32 << 20, func(conn net.Conn) {
			<-time.After(slow)
			answer(conn, "stream: OK", "PONG")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := clamdBehind(t, relaytest.NewNetwork(t, 10+i), c.do)
			text := strings.Repeat("x", c.size)
			m := Message{ID: "m", SizeBytes: int64(c.size), Open: func() io.Reader { return strings.NewReader(text) }}
			if v, err := d.Scan(t.Context(), m); err != nil || v.Outcome != Clean {
				t.Fatalf("got %+v, %v", v, err)
			}
		})
	}
}

// clamdBehind is a client of a daemon at the other host of n that does so with each connection.
func clamdBehind(t *testing.T, n *relaytest.Network, do func(net.Conn)) *Clamd {
	t.Helper()
	l := n.Listen()
	gone, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(gone, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
				do(conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); end(); running.Wait() })
	d, err := NewClamd(ClamdConfig{Address: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
