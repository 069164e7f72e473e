package oracle_test

import (
	"fmt"
	"strings"
	"testing"

	"activerelay/cli/e2e/oracle"
)

const (
	bob    = "bob@example.net"
	nobody = "nobody@example.net"
	carl   = "carl@example.org"
)

// sound are books of three messages to three recipients each: all three of the first have an end, the second waits for one
// domain, the third was refused.
func sound() (*oracle.Books, oracle.State) {
	b := oracle.New(oracle.To(bob, nobody, carl))
	now := oracle.State{Queue: []oracle.Waiting{{QueueID: "Q2", Destination: "example.net", Recipients: 2}}, Limit: 10}
	accept(b, &now, "m1", "Q1")
	b.Delivered("m1", "Q1", []string{bob}, false)
	b.Delivered("m1", "Q1", []string{carl}, false)
	b.Notified(notification("m1", "Q1", "failed", nobody))
	accept(b, &now, "m2", "Q2")
	b.Delivered("m2", "Q2", []string{carl}, false)
	b.Told("m3", "452-4.3.1 The queue is full")
	return b, now
}

func accept(b *oracle.Books, now *oracle.State, testID, queueID string) {
	b.Told(testID, "250 2.0.0 Ok: queued as "+queueID)
	now.Used++
}

func notification(testID, queueID, action string, recipients ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from x ([192.0.2.1])\r\n\tby edge.example with ESMTP id NOT-THIS;\r\n\tnow\r\nSubject: Not delivered\r\n\r\n")
	fmt.Fprintf(&b, "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; edge.example\r\n\r\n")
	for _, r := range recipients {
		fmt.Fprintf(&b, "Final-Recipient: rfc822; %s\r\nAction: %s\r\nStatus: 5.1.1\r\n\r\n", r, action)
	}
	fmt.Fprintf(&b, "Content-Type: text/rfc822-headers\r\n\r\nReceived: from load.example ([127.0.0.1])\r\n\tby edge.example with ESMTP id %s;\r\n\tnow\r\nX-Load-Id: %s\r\n", queueID, testID)
	return []byte(b.String())
}

func TestSoundBooksAreFoundSound(t *testing.T) {
	b, now := sound()
	v := b.Judge(now, oracle.Bounds{})
	if len(v.Wrong) > 0 || v.Accepted != 2 || v.Waits != 2 || v.Returned != 1 {
		t.Error(v)
	}
}

// mistake is one thing that is wrong with books that are sound otherwise, and what the judgement says of it.
type mistake struct {
	spoil  func(*oracle.Books, *oracle.State)
	bounds oracle.Bounds
	want   string
}

// wantFound makes each mistake alone, and wants it found and nothing else.
func wantFound(t *testing.T, mistakes map[string]mistake) {
	t.Helper()
	for name, m := range mistakes {
		b, now := sound()
		m.spoil(b, &now)
		v := b.Judge(now, m.bounds)
		if len(v.Wrong) != 1 || v.Wrong[0] != m.want {
			t.Errorf("%s: %q, want only %q", name, v.Wrong, m.want)
		}
	}
}

func TestMailThatIsNowhereIsFound(t *testing.T) {
	wantFound(t, map[string]mistake{
		"a message that is nowhere": {
			spoil: func(b *oracle.Books, now *oracle.State) { accept(b, now, "m4", "Q4") },
			want:  "D: m4, answered 250 as Q4, is lost",
		},
		"a lost message of which a second try arrived": {
			spoil: func(b *oracle.Books, now *oracle.State) {
				accept(b, now, "m4", "Q4")
				accept(b, now, "m4", "Q5")
				b.Delivered("m4", "Q5", []string{bob, nobody, carl}, false)
			},
			want: "D: m4, answered 250 as Q4, is lost",
		},
		"a recipient who is nowhere, where others of the message are": {
			spoil: func(_ *oracle.Books, now *oracle.State) { now.Queue[0].Recipients = 1 },
			want:  "D: m2 (Q2) is lost for 1 recipients at example.net",
		},
		"a failure that is not reported": {
			spoil: func(b *oracle.Books, now *oracle.State) {
				accept(b, now, "m4", "Q4")
				b.Delivered("m4", "Q4", []string{bob, carl}, false)
			},
			want: "D: m4 (Q4) is lost for 1 recipients at example.net",
		},
		"a delay that is taken for an end": {
			spoil: func(b *oracle.Books, now *oracle.State) {
				accept(b, now, "m4", "Q4")
				b.Delivered("m4", "Q4", []string{bob, carl}, false)
				b.Notified(notification("m4", "Q4", "delayed", nobody))
			},
			want: "D: m4 (Q4) is lost for 1 recipients at example.net",
		},
	})
}

func TestARecipientWithTwoFatesIsFound(t *testing.T) {
	wantFound(t, map[string]mistake{
		"a delivered recipient who waits": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Delivered("m2", "Q2", []string{bob}, false) },
			want:  "D: m2 (Q2) waits for 1 recipients at example.net that were delivered or returned",
		},
		"a delivered recipient who was told of as failed": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Notified(notification("m1", "Q1", "failed", bob)) },
			want:  "D: m1 (Q1) to bob@example.net was delivered and returned",
		},
	})
}

func TestMailThatArrivesDamagedOrAstrayIsFound(t *testing.T) {
	wantFound(t, map[string]mistake{
		"a part of a message": {
			spoil: func(b *oracle.Books, now *oracle.State) {
				accept(b, now, "m4", "Q4")
				b.Delivered("m4", "Q4", []string{bob, nobody, carl}, true)
			},
			want: "D: m4 (Q4) arrived damaged",
		},
		"a stranger among the recipients": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Delivered("m1", "Q1", []string{"eve@example.net"}, false) },
			want:  "D: m1 (Q1) was delivered to eve@example.net, who is no recipient",
		},
		"one message with the text of another": {
			spoil: func(b *oracle.Books, now *oracle.State) {
				accept(b, now, "m4", "Q4")
				b.Delivered("m1", "Q4", []string{bob, nobody, carl}, false)
			},
			want: "D: Q4 has the text of m1 and the queue id of m4",
		},
		"a message that came through somebody else": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Delivered("m1", "", []string{bob}, false) },
			want:  "1 messages arrived without a test id or a queue id",
		},
	})
}

func TestMailThatNobodyAcceptedIsFound(t *testing.T) {
	wantFound(t, map[string]mistake{
		"a refused message that arrives": {
			spoil: func(b *oracle.Books, now *oracle.State) {
				now.Used++
				b.Delivered("m3", "Q3", []string{bob, nobody, carl}, false)
			},
			want: "D: 1 refused messages were stored, at most 0 may be",
		},
		"a refused message that waits": {
			spoil: func(_ *oracle.Books, now *oracle.State) {
				now.Used++
				now.Queue = append(now.Queue, oracle.Waiting{QueueID: "Q3", Destination: "example.net", Recipients: 2})
			},
			want: "D: 1 refused messages were stored, at most 0 may be",
		},
		"a message that nobody sent": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Delivered("m9", "Q9", []string{bob}, false) },
			want:  "m9 arrived and was never sent",
		},
		"more messages in the queue than were tried": {
			spoil: func(_ *oracle.Books, now *oracle.State) {
				now.Used += 2
				for _, id := range []string{"Q8", "Q9"} {
					now.Queue = append(now.Queue, oracle.Waiting{QueueID: id, Destination: "example.net", Recipients: 1})
				}
			},
			bounds: oracle.Bounds{Doubtful: 9},
			want:   "U: 1 messages wait that were never sent",
		},
	})
}

func TestMailThatComesTwiceIsFound(t *testing.T) {
	wantFound(t, map[string]mistake{
		"a second copy without a reason": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Delivered("m1", "Q1", []string{bob, carl}, false) },
			want:  "U: 2 deliveries were repeated, at most 0 may be",
		},
		"more copies than the kills explain": {
			spoil: func(b *oracle.Books, _ *oracle.State) {
				for range 3 {
					b.Delivered("m1", "Q1", []string{bob}, false)
				}
			},
			bounds: oracle.Bounds{Repeated: 2},
			want:   "U: 3 deliveries were repeated, at most 2 may be",
		},
		"a second notification without a reason": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Notified(notification("m1", "Q1", "failed", nobody)) },
			want:  "U: 1 deliveries were repeated, at most 0 may be",
		},
		"more tries stored without a reply than the kills explain": {
			spoil: func(b *oracle.Books, now *oracle.State) {
				now.Used += 2
				b.Told("m1", "")
				b.Told("m1", "")
				b.Delivered("m1", "Q5", []string{bob, nobody, carl}, false)
				b.Delivered("m1", "Q6", []string{bob, nobody, carl}, false)
			},
			bounds: oracle.Bounds{Unanswered: 1},
			want:   "U: 2 messages were stored without a reply, at most 1 may be",
		},
		"an accepted message stored twice": {
			spoil: func(b *oracle.Books, _ *oracle.State) { b.Delivered("m1", "Q5", []string{bob, nobody, carl}, false) },
			want:  "U: m1 arrived as 1 messages more than were accepted",
		},
	})
}

func TestUnitsThatDoNotAgreeWithTheMailAreFound(t *testing.T) {
	wantFound(t, map[string]mistake{
		"more units than the limit": {
			spoil: func(_ *oracle.Books, now *oracle.State) { now.Limit = 1 },
			want:  "Q: 2 units were used of 1",
		},
		"a message that was not charged": {
			spoil: func(_ *oracle.Books, now *oracle.State) { now.Used = 1 },
			want:  "Q: 1 units were charged for 2 stored messages",
		},
		"units for nothing": {
			spoil: func(_ *oracle.Books, now *oracle.State) { now.Used = 4 },
			want:  "Q: 4 units were charged, and only 3 messages were tried",
		},
	})
}

func TestALostReplyExplainsASecondMessageWithinTheBound(t *testing.T) {
	b, now := sound()
	now.Used += 2
	b.Told("m1", "")
	b.Told("m1", "")
	b.Delivered("m1", "Q5", []string{bob, nobody, carl}, false)
	now.Queue = append(now.Queue, oracle.Waiting{QueueID: "Q6", Destination: "example.net", Recipients: 2})
	v := b.Judge(now, oracle.Bounds{Unanswered: 2})
	if len(v.Wrong) > 0 || v.Unanswered != 2 {
		t.Error(v)
	}
}

func TestATryWithoutReplyThatWasStoredMustNotBeHalfDelivered(t *testing.T) {
	b, now := sound()
	now.Used++
	b.Told("m1", "")
	b.Delivered("m1", "Q5", []string{bob}, false)
	v := b.Judge(now, oracle.Bounds{Unanswered: 1})
	if len(v.Wrong) != 2 || !strings.HasPrefix(v.Wrong[0], "D: m1 (Q5) is lost for 1 recipients at example.") {
		t.Error(v)
	}
}
