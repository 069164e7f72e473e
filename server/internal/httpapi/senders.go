package httpapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	openapi "github.com/oapi-codegen/runtime/types"

	"activerelay/api"
	"activerelay/api/quota"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// defaultTop is how many senders of each kind are shown when it is not said.
const defaultTop = 10

// ListTopSenders lists who sent the mail of a domain on one day.
func (a *API) ListTopSenders(ctx context.Context, r rest.ListTopSendersRequestObject) (rest.ListTopSendersResponseObject, error) {
	name, err := domainName("path/domain", r.Domain)
	if err != nil {
		return nil, err
	}
	top := defaultTop
	if r.Params.Top != nil {
		top = *r.Params.Top
	}
	kinds := []api.SenderKind{api.SenderKindClientAddress, api.SenderKindUser, api.SenderKindSenderAddress}
	if r.Params.Kind != nil {
		kinds = []api.SenderKind{*r.Params.Kind}
	}
	list := api.TopSenderList{Domain: name, Items: []api.TopSender{}}
	err = a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) error {
		figures, err := tx.DomainQuota(name)
		if err != nil {
			return notFound(err, "domain")
		}
		var start time.Time
		if list.Day, start, err = dayAsked(tx, figures.Day, r.Params.Day); err != nil {
			return err
		}
		for _, kind := range kinds {
			totals, err := tx.TopSenders(name, start, string(kind), top)
			if err != nil {
				return err
			}
			list.Items = append(list.Items, convert(totals, senderToAPI)...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rest.ListTopSenders200JSONResponse(list), nil
}

// dayAsked returns the local day that is asked for and the instant at which it started. None means the running day.
func dayAsked(tx *store.Tx, running store.QuotaDay, asked *openapi.Date) (openapi.Date, time.Time, error) {
	if asked == nil || asked.String() == running.Day {
		date, err := localDate(running.Day)
		return date, running.DayStart, err
	}
	start, err := tx.DayStartOf(running.Domain, asked.String())
	if !errors.Is(err, store.ErrNotFound) {
		return *asked, start, err
	}
	// A day that is not written: what was refused on it is known by the start that it had by the clock.
	zone, err := time.LoadLocation(running.TimeZone)
	if err != nil {
		return *asked, start, fmt.Errorf("zone of %s: %w", running.Domain, err)
	}
	noon := time.Date(asked.Year(), asked.Month(), asked.Day(), 12, 0, 0, 0, zone)
	return *asked, quota.DayOf(noon, zone).Start.UTC(), nil
}

func senderToAPI(total store.SenderTotal) api.TopSender {
	return api.TopSender{
		Kind: api.SenderKind(total.Kind), Key: total.Key, Messages: total.Messages, Recipients: total.Recipients,
		Refused: total.Refused, Refusals: convert(total.Refusals, refusalToAPI),
	}
}
