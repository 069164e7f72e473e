package smtpd

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/scan"
)

// counted is the value of a counter, or of one with a label.
func (e *edge) counted(name, label string) float64 {
	e.t.Helper()
	families, err := e.metrics.Gather()
	e.must(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// Matrix row 14: most of the connections are taken by clients that drip bytes or only keep themselves alive. They are let go,
// again and again, and a real client is served all the while.
func TestRow14SlowClientsDoNotKeepARealOneOut(t *testing.T) {
	const slow, room, real, idle = 200, 220, 50, 250 * time.Millisecond
	e := startEdge(t, func(o *setup) {
		o.limits.Connections, o.limits.ConnectionsPerIP = room, room
		o.limits.StressIdle = idle
	})
	over := make(chan struct{})
	ends := make(chan string, 1000*slow)
	var attackers sync.WaitGroup
	for i := range slow {
		say := "N"
		if i%2 == 0 {
			say = "NOOP\r\n"
		}
		attackers.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					ends <- keepAlive(e.address, say, over)
				}
			}
		})
	}
	saw := map[string]int{}
	for range slow { // the attack is under way
		saw[<-ends]++
	}
	var took []time.Duration
	for start := time.Now(); len(took) < real || time.Since(start) < 4*idle; {
		began := time.Now()
		for !e.deliversOne() { // a mail server tries again
			if time.Since(began) > patience {
				t.Fatal("a real client does not get through")
			}
		}
		took = append(took, time.Since(began))
	}
	close(over)
	attackers.Wait()
	close(ends)
	slices.Sort(took)
	if worst := took[len(took)-1]; worst > patience {
		t.Errorf("a message took up to %v", worst)
	}
	t.Logf("of %d messages beside %d slow clients the slowest took %v, the median %v", len(took), slow, took[len(took)-1], took[len(took)/2])
	for end := range ends {
		saw[end]++
	}
	if saw["421 4.4.2"] == 0 || saw["421 4.7.0"] == 0 {
		t.Errorf("slow clients were told %v", saw)
	}
	if messages, _ := e.stored(); len(messages) != len(took) {
		t.Errorf("%d messages stored, want %d", len(messages), len(took))
	}
}

// deliversOne reports whether a whole message got through. It is false when the server said 421: those that were let go are still
// being counted, or this test was too slow for a server under stress.
func (e *edge) deliversOne() bool {
	e.t.Helper()
	c := e.connect()
	defer c.conn.Close()
	steps := []struct{ say, want string }{
		{want: "220"},
		{say: "EHLO client.test\r\n", want: "250"},
		{say: "MAIL FROM:<anna@ok.test>\r\n", want: "250"},
		{say: "RCPT TO:<carl@sink.test>\r\n", want: "250"},
		{say: "DATA\r\n", want: "354"},
		{say: text("anna@ok.test") + ".\r\n", want: "250"},
	}
	for i, step := range steps {
		_, _ = io.WriteString(c.conn, step.say) // the reply is missing then
		switch got, err := c.reply(); {
		case strings.HasPrefix(got, step.want):
		case strings.HasPrefix(got, "421"), err != nil && !isDeadline(err) && i < len(steps)-1: // it was cut off before the 421 was read
			return false
		default:
			e.t.Fatalf("%q was answered %q, %v", step.say, got, err)
		}
	}
	return true
}

// keepAlive says something every now and then until the server has enough, and returns the code that it was told.
func keepAlive(address, say string, over <-chan struct{}) string {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	told := make(chan string, 1)
	go func() {
		in, last := bufio.NewReader(conn), ""
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				told <- last
				return
			}
			if strings.HasPrefix(line, "421 ") {
				last = line[:len("421 4.4.2")]
			}
		}
	}()
	_, _ = io.WriteString(conn, "EHLO c.test\r\n") // the reader sees the end
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = io.WriteString(conn, say)
		case last := <-told:
			return last
		case <-over:
			conn.Close()
			<-told
			return "over"
		}
	}
}

// Matrix row 17: whoever guesses passwords gets twenty tries a minute, half of them at once, three for each connection; the user
// that is guessed goes on logging in from where it always does, and the operator is told once.
func TestRow17GuessersAreSlowedAndTheUserIsNot(t *testing.T) {
	t.Parallel()
	const connections = 15
	e := startEdge(t, nil)
	usual := e.hello()
	usual.login("anna@ok.test", password, "235 .*")
	var wrong, turnedAway, most int
	var mu sync.Mutex
	var guessers sync.WaitGroup
	for i := range connections {
		guessers.Go(func() {
			codes := guess(e.address, i)
			mu.Lock()
			defer mu.Unlock()
			most = max(most, len(codes))
			for _, code := range codes {
				switch code {
				case "535":
					wrong++
				case "421":
					turnedAway++
				default:
					t.Errorf("a guess was answered %s", code)
				}
			}
		})
	}
	// Not remembered as right, so it is checked like any other.
	e.server.gate.mu.Lock()
	clear(e.server.gate.right)
	e.server.gate.mu.Unlock()
	began := time.Now()
	again := e.hello()
	e.must(again.conn.SetDeadline(time.Now().Add(3 * patience))) // the race detector makes checks slow
	again.login("anna@ok.test", password, "235 .*")
	t.Logf("the user waited %v", time.Since(began)) // for its turn to be checked, not for having failed
	guessers.Wait()
	// One more falls due every six seconds.
	due := 11 + int(time.Since(began)/(6*time.Second))
	if wrong > due || turnedAway == 0 || most > 3 {
		t.Errorf("%d guesses were checked, %d turned away, %d over one connection; want at most %d, some, at most 3", wrong, turnedAway, most, due)
	}
	if got := e.counted("relayd_smtp_logins_total", "wrong"); int(got) != wrong {
		t.Errorf("%v wrong logins are counted, want %d", got, wrong)
	}
	if got := e.counted("relayd_smtp_logins_total", "turned-away"); int(got) != turnedAway {
		t.Errorf("%v are counted as turned away, want %d", got, turnedAway)
	}
	minutes := 1 + int(time.Since(began)/time.Minute)
	for of, message := range map[string]string{"address": "an address guesses passwords", "user": "passwords of a user are guessed"} {
		alarms := int(e.counted("relayd_smtp_guessing_total", of))
		if lines := strings.Count(e.log.String(), message); alarms < 1 || alarms > minutes || lines != alarms {
			t.Errorf("%d alarms and %d lines about the %s, want one a minute", alarms, lines, of)
		}
	}
	if log := e.log.String(); !strings.Contains(log, `level=WARN msg="an address guesses passwords" client=127.0.0.2`) {
		t.Errorf("the log does not name the address:\n%s", log)
	}
}

// Wherever a minute begins: a burst at its end must not add to one at its beginning.
func TestRow17NoMinuteSeesMoreThanTwentyWrongPasswords(t *testing.T) {
	b, now := newStrictBuckets(20), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var tries []time.Time
	for range 600 { // of ten minutes, a second each
		for range 3 {
			if b.take("a", now) == 0 {
				tries = append(tries, now)
			} else {
				b.give("a", now)
			}
		}
		now = now.Add(time.Second)
	}
	for i, from := range tries {
		n := 0
		for _, at := range tries[i:] {
			if at.Sub(from) < time.Minute {
				n++
			}
		}
		if n > 20 {
			t.Fatalf("%d tries in the minute from %s", n, from)
		}
	}
	if len(tries) < 100 {
		t.Errorf("%d tries in ten minutes, want ten a minute", len(tries))
	}
}

// guess tries passwords of anna's from 127.0.0.2 until the connection ends, and returns the codes.
func guess(address string, salt int) (codes []string) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return []string{err.Error()}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * patience)) // the reads fail
	in := bufio.NewReader(conn)
	_, _ = in.ReadString('\n')
	_, _ = io.WriteString(conn, "EHLO c.test\r\n")
	for line := ""; !strings.HasPrefix(line, "250 ") && err == nil; {
		line, err = in.ReadString('\n')
	}
	for n := 0; err == nil; n++ {
		secret := fmt.Sprintf("\x00anna@ok.test\x00guess %d of %d", n, salt)
		_, _ = io.WriteString(conn, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte(secret))+"\r\n")
		line := ""
		for (len(line) < 4 || line[3] == '-') && err == nil {
			line, err = in.ReadString('\n')
		}
		if err == nil {
			codes = append(codes, line[:3])
		}
	}
	return codes
}

// Matrix row 19: what is too much is refused, costs little memory, and what is just enough is accepted.
func TestRow19SizesAreKeptToWhateverIsAnnounced(t *testing.T) {
	const limit = 1 << 20
	e := startEdge(t, nil)
	exact := func(n int) string {
		head := text("anna@ok.test")
		line := strings.Repeat("x", 998) + "\r\n"
		body := head + strings.Repeat(line, (n-len(head))/len(line)-1)
		return body + strings.Repeat("y", n-len(body)-2) + "\r\n"
	}
	c := e.hello()
	c.mail("anna@ok.test", exact(limit), queuedAs)
	c.mail("anna@ok.test", exact(limit+1), `(?s)552-5\.3\.4 .*`)
	c.ask("MAIL FROM:<anna@ok.test> SIZE=10", "250 .*")
	c.ask("RCPT TO:<carl@sink.test>", "250 .*")
	c.data(exact(limit+1), `(?s)552-5\.3\.4 .*`)
	c.ask("MAIL FROM:<anna@ok.test> SIZE=99999999999999999999", `(?s)552-5\.3\.4 .*`)
	c.ask("MAIL FROM:<anna@ok.test> SIZE=-1", `(?s)501-.*`)
	c.mail("anna@ok.test", text("anna@ok.test"), queuedAs)
	if messages, texts := e.stored(); len(messages) != 2 || len(below(t, texts[0])) != limit && len(below(t, texts[1])) != limit {
		t.Errorf("%d messages stored, want 2", len(messages))
	}
}

func TestRow19OversizedStructureCostsLittle(t *testing.T) {
	e := startEdge(t, func(o *setup) {
		o.world.settings(func(s *api.Settings) { s.MaxMessageBytes = 64 << 20 })
	})
	head := text("anna@ok.test")
	mime := "From: anna@ok.test\r\nMIME-Version: 1.0\r\n"
	for i := range 1000 {
		mime += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	cases := []struct {
		name, want string
		wire       func(io.Writer)
	}{
		{name: "a million header fields", want: `(?s)550-5\.6\.0 .*more than 2000 fields.*`, wire: func(w io.Writer) {
			_, _ = io.WriteString(w, "From: anna@ok.test\r\n")
			for range 1000 {
				_, _ = io.WriteString(w, strings.Repeat("X: y\r\n", 1000))
			}
			_, _ = io.WriteString(w, "\r\n.\r\n")
		}},
		{name: "an endless header field", want: `(?s)550-5\.6\.0 .*longer than \d+ bytes.*`, wire: func(w io.Writer) {
			_, _ = io.WriteString(w, "From: anna@ok.test\r\nX: y\r\n")
			for range 1000 {
				_, _ = io.WriteString(w, strings.Repeat(" folded\r\n", 1000))
			}
			_, _ = io.WriteString(w, "\r\n.\r\n")
		}},
		{name: "a thousand levels of MIME", want: queuedAs, wire: func(w io.Writer) { _, _ = io.WriteString(w, mime+".\r\n") }},
		{name: "a large body", want: queuedAs, wire: func(w io.Writer) {
			_, _ = io.WriteString(w, head)
			for range 60 {
				_, _ = io.WriteString(w, strings.Repeat(strings.Repeat("z", 1022)+"\r\n", 1024))
			}
			_, _ = io.WriteString(w, ".\r\n")
		}},
	}
	e.server.Scanner = scan.Chain{scannerFunc(func(context.Context, scan.Message) (scan.Verdict, error) {
		return scan.Verdict{Outcome: scan.Clean}, nil // the one of the other tests reads all at once
	})}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := e.hello()
			c.t = t
			c.envelope("anna@ok.test", "carl@sink.test")
			c.ask("DATA", "354 .*")
			runtime.GC()
			before := heapBytes()
			test.wire(c.conn)
			c.want(test.want)
			if grown := int64(heapBytes()) - int64(before); grown > 64<<20 {
				t.Errorf("the heap grew by %d bytes", grown)
			}
		})
	}
}

// heapBytes is what the heap holds, garbage included.
func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}

func TestRow19TooManyRecipientsAreOneDecision(t *testing.T) {
	const many = 100_000
	e := startEdge(t, nil)
	c := e.hello()
	e.must(c.conn.SetDeadline(time.Now().Add(10 * patience))) // the race detector makes them slow
	c.ask("MAIL FROM:<anna@ok.test>", "250 .*")
	go func() {
		w := bufio.NewWriter(c.conn)
		for i := range many {
			fmt.Fprintf(w, "RCPT TO:<c%d@sink.test>\r\n", i)
		}
		_ = w.Flush() // the replies are missing then
	}()
	accepted, refs := 0, map[string]bool{}
	for range many {
		got, err := c.reply()
		e.must(err)
		if strings.HasPrefix(got, "250 ") {
			accepted++
			continue
		}
		_, rest, _ := strings.Cut(got, "reason=too-many-recipients ref=")
		ref, _, _ := strings.Cut(rest, " ")
		refs[ref] = true
	}
	c.data(text("anna@ok.test"), queuedAs)
	if messages, _ := e.stored(); accepted != 100 || len(messages[0].Recipients) != 100 {
		t.Errorf("%d recipients accepted, %d stored, want 100", accepted, len(messages[0].Recipients))
	}
	if events := e.events(); len(refs) != 1 || len(events) != 2 {
		t.Errorf("%d references and %d events, want one refusal and one message", len(refs), len(events))
	}
}

// Matrix row 20: the client drops between the final dot and the 250. The message is stored once, the loss of the reply is
// counted, and a second try is a second message.
func TestRow20ReplyThatDoesNotReachTheClientIsCounted(t *testing.T) {
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset=%v", reset), func(t *testing.T) {
			scanning, left := make(chan struct{}), make(chan struct{})
			e := startEdge(t, func(o *setup) {
				first := true
				o.scanner = scannerFunc(func(context.Context, scan.Message) (scan.Verdict, error) {
					if first {
						first = false
						close(scanning)
						<-left
					}
					return scan.Verdict{Outcome: scan.Clean}, nil
				})
			})
			c := e.hello()
			c.envelope("anna@ok.test", "carl@sink.test")
			c.ask("DATA", "354 .*")
			c.raw(text("anna@ok.test") + ".\r\n")
			<-scanning
			if reset {
				e.must(c.conn.(*net.TCPConn).SetLinger(0))
			}
			e.must(c.conn.Close())
			close(left)
			first := <-e.queued
			e.hello().mail("anna@ok.test", text("anna@ok.test"), queuedAs)
			e.must(e.server.Shutdown(context.Background()))
			if messages, _ := e.stored(); len(messages) != 2 {
				t.Errorf("%d messages stored, want 2: each try one", len(messages))
			}
			if got := e.counted("relayd_smtp_replies_undelivered_total", ""); got != 1 {
				t.Errorf("%v replies are counted as undelivered, want 1", got)
			}
			if log := e.log.String(); strings.Count(log, "reply undelivered") != 1 || !strings.Contains(log, first) {
				t.Errorf("the log does not say which reply was lost:\n%s", log)
			}
		})
	}
}
