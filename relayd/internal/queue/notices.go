package queue

import (
	"sync"
	"time"
)

// notices bounds how many notifications go to the senders of one domain: a
// flood of mail with forged senders must not come back as a flood of
// notifications. Each domain may have limit at once, and gets limit an hour.
type notices struct {
	limit float64

	mu      sync.Mutex
	domains map[string]*allowance
}

type allowance struct {
	left float64
	at   time.Time
}

func newNotices(perHour int) *notices {
	return &notices{limit: float64(perHour), domains: make(map[string]*allowance)}
}

// allow takes one from the allowance of a domain; false says that it is used up.
func (n *notices) allow(domain string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.domains[domain]
	if a == nil {
		n.forget(now)
		a = &allowance{left: n.limit, at: now}
		n.domains[domain] = a
	}
	a.left = min(n.limit, a.left+n.limit*max(0, now.Sub(a.at).Hours()))
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// forget drops the domains that have had nothing for an hour, once they are
// many.
func (n *notices) forget(now time.Time) {
	if len(n.domains) < 10_000 {
		return
	}
	for domain, a := range n.domains {
		if now.Sub(a.at) > time.Hour {
			delete(n.domains, domain)
		}
	}
}
