package httpapi

import (
	"context"
	"errors"
	"time"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/quota"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// LeaseQuota takes the calling edge's counters and lends it what it may have.
func (a *API) LeaseQuota(ctx context.Context, r rest.LeaseQuotaRequestObject) (rest.LeaseQuotaResponseObject, error) {
	edge := PrincipalFrom(ctx)
	call := leaseCall(*r.Body)
	var reply store.LeaseReply
	var now time.Time
	err := a.Store.Write(ctx, edge.Tenant(), func(tx *store.Tx) (err error) {
		now = tx.Now
		reply, err = tx.Lease(call)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem.Unauthenticated() // retired since it was authenticated
	}
	if err != nil {
		return nil, err
	}
	a.Publisher.Seen(edge.Edge)
	if reply.Instructed {
		a.Publisher.Wake()
	}
	if reply.Claim != "" {
		a.Publisher.Claimed(ctx, reply.Claim, edge.Edge, edge.Name)
	}
	if reply.Fenced != "" {
		return nil, problem.EdgeFenced(reply.Fenced)
	}
	shown := rest.LeaseQuota200JSONResponse{
		Sequence: reply.Sequence, Generation: reply.Generation, Now: now, Leases: convert(reply.Leases, grantToAPI),
	}
	if reply.Learning {
		shown.Learning = &reply.Learning
	}
	return shown, nil
}

func leaseCall(body api.LeaseCall) store.LeaseCall {
	return store.LeaseCall{
		BootNonce: body.BootNonce, Generation: body.Generation, Sequence: body.Sequence,
		Complete: body.Complete != nil && *body.Complete, Leases: convert(body.Leases, leaseReport),
	}
}

func leaseReport(r api.LeaseReport) store.LeaseReport {
	report := store.LeaseReport{
		Domain:   r.Domain,
		Counters: quota.Counters{Granted: r.Granted, Spent: r.Spent, Returned: r.Returned},
		Want:     r.Want,
	}
	if r.DayStart != nil {
		report.DayStart = *storedTime(r.DayStart)
	}
	if r.AtLeast != nil {
		report.AtLeast = *r.AtLeast
	}
	return report
}

func grantToAPI(grant store.LeaseGrant) api.LeaseGrant {
	shown := api.LeaseGrant{Domain: grant.Domain, State: api.LeaseGrantState(grant.State), Granted: grant.Granted}
	if day := grant.Day; day.Domain != "" {
		unit := api.QuotaUnit(day.Unit)
		shown.DayStart, shown.DayEnd, shown.TimeZone = &day.DayStart, &day.DayEnd, &day.TimeZone
		shown.Limit, shown.Used, shown.Unit = &day.Limit, &day.Spent, &unit
	}
	return shown
}
