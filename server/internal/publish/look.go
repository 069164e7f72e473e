package publish

import (
	"context"
	"log/slog"
	"time"

	"activerelay/server/internal/store"
)

// purgeEvery is how often old tombstones are removed.
const purgeEvery = time.Hour

// nameEvery is how often it is said which edges keep quota from being granted.
const nameEvery = time.Minute

// finishTimeout bounds what Run writes down when it ends.
const finishTimeout = 5 * time.Second

// Run looks at the database at its pace until ctx ends: for revisions and instructions of other processes, for a new history;
// and it writes down what edges enforce and how far the history has come, and removes old tombstones.
func (p *Publisher) Run(ctx context.Context) error {
	tick := time.NewTicker(p.config.LookEvery)
	defer tick.Stop()
	for {
		p.once(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
			defer cancel()
			p.once(last)
			return nil
		}
	}
}

// once does one round. Trouble is logged and tried again at the next: nothing here is needed for mail to flow.
func (p *Publisher) once(ctx context.Context) {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"look at the revision", p.lookAtHistory},
		{"write down what edges enforce", p.flush},
		{"name silent edges", p.nameSilent},
		{"purge tombstones", p.purge},
	} {
		if err := step.do(ctx); err != nil && ctx.Err() == nil {
			p.config.Log.WarnContext(ctx, "policy upkeep", slog.String("step", step.name), slog.Any("error", err))
		}
	}
}

func (p *Publisher) lookAtHistory(ctx context.Context) error {
	var revision, position, instructed int64
	var epoch string
	err := p.store.Read(ctx, store.System(), func(tx *store.Tx) (err error) {
		if revision, err = tx.Revision(); err != nil {
			return err
		}
		if position, err = tx.Position(); err != nil {
			return err
		}
		if instructed, err = tx.InstructionsGiven(); err != nil {
			return err
		}
		epoch, err = tx.Epoch()
		return err
	})
	if err != nil {
		return err
	}
	if p.epoch != "" && p.epoch != epoch {
		p.NewHistory()
	}
	p.config.Bell.Ring(revision)
	if p.instructed != instructed {
		p.instructed = instructed
		p.Wake()
	}
	p.metrics.revision.Set(float64(revision))
	if p.epoch == epoch && p.position == position {
		return nil
	}
	if err := saveMark(p.store, mark{Epoch: epoch, Position: position}); err != nil {
		return err
	}
	p.epoch, p.position = epoch, position
	return nil
}

func (p *Publisher) purge(ctx context.Context) error {
	now := p.config.Now()
	if now.Sub(p.purgedAt) < purgeEvery {
		return nil
	}
	var removed int64
	err := p.store.Write(ctx, store.System(), func(tx *store.Tx) (err error) {
		removed, err = tx.PurgeTombstones(tx.Now.Add(-TombstoneAge))
		return err
	})
	if err != nil {
		return err
	}
	p.purgedAt = now
	if removed > 0 {
		p.shared.forget() // pages know the horizon
		p.config.Log.InfoContext(ctx, "tombstones of policy documents removed", slog.Int64("count", removed))
	}
	return nil
}
