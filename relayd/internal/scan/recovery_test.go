package scan

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Matrix row 22, whatever the daemon did and at whatever moment it is back: nothing passes unscanned until then, and mail passes
// within five seconds.
func TestRow22MailPassesWithinFiveSecondsOfTheScannersReturn(t *testing.T) {
	for _, f := range []struct {
		fault  fault
		outage time.Duration
	}{
		{fault: refuses, outage: 5 * time.Second},
		{fault: closes, outage: 5 * time.Second},
		{fault: babbles, outage: 5 * time.Second},
		{fault: hangs, outage: 5 * time.Second},
		{fault: hangs, outage: 70 * time.Second}, // longer than a scan may last, so that it is asked no more
		{fault: forgets, outage: 70 * time.Second},
	} {
		t.Run(fmt.Sprintf("%s for %s", f.fault, f.outage), func(t *testing.T) {
			longest := time.Duration(0)
			// This long are the pause between two probes and the time that one may take.
			for more := time.Duration(0); more <= probePause+probeTimeout; more += 100 * time.Millisecond {
				synctest.Test(t, func(t *testing.T) { longest = max(longest, recovery(t, f.fault, f.outage+more)) })
			}
			t.Logf("it took up to %s", longest)
			if longest > 5*time.Second {
				t.Errorf("mail passed %s after the scanner was back, want 5 s at most", longest)
			}
		})
	}
}

// recovery answers how long after the daemon's return the first of the messages that come ten times a second was clean.
func recovery(t *testing.T, f fault, outage time.Duration) time.Duration {
	t.Helper()
	daemon := &fakeClamd{fault: f, back: make(chan struct{})}
	d, err := NewClamd(ClamdConfig{Address: "clamd.test:3310"})
	if err != nil {
		t.Fatal(err)
	}
	d.connect = daemon.connect
	began := time.Now()
	var clean atomic.Int64 // when the first message was, since began
	var scans sync.WaitGroup
	defer scans.Wait()
	const text = "x"
	for since := time.Duration(0); clean.Load() == 0; since = time.Since(began) {
		if since > outage+time.Minute {
			t.Fatalf("not back a minute after its return: %+v", d.Health())
		}
		if since >= outage && !daemon.up() {
			close(daemon.back)
		}
		scans.Go(func() {
			m := Message{ID: "m", SizeBytes: int64(len(text)), Open: func() io.Reader { return strings.NewReader(text) }}
			if v, err := d.Scan(t.Context(), m); err == nil && v.Outcome == Clean {
				clean.CompareAndSwap(0, int64(time.Since(began)))
			}
		})
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Duration(clean.Load()) - outage
	if took < 0 {
		t.Errorf("a message passed %s before the scanner was back", -took)
	}
	return took
}

// fault is what a daemon does with who connects, until it is back.
type fault string

const (
	refuses fault = "refuses"
	closes  fault = "closes"
	babbles fault = "babbles"
	hangs   fault = "hangs"   // and answers once it is back, as after SIGCONT
	forgets fault = "forgets" // hangs, and never answers on that connection
)

// fakeClamd is a daemon without a network, so that its time is that of the test.
type fakeClamd struct {
	fault fault
	back  chan struct{} // closed at its return
}

func (f *fakeClamd) up() bool {
	select {
	case <-f.back:
		return true
	default:
		return false
	}
}

func (f *fakeClamd) connect(context.Context, string, string) (net.Conn, error) {
	if !f.up() && f.fault == refuses {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		if f.up() {
			answer(server, "stream: OK", "PONG")
			return
		}
		switch f.fault {
		case closes:
		case babbles:
			answer(server, "stream: perhaps", "perhaps")
		case hangs:
			gone, wait := context.WithTimeout(context.Background(), time.Minute)
			defer wait()
			select {
			case <-f.back:
				answer(server, "stream: OK", "PONG")
			case <-gone.Done():
			}
		case forgets:
			_, _ = io.Copy(io.Discard, server)
		}
	}()
	return client, nil
}

// answer reads one command and says what it is told to of a message, or of another command.
func answer(conn net.Conn, message, other string) {
	in := bufio.NewReader(conn)
	command, err := in.ReadString(0)
	if err != nil {
		return
	}
	reply := other
	if command == "zINSTREAM\x00" {
		reply = message
		for n := uint32(1); n > 0; {
			if err := binary.Read(in, binary.BigEndian, &n); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
				return
			}
		}
	}
	_, _ = io.WriteString(conn, reply+"\x00") // the client may have gone
}
