package e2e

import (
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
