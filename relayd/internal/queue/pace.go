package queue

import (
	"context"
	"time"
)

// longestPace bounds how long Admit keeps one message waiting: mail that cannot
// be delivered for long is accepted all the same, slowly.
const longestPace = time.Second

// Admit lets a session pass that is about to take a message of a customer (a
// sender domain), at once as long as no more of his mail than Backlog waits for
// its turn, else when that is so again, or after a second. So acceptance runs
// ahead of delivery by a bounded backlog, and a customer who floods the relay
// slows himself. It never refuses.
func (q *Queue) Admit(ctx context.Context, domain string) {
	paced := q.paced(domain)
	if paced == nil {
		return
	}
	timer := time.NewTimer(longestPace)
	defer timer.Stop()
	select {
	case <-paced:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// paced is closed when the customer's backlog has become small; nil when it is.
func (q *Queue) paced(domain string) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.lanes.customers[domain]
	if c == nil || c.waiting <= q.Backlog {
		return nil
	}
	if c.paced == nil {
		c.paced = make(chan struct{})
	}
	return c.paced
}

// pace lets the sessions go on that wait for c's backlog. Queue.mu is held.
func (l *lanes) pace(c *customer) {
	if c.paced != nil && c.waiting <= l.backlog {
		close(c.paced)
		c.paced = nil
	}
}
