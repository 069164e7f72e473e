package uplink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// callTimeout bounds every call but the long poll.
const callTimeout = 20 * time.Second

// pause is the wait between failed calls: it doubles from 250 ms to 5 s, and is spread over half to all of that, so that a
// fleet does not come back as one.
type pause struct{ failures int }

func (p *pause) reset() { p.failures = 0 }

func (p *pause) next() time.Duration {
	d := min(250*time.Millisecond<<min(p.failures, 5), 5*time.Second)
	p.failures++
	return d/2 + rand.N(d/2)
}

// sleep waits, or until ctx ends.
func (p *pause) sleep(ctx context.Context) {
	timer := time.NewTimer(p.next())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func errUnexpected(status string) error { return fmt.Errorf("unexpected reply %s", status) }
