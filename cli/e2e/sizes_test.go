package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"activerelay/relayd/relaytest"
)

// Matrix row 19, in the memory of the whole process: no message, whatever is wrong with its size or structure, costs more than 64 MiB.
// Under the race detector it would be about that; package smtpd has the short form, with the heap.
func TestSoakRow19NoMessageCostsMoreThan64MiB(t *testing.T) {
	soaking(t)
	const limit = 25 << 20
	mx := relaytest.StartMX(t, relaytest.Script{Extensions: offers})
	s := newStack(t)
	edge := s.addEdge()
	s.seed(mx.Addr().String())
	s.ctl("settings", "update", "--max-message-bytes", fmt.Sprint(limit))
	s.synced()
	head := letter("anna@example.com", "")
	sized := func(n int) func(io.Writer) {
		return func(w io.Writer) {
			line := strings.Repeat("x", 998) + "\r\n"
			rest := n - len(head)
			_, _ = io.WriteString(w, head+strings.Repeat(line, rest/len(line)-1))
			_, _ = io.WriteString(w, strings.Repeat("y", rest%len(line)+len(line)-2)+"\r\n") // the reply is missing if it fails
		}
	}
	repeated := func(start, part string, n int) func(io.Writer) {
		return func(w io.Writer) {
			_, _ = io.WriteString(w, start)
			for range n {
				_, _ = io.WriteString(w, part)
			}
		}
	}
	mime := "From: anna@example.com\r\nMIME-Version: 1.0\r\n"
	for n := range 1000 {
		mime += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", n, n)
	}
	before := edge.memoryLine(t, "VmRSS")
	for _, c := range []struct {
		name, want string
		recipients int
		write      func(io.Writer)
	}{
		{name: "just as big as allowed", want: "250 2.0.0", recipients: 1, write: sized(limit)},
		{name: "a byte bigger", want: "552 5.3.4", recipients: 1, write: sized(limit + 1)},
		{name: "twice as big", want: "552 5.3.4", recipients: 1, write: sized(2 * limit)},
		{name: "a million header fields", want: "550 5.6.0", recipients: 1, write: repeated("From: anna@example.com\r\n", "X: y\r\n", 1_000_000)},
		{name: "an endless header field", want: "550 5.6.0", recipients: 1, write: repeated("From: anna@example.com\r\nX: y\r\n", " folded\r\n", 1_000_000)},
		{name: "a thousand levels of MIME", want: "250 2.0.0", recipients: 1, write: repeated(mime, "", 0)},
		{name: "a hundred thousand recipients", want: "250 2.0.0", recipients: 100_000, write: repeated(head, "", 0)},
	} {
		d := dial(t, edge.relay, "127.0.0.1")
		must(t, d.conn.SetDeadline(time.Now().Add(5*time.Minute)))
		edge.forgetPeak(t)
		if r := d.say("MAIL FROM:<anna@example.com>"); r.code != 250 {
			t.Fatalf("%s: %v", c.name, r)
		}
		d.recipients(c.recipients)
		if r := d.say("DATA"); r.code != 354 {
			t.Fatalf("%s: %v", c.name, r)
		}
		w := bufio.NewWriterSize(d.conn, 64<<10)
		c.write(w)
		must(t, w.Flush())
		if r := d.say("."); !strings.HasPrefix(r.first(), c.want) {
			t.Errorf("%s is answered %v, want %s", c.name, r, c.want)
		}
		d.conn.Close()
		eventually(t, "an empty queue", func() bool { return edge.metric(t, "relayd_queue_messages") == 0 })
		grown := edge.memoryLine(t, "VmHWM") - before
		t.Logf("%s: %d MiB", c.name, grown>>20)
		if grown > 64<<20 {
			t.Errorf("%s costs %d MiB", c.name, grown>>20)
		}
	}
}

// recipients names so many recipients, of which at least one must be taken.
func (d *dialog) recipients(n int) {
	d.t.Helper()
	go func() {
		w := bufio.NewWriter(d.conn)
		for i := range n {
			fmt.Fprintf(w, "RCPT TO:<c%d@example.net>\r\n", i)
		}
		_ = w.Flush() // the replies are missing then
	}()
	taken := 0
	for range n {
		if d.reply().code == 250 {
			taken++
		}
	}
	if taken == 0 {
		d.t.Fatal("no recipient was taken")
	}
}

// forgetPeak lets the peak of a process's memory begin anew.
func (p *process) forgetPeak(t *testing.T) {
	t.Helper()
	must(t, os.WriteFile("/proc/"+p.pid()+"/clear_refs", []byte("5"), 0))
}

// memoryLine is a line of what the system knows of a process's memory, in bytes: VmRSS is what is resident, VmHWM the most that was.
func (p *process) memoryLine(t *testing.T, name string) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/" + p.pid() + "/status")
	must(t, err)
	_, rest, found := strings.Cut(string(status), "\n"+name+":")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); !found || err != nil {
		t.Fatalf("no %s in %s", name, status)
	}
	return kib << 10
}
