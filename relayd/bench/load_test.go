package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/bench"
)

func newSink(t *testing.T, received func(string)) *bench.Sink {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sink := bench.NewSink(listener, received)
	t.Cleanup(func() { sink.Close() })
	return sink
}

func TestEveryMessageOfALoadArrivesOnceUnderItsID(t *testing.T) {
	var mu sync.Mutex
	var acknowledged, received []string
	sink := newSink(t, func(id string) { mu.Lock(); defer mu.Unlock(); received = append(received, id) })
	outcome, err := bench.Send(context.Background(), bench.Load{
		Server: sink.Addr(), From: "a@example.com", To: "b@example.net", Messages: 200, Sessions: 7, PerConnection: 9, RunID: "r",
		Acknowledged: func(id string) { mu.Lock(); defer mu.Unlock(); acknowledged = append(acknowledged, id) },
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(acknowledged)
	slices.Sort(received)
	if outcome.Accepted != 200 || sink.Messages() != 200 || !slices.Equal(acknowledged, received) || len(slices.Compact(received)) != 200 {
		t.Fatalf("accepted %d, sink %d, ids alike %v", outcome.Accepted, sink.Messages(), slices.Equal(acknowledged, received))
	}
	if got := sink.Bytes(); got < 200*5120 {
		t.Fatalf("sink saw %d bytes, want at least %d", got, 200*5120)
	}
}

func TestARefusalIsCountedByItsReplyAndNotAsAccepted(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go refuseEverything(listener)
	outcome, err := bench.Send(context.Background(), bench.Load{Server: listener.Addr().String(), From: "a@example.com", To: "b@example.net", Messages: 3})
	if err != nil {
		t.Fatal(err)
	}
	if outcome.Accepted != 0 || outcome.Replies["450-4.7.1 Relay limit reached"] != 3 {
		t.Fatalf("outcome %+v", outcome)
	}
}

func TestABrokenConnectionIsTriedAgainOnlyWhereTheLoadSaysSo(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	outcome, err := bench.Send(context.Background(), bench.Load{Server: addr, From: "a@example.com", To: "b@example.net", Messages: 2})
	if err != nil || outcome.Broken != 2 {
		t.Fatalf("without retry: %v %+v", err, outcome)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	outcome, err = bench.Send(ctx, bench.Load{Server: addr, From: "a@example.com", To: "b@example.net", Messages: 2, RetryAfter: time.Millisecond})
	if err == nil || outcome.Broken < 3 {
		t.Fatalf("with retry: %v %+v", err, outcome)
	}
}

func TestTheProgramNamesWhatItDoesNotKnow(t *testing.T) {
	var out, errs bytes.Buffer
	if code := bench.Main(context.Background(), []string{"teleport"}, &out, &errs); code != 2 || !strings.Contains(errs.String(), `unknown command "teleport"`) {
		t.Fatalf("exit %d, %s", code, errs.String())
	}
}

func refuseEverything(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			c.Write([]byte("220 x\r\n"))
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				for _, line := range strings.SplitAfter(string(buf[:n]), "\r\n") {
					switch {
					case strings.HasPrefix(line, "RCPT"):
						c.Write([]byte("450-4.7.1 Relay limit reached\r\n450 4.7.1 reason=quota-reached\r\n"))
					case strings.HasPrefix(line, "DATA"):
						c.Write([]byte("503 5.5.1 no recipient\r\n"))
					case line != "":
						c.Write([]byte("250 ok\r\n"))
					}
				}
			}
		}()
	}
}

func TestAMailboxKeepsEachMessageAsItWasSent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "000001.eml"), []byte("of an earlier run"), 0o600); err != nil {
		t.Fatal(err)
	}
	sink := bench.ServeSink(listener, bench.SinkOptions{KeepDir: dir})
	defer sink.Close()
	text := "Subject: dots\r\n\r\n.\r\n..two\r\nend\r\n"
	if err := smtp.SendMail(sink.Addr(), nil, "a@example.com", []string{"b@example.net"}, []byte(text)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "000002.eml"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Errorf("kept %q, want %q", got, text)
	}
}

func TestTheSinkTellsAWholeMessageFromADamagedOneAndWhoHandedItOn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrivals := make(chan bench.Arrival, 10)
	sink := bench.ServeSink(listener, bench.SinkOptions{
		Received: func(a bench.Arrival) { arrivals <- a },
		Refuse: func(recipient string) string {
			if recipient == "nobody@example.net" {
				return "550 5.1.1 no such user"
			}
			return ""
		},
	})
	defer sink.Close()
	for _, size := range []int{0, 700, 701, 702, 75 * 60, 300 << 10} { // some end in the middle of a line, or of its end
		if _, err := bench.Send(context.Background(), bench.Load{Server: sink.Addr(), From: "a@example.com", To: "b@example.net", Also: []string{"c@example.net"}, SizeBytes: size}); err != nil {
			t.Fatal(err)
		}
		if a := <-arrivals; a.Damaged || a.ID != "load-1" || a.From != "a@example.com" || !slices.Equal(a.Recipients, []string{"b@example.net", "c@example.net"}) {
			t.Errorf("%d bytes arrived as %+v", size, a)
		}
	}
	relayed := "Received: from x ([192.0.2.1])\r\n\tby edge.example with ESMTP id 01KAQ7\r\n\tfor <b@example.net>;\r\n\tTue, 24 Nov 2026 10:00:00 +0000\r\n" +
		"Received: from y\r\n\tby other.example with ESMTP id 77;\r\n\tTue, 24 Nov 2026 10:00:00 +0000\r\n"
	if err := smtp.SendMail(sink.Addr(), nil, "", []string{"b@example.net"}, []byte(relayed+"X-Load-Id: 7\r\nX-Load-Sum: 00000001\r\n\r\n..half\r\n")); err != nil {
		t.Fatal(err)
	}
	if a := <-arrivals; !a.Damaged || a.QueueID != "01KAQ7" || a.ID != "7" || !strings.HasSuffix(string(a.Text), "\r\n..half\r\n") {
		t.Errorf("a damaged message arrived as %+v", a)
	}
	if err := smtp.SendMail(sink.Addr(), nil, "", []string{"nobody@example.net"}, []byte(relayed)); err == nil || !strings.Contains(err.Error(), "5.1.1") {
		t.Errorf("a recipient to be refused: %v", err)
	}
}

func TestTheSenderTellsEveryReplyAndWhatIsInDoubt(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var served sync.WaitGroup
	served.Go(func() { // 451 to the first text, no reply to the second, 250 to the third
		for _, reply := range []string{"451 4.3.0 later\r\n", "", "250 2.0.0 Ok: queued as 3\r\n"} {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			answerOne(c, reply)
		}
	})
	var told []string
	outcome, err := bench.Send(context.Background(), bench.Load{
		Server: listener.Addr().String(), From: "a@example.com", To: "b@example.net", RetryAfter: time.Millisecond, PerConnection: 1,
		Told: func(id, reply string) { told = append(told, id+" "+reply) },
	})
	served.Wait()
	if want := []string{"load-1 451 4.3.0 later", "load-1 ", "load-1 250 2.0.0 Ok: queued as 3"}; err != nil || outcome.Accepted != 1 || !slices.Equal(told, want) {
		t.Fatalf("%v %+v, told %q", err, outcome, told)
	}
}

// answerOne takes one message and ends the connection.
func answerOne(c net.Conn, reply string) {
	defer c.Close()
	in := bufio.NewReader(c)
	c.Write([]byte("220 x\r\n"))
	for {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return
		case line == ".\r\n":
			c.Write([]byte(reply))
			return
		case strings.HasPrefix(line, "DATA"):
			c.Write([]byte("354 go on\r\n"))
		case strings.HasPrefix(line, "EHLO"), strings.HasPrefix(line, "MAIL"), strings.HasPrefix(line, "RCPT"):
			c.Write([]byte("250 ok\r\n"))
		}
	}
}
