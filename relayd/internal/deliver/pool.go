package deliver

import (
	"slices"
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

func poolKey(job *queue.Job) key {
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
	conns  map[key][]*conn // each list oldest first; an empty one goes with the next sweep
	count  int
	sweeps *time.Timer // runs while there are lists
	closed bool
}

func newPool(limit int, idle time.Duration) *pool {
	if limit == 0 {
		limit = defaultIdleConnections
	}
	p := &pool{max: limit, idle: idle, conns: make(map[key][]*conn)}
	p.sweeps = time.AfterFunc(idle, p.sweep)
	p.sweeps.Stop()
	return p
}

// take returns a connection that was idle, or nil.
func (p *pool) take(k key) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.conns[k]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	list[len(list)-1] = nil
	p.conns[k] = list[:len(list)-1]
	p.count--
	return c
}

// put keeps c from now on, or closes it when there is no room.
func (p *pool) put(k key, c *conn, now time.Time) {
	p.mu.Lock()
	if p.closed || p.count >= p.max {
		p.mu.Unlock()
		c.close()
		return
	}
	defer p.mu.Unlock()
	c.parked = now
	if len(p.conns) == 0 {
		p.sweeps.Reset(p.idle)
	}
	p.conns[k] = append(p.conns[k], c)
	p.count++
}

// sweep closes what was idle for too long, and comes again when the next will
// have been.
func (p *pool) sweep() {
	p.mu.Lock()
	now := time.Now()
	var old []*conn
	next := p.idle
	for k, list := range p.conns {
		n := 0
		for n < len(list) && now.Sub(list[n].parked) >= p.idle {
			n++
		}
		old = append(old, list[:n]...)
		if list = slices.Delete(list, 0, n); len(list) == 0 {
			delete(p.conns, k)
			continue
		}
		p.conns[k] = list
		next = min(next, p.idle-now.Sub(list[0].parked))
	}
	p.count -= len(old)
	if len(p.conns) > 0 {
		p.sweeps.Reset(next)
	}
	p.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	all := p.conns
	p.conns, p.count, p.closed = nil, 0, true
	p.sweeps.Stop()
	p.mu.Unlock()
	for _, list := range all {
		for _, c := range list {
			c.close()
		}
	}
}
