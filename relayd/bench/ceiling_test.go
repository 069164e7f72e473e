package bench_test

import (
	"context"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"activerelay/relayd/bench"
)

func TestTheCeilingHandsOnEveryMessageThatItAcknowledges(t *testing.T) {
	for name, perConnection := range map[string]int{"one message for each connection": 1, "many": 0} {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan string, 500)
			sink := newSink(t, func(id string) { arrived <- id })
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ceiling, err := bench.NewCeiling(listener, sink.Addr(), t.TempDir(), 3)
			if err != nil {
				t.Fatal(err)
			}
			defer ceiling.Close()
			var mu sync.Mutex
			var acknowledged, received []string
			outcome, err := bench.Send(context.Background(), bench.Load{
				Server: listener.Addr().String(), From: "a@example.com", To: "b@example.net", Messages: 300, Sessions: 8, SizeBytes: 30_000,
				PerConnection: perConnection, Acknowledged: func(id string) { mu.Lock(); defer mu.Unlock(); acknowledged = append(acknowledged, id) },
			})
			if err != nil || outcome.Accepted != 300 {
				t.Fatalf("accepted %d, replies %v, %v", outcome.Accepted, outcome.Replies, err)
			}
			for range 300 {
				select {
				case id := <-arrived:
					received = append(received, id)
				case <-time.After(10 * time.Second):
					t.Fatalf("only %d messages arrived", len(received))
				}
			}
			slices.Sort(acknowledged)
			slices.Sort(received)
			if !slices.Equal(acknowledged, received) {
				t.Error("what arrived is not what was acknowledged")
			}
			if got := sink.Bytes(); got < 300*30_000 {
				t.Errorf("%d bytes arrived", got)
			}
		})
	}
}

func TestTheCostOfAProcessCanBeRead(t *testing.T) {
	self := bench.Processes{Root: os.Getpid()}
	before, err := self.CPU()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		after, err := self.CPU()
		if err != nil {
			t.Fatal(err)
		}
		if after-before >= 50*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no CPU time in ten busy seconds")
		}
	}
	pss, processes, err := self.Memory()
	if err != nil || processes < 1 || pss < 1<<20 {
		t.Errorf("%d bytes in %d processes, %v", pss, processes, err)
	}
	if _, err := (bench.Processes{Root: 1 << 30}).CPU(); err == nil {
		t.Error("a process that is not there has a cost")
	}
}
