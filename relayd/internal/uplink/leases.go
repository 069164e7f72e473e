package uplink

import (
	"context"
	"log/slog"
	"time"

	"activerelay/api"
	"activerelay/api/client"
	"activerelay/relayd/internal/ledger"
	"activerelay/relayd/internal/outbox"
)

// leaseEvery is how often usage is reported and stocks are topped up when nothing presses.
const leaseEvery = 5 * time.Second

// LeaseCaller carries the ledger's reports to the control plane and its grants back.
type LeaseCaller struct {
	Client *client.ClientWithResponses
	Ledger *ledger.Ledger
	// Outbox follows the ledger into a new generation.
	Outbox *outbox.Outbox
	Log    *slog.Logger
	// OnReply is told the outcome of each call, for readiness. May be nil.
	OnReply func(error)
}

// Run calls at once, then whenever the ledger wants something, and at regular times, until ctx ends.
func (c *LeaseCaller) Run(ctx context.Context) error {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	var wait pause
	for {
		if err := c.Flush(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			c.Log.WarnContext(ctx, "leases not renewed; what is held goes on being spent", "error", err)
			wait.sleep(ctx)
			continue
		}
		wait.reset()
		select {
		case <-c.Ledger.Wanted():
		case <-tick.C:
			if err := c.Ledger.Refresh(); err != nil {
				c.Log.WarnContext(ctx, "old leases not dropped", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Flush reports everything that there is to report, in as many calls as it takes.
func (c *LeaseCaller) Flush(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		call, rest, err := c.Ledger.Report()
		if err != nil {
			return err
		}
		more = rest
		if call.Sequence == 0 {
			return nil
		}
		err = c.call(ctx, call)
		if c.OnReply != nil && ctx.Err() == nil {
			c.OnReply(err)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (c *LeaseCaller) call(ctx context.Context, call api.LeaseCall) error {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := c.Client.LeaseQuotaWithResponse(bounded, call)
	if err == nil && reply.JSON200 == nil {
		err = errUnexpected(reply.Status())
	}
	if err != nil {
		c.Ledger.Failed()
		return err
	}
	if err := c.Ledger.Apply(*reply.JSON200); err != nil {
		return err
	}
	// A new generation of leases is one of events too.
	if generation := reply.JSON200.Generation; c.Outbox.Generation() < generation {
		return c.Outbox.StartGeneration(generation)
	}
	return nil
}
