package httpapi

import (
	"context"
	"fmt"
	"time"

	"activerelay/api"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// topGroups is how many groups a summary shows when nobody says, maxGroups the most that the contract lets anybody say.
const (
	topGroups = 20
	maxGroups = 200
)

// queueSummary is a summary and when it was made.
type queueSummary struct {
	store.QueueSummary
	at time.Time
}

// SummariseQueue counts what waits in the queues of the edges, as far as the token may see it.
func (a *API) SummariseQueue(ctx context.Context, r rest.SummariseQueueRequestObject) (rest.SummariseQueueResponseObject, error) {
	p := r.Params
	filter, err := queueFilter(queueQuery{p.Partner, p.Domain, p.Destination, p.Sender, p.State, p.Edge})
	if err != nil {
		return nil, err
	}
	by, top := api.SummariseQueueParamsByDestination, topGroups
	if p.By != nil {
		by = *p.By
	}
	if p.Top != nil {
		top = *p.Top
	}
	tenant := PrincipalFrom(ctx).Tenant()
	key := fmt.Sprintf("%#v %#v %s", tenant, filter, by) // quoted: no text of a filter can look like another filter
	counted, err := a.queueSummaries.get(key, func() (queueSummary, error) {
		var counted queueSummary
		err := a.Store.Read(ctx, tenant, func(tx *store.Tx) (err error) {
			counted.at = tx.Now
			counted.QueueSummary, err = tx.SummariseQueue(filter, string(by), maxGroups)
			return err
		})
		return counted, err
	})
	if err != nil {
		return nil, err
	}
	groups, now, total := counted.Groups[:min(top, len(counted.Groups))], counted.at, counted.Total
	return rest.SummariseQueue200JSONResponse{
		AsOf: now, Groups: convert(groups, func(g store.QueueGroup) api.QueueGroup { return queueGroupToAPI(g, now) }),
		GroupsTotal: counted.GroupsTotal, Items: total.Items, Recipients: total.Recipients, Queued: total.Queued, Held: total.Held,
		Quarantined: total.Quarantined, OldestAgeSeconds: oldestAge(total, now),
	}, nil
}

func queueGroupToAPI(g store.QueueGroup, now time.Time) api.QueueGroup {
	return api.QueueGroup{
		Key: g.Key, Items: g.Items, Recipients: g.Recipients, Queued: g.Queued, Held: g.Held, Quarantined: g.Quarantined,
		OldestAgeSeconds: oldestAge(g.QueueCounts, now), DelayReason: delayReason("", g.DelayReason), LastReply: optional(g.LastReply),
	}
}

func oldestAge(c store.QueueCounts, now time.Time) *int64 {
	if c.Items == 0 {
		return nil
	}
	seconds := int64(c.OldestAge(now) / time.Second)
	return &seconds
}
