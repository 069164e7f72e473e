package deliver

import (
	"sync"
	"time"

	"activerelay/relayd/internal/queue"
)

// How long one connection is used. Many servers end a session after about as
// many messages or minutes on their own.
const (
	maxMessagesPerConnection = 100
	maxConnectionAge         = 5 * time.Minute
	defaultIdleConnections   = 200
)

// key says which jobs may share a connection: those with the same way out.
// The credentials are part of the route, so nobody's mail leaves under the
// login of another.
type key struct {
	route      queue.Route
	domain     string // "" for routes
	requireTLS bool
}

func poolKey(job queue.Job) key {
	k := key{route: job.Route, requireTLS: demandsTLS(job)}
	if job.Route.IsMX() {
		k.domain = job.RecipientDomain
	}
	return k
}

// pool keeps connections for a moment, for the next message to the same
// destination. The newest is taken first, so that the others grow old and go.
type pool struct {
	max  int
	idle time.Duration

	mu     sync.Mutex
	conns  map[key][]*parked
	count  int
	closed bool
}

type parked struct {
	c     *conn
	timer *time.Timer
}

func newPool(limit int, idle time.Duration) *pool {
	if limit == 0 {
		limit = defaultIdleConnections
	}
	return &pool{max: limit, idle: idle, conns: make(map[key][]*parked)}
}

// take returns a connection that was idle, or nil.
func (p *pool) take(k key) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		list := p.conns[k]
		if len(list) == 0 {
			return nil
		}
		last := list[len(list)-1]
		p.drop(k, len(list)-1)
		// A timer that fired already is about to close the connection.
		if last.timer.Stop() {
			return last.c
		}
	}
}

// put keeps c, or closes it when there is no room.
func (p *pool) put(k key, c *conn) {
	p.mu.Lock()
	if p.closed || p.count >= p.max {
		p.mu.Unlock()
		c.close()
		return
	}
	defer p.mu.Unlock()
	one := &parked{c: c}
	one.timer = time.AfterFunc(p.idle, func() { p.expire(k, one) })
	p.conns[k] = append(p.conns[k], one)
	p.count++
}

func (p *pool) expire(k key, one *parked) {
	p.mu.Lock()
	for i, other := range p.conns[k] {
		if other == one {
			p.drop(k, i)
			break
		}
	}
	p.mu.Unlock()
	one.c.close()
}

// drop takes entry i out of k's list. The lock is held.
func (p *pool) drop(k key, i int) {
	list := p.conns[k]
	list = append(list[:i], list[i+1:]...)
	if len(list) == 0 {
		delete(p.conns, k)
	} else {
		p.conns[k] = list
	}
	p.count--
}

func (p *pool) close() {
	p.mu.Lock()
	all := p.conns
	p.conns, p.count, p.closed = make(map[key][]*parked), 0, true
	p.mu.Unlock()
	for _, list := range all {
		for _, one := range list {
			if one.timer.Stop() {
				one.c.close()
			}
		}
	}
}
