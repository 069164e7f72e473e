package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
			n := newNetwork(t, i)
			var lost atomic.Bool
			arrived := make(chan struct{})
			d := n.clamd(func(conn net.Conn) {
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
			n.inside("nft add rule inet test in drop")
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
					n.inside("nft flush chain inet test in")
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
			d := newNetwork(t, 10+i).clamd(c.do)
			text := strings.Repeat("x", c.size)
			m := Message{ID: "m", SizeBytes: int64(c.size), Open: func() io.Reader { return strings.NewReader(text) }}
			if v, err := d.Scan(t.Context(), m); err != nil || v.Outcome != Clean {
				t.Fatalf("got %+v, %v", v, err)
			}
		})
	}
}

// network is this host, and clamd's host: a namespace of its own.
type network struct {
	t       *testing.T
	name    string
	address netip.Addr // of clamd's host
}

// newNetwork makes one, as far as the machine lets us. Its names and addresses come from the process and from number, below 64.
func newNetwork(t *testing.T, number int) *network {
	t.Helper()
	for command, debian := range map[string]string{"ip -V": "iproute2", "nft -v": "nftables"} {
		if out, err := run(command); err != nil {
			t.Fatalf("%s: %v: %s; run: apt-get install --no-install-recommends %s", command, err, out, debian)
		}
	}
	pid := os.Getpid()
	n := &network{t: t, name: fmt.Sprintf("s%dx%d", pid, number)}
	if out, err := run("ip netns add " + n.name); err != nil {
		t.Skipf("SKIPPED %s: this machine allows no network namespaces: %v: %s", t.Name(), err, out)
	}
	t.Cleanup(func() {
		_, _ = run("ip link delete " + n.name + "a")
		_, _ = run("ip netns delete " + n.name)
	})
	here := netip.AddrFrom4([4]byte{10, byte(150 + pid>>8%50), byte(pid), byte(4*number + 1)})
	n.address = here.Next()
	n.do(fmt.Sprintf("ip link add %sa type veth peer name %s netns %s", n.name, n.name, n.name))
	n.do(fmt.Sprintf("ip address add %s/30 dev %sa", here, n.name))
	n.do(fmt.Sprintf("ip link set %sa up", n.name))
	n.inside(fmt.Sprintf("ip address add %s/30 dev %s", n.address, n.name))
	n.inside(fmt.Sprintf("ip link set %s up", n.name))
	n.inside("nft add table inet test")
	n.inside("nft add chain inet test in { type filter hook input priority 0 ; }")
	return n
}

func run(command string) (string, error) {
	words := append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, strings.Fields(command)...)
	out, err := exec.Command("env", words...).CombinedOutput()
	return string(out), err
}

func (n *network) do(command string) {
	n.t.Helper()
	if out, err := run(command); err != nil {
		n.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// inside runs a command at clamd's host.
func (n *network) inside(command string) {
	n.t.Helper()
	n.do("ip netns exec " + n.name + " " + command)
}

// clamd is a client of a daemon at the other host that does so with each connection.
func (n *network) clamd(do func(net.Conn)) *Clamd {
	n.t.Helper()
	l := n.listen()
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
	n.t.Cleanup(func() { _ = l.Close(); end(); running.Wait() })
	d, err := NewClamd(ClamdConfig{Address: l.Addr().String()})
	if err != nil {
		n.t.Fatal(err)
	}
	return d
}

// listen opens a listener at clamd's host: a socket stays in the namespace of the thread that made it.
func (n *network) listen() net.Listener {
	n.t.Helper()
	var l net.Listener
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread is never unlocked, and so ends with the goroutine
		theirs, err := os.Open("/var/run/netns/" + n.name)
		if err == nil {
			err = errors.Join(unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET), theirs.Close())
		}
		if err == nil {
			l, err = net.Listen("tcp", netip.AddrPortFrom(n.address, 0).String())
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
	return l
}
