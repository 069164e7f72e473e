package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// waiting is what relayctl shows of a message in the queue.
type waiting struct {
	MessageID   string `json:"message_id"`
	Domain      string `json:"domain"`
	Sender      string `json:"sender"`
	Destination string `json:"destination"`
	State       string `json:"state"`
	Attempts    int    `json:"attempts"`
	LastReply   string `json:"last_reply"`
}

func (s *stack) queue(args ...string) []waiting {
	s.t.Helper()
	var list struct{ Items []waiting }
	s.ctlJSON(&list, append([]string{"queue", "list"}, args...)...)
	return list.Items
}

// operate acts on the queue, and waits until the edges have told what they changed.
func (s *stack) operate(args ...string) (messages int) {
	s.t.Helper()
	var op struct{ Messages int }
	s.ctlJSON(&op, append([]string{"queue"}, append(args, "--yes", "--wait", "60s")...)...)
	return op.Messages
}

// queuedID is the id of a message in the reply to it.
func queuedID(t *testing.T, r reply) string {
	t.Helper()
	_, id, found := strings.Cut(r.first(), "queued as ")
	if r.code != 250 || !found {
		t.Fatal(r)
	}
	return strings.Fields(id)[0]
}

// arrived lists the senders of what arrived, as each wrote himself into the text.
func arrived(messages [][]byte, senders ...string) (found []string) {
	for _, sender := range senders {
		for _, message := range messages {
			if strings.Contains(string(message), "From: <"+sender+">") {
				found = append(found, sender)
			}
		}
	}
	return found
}

// Mail to a destination that is down is seen, held, cancelled, made due and released from the control plane, and the edge that is
// killed in between forgets none of it.
func TestTheQueueOfTheFleetIsSeenAndActedOn(t *testing.T) {
	down := "127.0.0.1:" + freePort(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(down)
	senders := []string{"anna@example.com", "ben@example.com", "carl@example.com", "dora@example.com"}
	ids := map[string]string{}
	d := dial(t, edge.relay, "127.0.0.1")
	for _, from := range senders {
		ids[from] = queuedID(t, d.send(from, "bob@example.net", letter(from, "")))
	}
	eventually(t, "four messages that wait, with the reason", func() bool {
		list := s.queue("--destination", "example.net")
		return len(list) == len(senders) && !slices.ContainsFunc(list, func(w waiting) bool {
			return w.State != "queued" || w.Attempts < 1 || !strings.Contains(w.LastReply, "4.4.") || w.Domain != "example.com"
		})
	})
	if list := s.queue("--sender", "ben@example.com"); len(list) != 1 || list[0].MessageID != ids["ben@example.com"] {
		t.Errorf("ben's mail is listed as %+v", list)
	}

	if n := s.operate("hold", "--message-ids", ids["ben@example.com"]); n != 1 {
		t.Errorf("held %d", n)
	}
	if n := s.operate("cancel", "--sender", "carl@example.com", "--reason", "account was stolen"); n != 1 {
		t.Errorf("cancelled %d", n)
	}
	edge.kill()
	edge.start()
	s.waitReady("http://" + edge.admin + "/readyz")
	states := map[string]string{}
	for _, w := range s.queue() {
		states[w.Sender] = w.State
	}
	if len(states) != 3 || states["ben@example.com"] != "held" || states["carl@example.com"] != "" {
		t.Errorf("waiting are %v", states)
	}

	inbox := smtpSinkAt(t, down)
	s.operate("retry", "--domain", "example.com")
	eventually(t, "nothing in the queue but what is held", func() bool {
		list := s.queue()
		return len(list) == 1 && list[0].Sender == "ben@example.com"
	})
	if got := arrived(received(t, inbox, 2), senders...); !slices.Equal(got, []string{"anna@example.com", "dora@example.com"}) {
		t.Errorf("arrived is the mail of %q", got)
	}

	if n := s.operate("release", "--domain", "example.com"); n != 1 {
		t.Errorf("released %d", n)
	}
	if got := arrived(received(t, inbox, 3), senders...); !slices.Equal(got, []string{"anna@example.com", "ben@example.com", "dora@example.com"}) {
		t.Errorf("arrived is the mail of %q", got)
	}
	eventually(t, "an empty queue", func() bool { return len(s.queue()) == 0 })
	if _, errs, code := s.ctlExit("queue", "show", ids["ben@example.com"]); code == 0 {
		t.Errorf("a delivered message is still shown: %s", errs)
	}
}

// Mail that an edge has set aside, here because its text was damaged on the disk, is seen with the reason. Mended it is released and
// arrives; what is beyond help is cancelled, and leaves nothing behind.
func TestMailThatAnEdgeHasSetAsideIsReleasedOrCancelled(t *testing.T) {
	down := "127.0.0.1:" + freePort(t)
	s := newStack(t)
	edge := s.addEdge()
	s.seed(down)
	ids, texts := map[string]string{}, map[string][]byte{}
	file := func(sender string) string { return filepath.Join(edge.dir, "spool", ids[sender]) }
	d := dial(t, edge.relay, "127.0.0.1")
	for _, from := range []string{"anna@example.com", "ben@example.com"} {
		long := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 5000) // so long that it is a file
		ids[from] = queuedID(t, d.send(from, "bob@example.net", letter(from, "")+long))
		text, err := os.ReadFile(file(from))
		must(t, err)
		texts[from] = text
		must(t, os.WriteFile(file(from), bytes.ToUpper(text), 0o600))
	}
	eventually(t, "two messages that wait", func() bool { return len(s.queue("--domain", "example.com")) == 2 })
	inbox := smtpSinkAt(t, down)
	s.operate("retry", "--domain", "example.com")
	eventually(t, "two messages that are set aside, with the reason", func() bool {
		list := s.queue("--state", "quarantined")
		return len(list) == 2 && !slices.ContainsFunc(list, func(w waiting) bool { return !strings.Contains(w.LastReply, "checksum") })
	})
	if n := s.operate("retry", "--domain", "example.com") + s.operate("hold", "--domain", "example.com"); n != 0 {
		t.Errorf("retried or held %d of what is set aside", n)
	}

	must(t, os.WriteFile(file("anna@example.com"), texts["anna@example.com"], 0o600))
	if n := s.operate("release", "--message-ids", strings.ToLower(ids["anna@example.com"])); n != 1 {
		t.Errorf("released %d", n)
	}
	if got := arrived(received(t, inbox, 1), "anna@example.com", "ben@example.com"); !slices.Equal(got, []string{"anna@example.com"}) {
		t.Errorf("arrived is the mail of %q", got)
	}
	if n := s.operate("cancel", "--domain", "example.com", "--sender", "ben@example.com"); n != 1 {
		t.Errorf("cancelled %d", n)
	}
	eventually(t, "an empty queue", func() bool { return len(s.queue()) == 0 })
	for sender := range ids {
		eventually(t, "the text of "+sender+" is removed", func() bool {
			_, err := os.Stat(file(sender))
			return errors.Is(err, fs.ErrNotExist)
		})
	}
}
