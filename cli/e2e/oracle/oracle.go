// Package oracle judges a run of mail through a relay by four books that others kept: what the sender was told, what the sink
// received, what waits in the queue, and which notifications arrived. It knows nothing of how the relay works, and takes none of
// its words for anything but the queue and the quota.
//
// Three letters stand for what must hold whatever was killed, cut off or full:
//
//	D  each recipient of a message that was answered 250 was delivered, waits, or was told of in a notification; exactly one
//	   of these, and what arrived is whole. What was refused goes nowhere.
//	U  nothing arrives twice but where a reply was lost: to the sender, whose next try is a message of its own, or to the relay.
//	Q  units used are within the limit, and every stored message was charged.
//
// Messages are followed under two names: the test id, which the sender wrote into the header, and the queue id, which the relay
// gave each accepted try in its 250 and in Received. So a lost message is found even where a second try of it has arrived.
package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Waiting is what the queue holds of one message for one domain.
type Waiting struct {
	QueueID     string
	Destination string
	Recipients  int
}

// State is what is known at the moment of the judgement.
type State struct {
	Queue []Waiting
	// Used and Limit are the quota, in messages.
	Used, Limit int64
}

// Bounds are what the faults of the run may have cost. The zero value is a run without faults.
type Bounds struct {
	// Repeated is how many deliveries may have been made again: for each kill, those under way.
	Repeated int
	// Unanswered is how many tries may have been stored whose reply was lost: for each kill, the sessions.
	Unanswered int
	// Doubtful is how many messages may be stored though they were refused. Only a failed sync of the disk does that: nobody
	// knows what it left there.
	Doubtful int
}

// Books are what sender, sink and mailbox of notifications have noted. Their methods may be called from any goroutine.
type Books struct {
	mu         sync.Mutex
	recipients func(testID string) []string
	tries      map[string]*tries
	fates      map[string]*fate // by queue id
	nameless   int              // arrivals that no test id or no queue id could be read from
}

// tries is what the sender was told of a message.
type tries struct {
	accepted []string // queue ids
	broken   int      // without a reply
	refused  int
}

// fate is what became of one accepted try.
type fate struct {
	testID    string
	delivered map[string]int // copies, by recipient
	returned  map[string]int
	damaged   int
}

// New begins empty books. recipients says to whom the message of a test id was sent.
func New(recipients func(testID string) []string) *Books {
	return &Books{recipients: recipients, tries: map[string]*tries{}, fates: map[string]*fate{}}
}

// To is for runs in which every message goes to the same recipients.
func To(recipients ...string) func(string) []string {
	return func(string) []string { return recipients }
}

// Told notes the reply to one try of a message, or "" when the connection ended before it came.
func (b *Books) Told(testID, reply string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tries[testID]
	if t == nil {
		t = &tries{}
		b.tries[testID] = t
	}
	switch {
	case reply == "":
		t.broken++
	case reply[0] == '2':
		_, id, _ := strings.Cut(reply, "queued as ")
		t.accepted = append(t.accepted, strings.TrimSpace(id))
	default:
		t.refused++
	}
}

// Accepted is how many messages were answered 250.
func (b *Books) Accepted() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.tries {
		n += len(t.accepted)
	}
	return n
}

// Delivered notes a message at the sink.
func (b *Books) Delivered(testID, queueID string, recipients []string, damaged bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.fate(testID, queueID)
	if f == nil {
		return
	}
	for _, r := range recipients {
		f.delivered[r]++
	}
	if damaged {
		f.damaged++
	}
}

// Notified notes a notification: its whole text. One that tells of no failure is no fate.
func (b *Books) Notified(text []byte) {
	n := readNotification(text)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(n.failed) == 0 {
		return
	}
	f := b.fate(n.testID, n.queueID)
	if f == nil {
		return
	}
	for _, r := range n.failed {
		f.returned[r]++
	}
}

func (b *Books) fate(testID, queueID string) *fate {
	if testID == "" || queueID == "" {
		b.nameless++
		return nil
	}
	f := b.fates[queueID]
	if f == nil {
		f = &fate{testID: testID, delivered: map[string]int{}, returned: map[string]int{}}
		b.fates[queueID] = f
	}
	return f
}

// Verdict is what the books say together.
type Verdict struct {
	// Wrong is what must not be, a sentence each; a run has passed when there is none and nothing is still under way.
	Wrong []string
	// Accepted, Repeated, Unanswered and Doubtful are how many there were; see [Bounds].
	Accepted, Repeated, Unanswered, Doubtful int
	// Waits and Returned are recipients of accepted messages that ended so.
	Waits, Returned int
}

func (v *Verdict) wrong(format string, args ...any) {
	v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...))
}

// String says what was found in one line, and what is wrong in the next ones, the first twenty.
func (v Verdict) String() string {
	s := fmt.Sprintf("%d accepted (%d recipients wait, %d were returned), %d deliveries repeated, %d stored without a reply, %d stored though refused",
		v.Accepted, v.Waits, v.Returned, v.Repeated, v.Unanswered, v.Doubtful)
	for i, w := range v.Wrong {
		if i == 20 {
			return fmt.Sprintf("%s\n  and %d more", s, len(v.Wrong)-i)
		}
		s += "\n  " + w
	}
	return s
}

// Judge compares the books. While mail is still under way some of what is wrong may mend itself: ask again until it is right, or
// no time is left.
func (b *Books) Judge(now State, bounds Bounds) Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := &judgement{books: b, waiting: map[string]map[string]int{}, known: map[string]bool{}}
	for _, w := range now.Queue {
		if j.waiting[w.QueueID] == nil {
			j.waiting[w.QueueID] = map[string]int{}
		}
		j.waiting[w.QueueID][w.Destination] += w.Recipients
	}
	stored := map[string][]string{} // queue ids of a test id that have left a trace
	for queueID, f := range b.fates {
		stored[f.testID] = append(stored[f.testID], queueID)
	}
	for _, t := range b.tries {
		for _, queueID := range t.accepted {
			j.known[queueID] = true
		}
	}
	for testID, t := range b.tries {
		j.message(testID, t, stored[testID])
		delete(stored, testID)
	}
	for testID := range stored {
		j.wrong("%s arrived and was never sent", testID)
	}
	j.strangers()
	j.bounded(bounds)
	j.quota(now)
	slices.SortFunc(j.Wrong, cmp.Compare[string])
	return j.Verdict
}

// judgement is one comparison under way.
type judgement struct {
	Verdict
	books   *Books
	waiting map[string]map[string]int // by queue id and destination
	known   map[string]bool           // queue ids that belong to a message
	broken  int                       // tries without a reply that have left no trace so far
	refused int                       // refused tries of all messages
}

// message judges all tries of one message. stored are the queue ids that were seen of it.
func (j *judgement) message(testID string, t *tries, stored []string) {
	j.Accepted += len(t.accepted)
	j.refused += t.refused
	for _, queueID := range t.accepted {
		if j.books.fates[queueID] == nil && j.waiting[queueID] == nil {
			j.wrong("D: %s, answered 250 as %s, is lost", testID, queueID)
			continue
		}
		j.accepted(testID, queueID)
	}
	unknown := 0
	for _, queueID := range stored {
		if !j.known[queueID] {
			j.known[queueID] = true
			unknown++
			j.accepted(testID, queueID) // it was stored, so all holds for it too
		}
	}
	answered := min(unknown, t.broken)
	j.Unanswered += answered
	j.broken += t.broken - answered
	if rest := unknown - answered; rest > 0 {
		if t.refused < rest {
			j.wrong("U: %s arrived as %d messages more than were accepted", testID, rest)
			return
		}
		j.Doubtful += rest
	}
}

// accepted judges the recipients of one stored try.
func (j *judgement) accepted(testID, queueID string) {
	f := j.books.fates[queueID]
	if f == nil {
		f = &fate{testID: testID}
	}
	if f.testID != testID {
		j.wrong("D: %s has the text of %s and the queue id of %s", queueID, f.testID, testID)
	}
	if f.damaged > 0 {
		j.wrong("D: %s (%s) arrived damaged", testID, queueID)
	}
	open := map[string]int{} // recipients of a domain without another fate
	recipients := j.books.recipients(testID)
	for _, r := range recipients {
		delivered, returned := f.delivered[r], f.returned[r]
		j.Repeated += max(0, delivered-1) + max(0, returned-1)
		switch {
		case delivered > 0 && returned > 0:
			j.wrong("D: %s (%s) to %s was delivered and returned", testID, queueID, r)
		case returned > 0:
			j.Returned++
		case delivered == 0:
			open[domainOf(r)]++
		}
	}
	for r := range f.delivered {
		if !slices.Contains(recipients, r) {
			j.wrong("D: %s (%s) was delivered to %s, who is no recipient", testID, queueID, r)
		}
	}
	j.waits(testID, queueID, open)
}

// waits compares the recipients without another fate with those in the queue.
func (j *judgement) waits(testID, queueID string, open map[string]int) {
	waiting := j.waiting[queueID]
	for domain, n := range open {
		j.Waits += min(n, waiting[domain])
		if waiting[domain] < n {
			j.wrong("D: %s (%s) is lost for %d recipients at %s", testID, queueID, n-waiting[domain], domain)
		}
	}
	for domain, n := range waiting {
		if n > open[domain] {
			j.wrong("D: %s (%s) waits for %d recipients at %s that were delivered or returned", testID, queueID, n-open[domain], domain)
		}
	}
}

// strangers are messages in the queue that nobody was told of: tries whose reply was lost.
func (j *judgement) strangers() {
	unknown := 0
	for queueID := range j.waiting {
		if !j.known[queueID] {
			unknown++
		}
	}
	answered := min(unknown, j.broken)
	j.Unanswered += answered
	j.Doubtful += unknown - answered
	if rest := unknown - answered; rest > j.refused {
		j.wrong("U: %d messages wait that were never sent", rest-j.refused)
	}
}

func (j *judgement) bounded(b Bounds) {
	if j.books.nameless > 0 {
		j.wrong("%d messages arrived without a test id or a queue id", j.books.nameless)
	}
	if j.Repeated > b.Repeated {
		j.wrong("U: %d deliveries were repeated, at most %d may be", j.Repeated, b.Repeated)
	}
	if j.Unanswered > b.Unanswered {
		j.wrong("U: %d messages were stored without a reply, at most %d may be", j.Unanswered, b.Unanswered)
	}
	if j.Doubtful > b.Doubtful {
		j.wrong("D: %d refused messages were stored, at most %d may be", j.Doubtful, b.Doubtful)
	}
}

func (j *judgement) quota(now State) {
	if now.Used > now.Limit {
		j.wrong("Q: %d units were used of %d", now.Used, now.Limit)
	}
	if stored := j.Accepted + j.Unanswered + j.Doubtful; now.Used < int64(stored) {
		j.wrong("Q: %d units were charged for %d stored messages", now.Used, stored)
	}
	if most := int64(j.Accepted + j.Unanswered + j.Doubtful + j.broken + j.refused); now.Used > most {
		j.wrong("Q: %d units were charged, and only %d messages were tried", now.Used, most)
	}
}

func domainOf(recipient string) string {
	_, domain, _ := strings.Cut(recipient, "@")
	return domain
}
