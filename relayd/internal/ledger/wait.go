package ledger

import (
	"context"
	"slices"
	"time"

	"activerelay/api/quota"
)

// askAgain is how long a waiting session lets pass before it asks once more
// for units that another edge may have given back meanwhile.
const askAgain = 250 * time.Millisecond

// Wait asks the control plane for n units of the domain and returns when they
// are held, when it says that the limit is reached or the domain unknown, or
// when ctx ends; the decision then is Unavailable. It takes nothing: Spend
// may still find the units gone.
func (l *Ledger) Wait(ctx context.Context, domain string, n int64) quota.Decision {
	l.mu.Lock()
	began := l.clock.local()
	a := l.account(domain)
	a.waiters = append(a.waiters, n)
	l.waiting++
	l.mu.Unlock()
	defer l.leave(a, n)
	for {
		d, changed, over := l.look(a, n, began)
		if over {
			return d
		}
		again := time.NewTimer(askAgain)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return d
		case <-l.journal.Failed(): // no unit can be stored any more
			again.Stop()
			return d
		}
		again.Stop()
	}
}

// look decides once more, and asks for a call if that is not the end.
func (l *Ledger) look(a *account, n int64, began time.Time) (d quota.Decision, changed <-chan struct{}, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d = l.decide(a.domain, n, began)
	told := a.unknown && a.asked.After(began)
	if d.Outcome != quota.Unavailable || told {
		return d, nil, true
	}
	l.mark(a.domain, urgent)
	return d, l.changed, false
}

func (l *Ledger) leave(a *account, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(a.waiters, n); i >= 0 {
		a.waiters = slices.Delete(a.waiters, i, i+1)
	}
	l.waiting--
}

// account finds or makes a domain's account. The caller holds mu.
func (l *Ledger) account(domain string) *account {
	a := l.accounts[domain]
	if a == nil {
		a = &account{domain: domain, leases: map[int64]*lease{}}
		l.accounts[domain] = a
	}
	return a
}

// announce wakes the sessions that wait. The caller holds mu.
func (l *Ledger) announce() {
	if l.waiting == 0 {
		return
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// priority orders what goes into a call first.
type priority int

const (
	routine priority = iota + 1 // whenever the loop calls next
	soon                        // stock is running down
	urgent                      // a session waits
)

// mark puts the domain into the next call. The caller holds mu.
func (l *Ledger) mark(domain string, p priority) {
	if p > l.dirty[domain] {
		l.dirty[domain] = p
	}
	if p == routine {
		return
	}
	select {
	case l.wanted <- struct{}{}:
	default:
	}
}

// Wanted receives a value when a call should be made now and not at the next
// regular time. One value can stand for many wishes.
func (l *Ledger) Wanted() <-chan struct{} { return l.wanted }
