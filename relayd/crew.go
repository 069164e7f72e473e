package relayd

import (
	"context"
	"fmt"
	"sync"
)

// crew is the loops that end together. One that fails ends the edge, in order.
type crew struct {
	ctx     context.Context // of its loops; ends with stop, or before
	end     context.CancelFunc
	fail    context.CancelCauseFunc
	running sync.WaitGroup
}

func newCrew(ctx context.Context, fail context.CancelCauseFunc) *crew {
	c := &crew{fail: fail}
	c.ctx, c.end = context.WithCancel(ctx)
	return c
}

func (c *crew) start(name string, loop func(context.Context) error) {
	c.running.Go(func() {
		if err := loop(c.ctx); err != nil {
			c.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// stop ends the loops and waits for them. It may be called twice.
func (c *crew) stop() {
	c.end()
	c.running.Wait()
}
