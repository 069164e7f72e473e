package publish

import (
	"context"
	"log/slog"
	"time"

	"activerelay/server/internal/store"
)

// Claimed tells of an edge that knows more than the database: a new epoch began on its word, or it gave its word too
// often. The second is an alarm about the edge.
func (p *Publisher) Claimed(ctx context.Context, claim store.EpochClaim, edge, name string, more ...slog.Attr) {
	p.metrics.claims.WithLabelValues(string(claim)).Inc()
	attrs := append([]slog.Attr{slog.String("edge", edge), slog.String("name", name)}, more...)
	if claim == store.EpochBegun {
		p.config.Log.LogAttrs(ctx, slog.LevelError, "an edge knows more than the database: it was restored; a new epoch begins", attrs...)
		p.NewHistory()
		return
	}
	p.config.Log.LogAttrs(ctx, slog.LevelError,
		"an edge claims again that the database was restored; it is not believed twice in an hour: look at that edge, or retire it", attrs...)
}

// nameSilent says which edges keep quota from being granted in a new epoch, once a minute while there are any.
func (p *Publisher) nameSilent(ctx context.Context) error {
	now := p.config.Now()
	if now.Sub(p.namedAt) < nameEvery {
		return nil
	}
	var silent []store.Edge
	err := p.store.Read(ctx, store.System(), func(tx *store.Tx) (err error) {
		silent, err = tx.Unreported()
		return err
	})
	if err != nil {
		return err
	}
	p.namedAt = now
	p.metrics.silent.Set(float64(len(silent)))
	if len(silent) == 0 {
		return nil
	}
	names := make([]string, len(silent))
	for i, edge := range silent {
		names[i] = edge.Name + " (" + edge.ID + "), last seen " + lastSeen(edge)
	}
	p.config.Log.WarnContext(ctx, "no quota is granted until these edges have reported what they hold; retire those that do not come back",
		slog.Any("edges", names))
	return nil
}

func lastSeen(edge store.Edge) string {
	if edge.LastSeenAt == nil {
		return "never"
	}
	return edge.LastSeenAt.UTC().Format(time.RFC3339)
}
