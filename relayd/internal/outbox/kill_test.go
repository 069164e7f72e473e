package outbox_test

import (
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"activerelay/api"
	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/outbox"
	"activerelay/relayd/relaytest"
)

// childDir tells the re-executed test binary to be the victim.
const childDir = "OUTBOX_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, child(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child writes events, durable and lazy, and "sends" them until it is killed:
// it prints "sent NUMBER NAME" of each event that Next gave out, and "made
// NAME" of each whose batch is durable.
func child(dir string) error {
	j, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		return err
	}
	o, err := outbox.Open(outbox.Config{Journal: j, Now: time.Now})
	if err != nil {
		return err
	}
	var out sync.Mutex
	say := func(words ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(words...)
	}
	errs := make(chan error)
	for w := range 4 {
		go func() { errs <- childWrites(j, o, fmt.Sprintf("%d.%d", os.Getpid(), w), say) }()
	}
	go func() { errs <- childSends(o, say) }()
	return <-errs
}

func childWrites(j *journal.Journal, o *outbox.Outbox, who string, say func(...any)) error {
	for i := 0; ; i++ {
		b, name := j.NewBatch(), fmt.Sprintf("%s.%d", who, i)
		if err := o.Append(b, api.EdgeEvent{Kind: api.EdgeEventKindMessageAccepted, Detail: &name}); err != nil {
			return err
		}
		if i%3 == 0 {
			if err := j.CommitLazy(b); err != nil {
				return err
			}
			continue
		}
		if err := j.Commit(b); err != nil {
			return err
		}
		say("made", name)
	}
}

func childSends(o *outbox.Outbox, say func(...any)) error {
	for {
		batch, err := o.Next(100)
		if err != nil {
			return err
		}
		var decoded api.EventBatch
		if err := json.Unmarshal(batch.Body, &decoded); batch.Events > 0 && err != nil {
			return err
		}
		for _, e := range decoded.Events {
			say("sent", e.Sequence, *e.Detail)
		}
		if n := batch.Events; n > 1 {
			if err := o.Ack(batch.First + int64(n/2)); err != nil {
				return err
			}
		}
	}
}

func TestKillNineNeitherLosesAnEventNorGivesItsNumberToAnother(t *testing.T) {
	dir := t.TempDir()
	sent, made := map[int64]string{}, map[string]bool{}
	for round := range 6 {
		runVictim(t, dir, 500+mathrand.IntN(3000), sent, made)
		j, err := journal.Open(journal.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		events := stored(t, j)
		names := map[string]bool{}
		for n := int64(1); n <= int64(len(events)); n++ {
			name, ok := events[n]
			if !ok {
				t.Fatalf("round %d: event %d of %d is missing", round, n, len(events))
			}
			if before, ok := sent[n]; ok && before != name {
				t.Fatalf("round %d: event %d was sent as %s and is %s", round, n, before, name)
			}
			names[name] = true
		}
		for n, name := range sent {
			if events[n] != name {
				t.Errorf("round %d: event %d was sent as %s and is lost", round, n, name)
			}
		}
		for name := range made {
			if !names[name] {
				t.Errorf("round %d: event %s was durable and is lost", round, name)
			}
		}
		if len(names) != len(events) {
			t.Errorf("round %d: an event has two numbers", round)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d events made, %d sent", len(made), len(sent))
}

func runVictim(t *testing.T, dir string, stop int, sent map[int64]string, made map[string]bool) {
	t.Helper()
	n := 0
	killed := relaytest.RunVictim(t, []string{childDir + "=" + dir}, func(line string) bool {
		words := strings.Fields(line)
		if words[0] == "made" {
			made[words[1]] = true
		} else if number, err := strconv.ParseInt(words[1], 10, 64); err != nil {
			t.Fatal(err)
		} else if before, ok := sent[number]; ok && before != words[2] {
			t.Fatalf("event %d was sent as %s and as %s", number, before, words[2])
		} else {
			sent[number] = words[2]
		}
		n++
		return n == stop
	})
	if !killed {
		t.Fatalf("the victim ended by itself after %d lines", n)
	}
}
