package httpapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"activerelay/api"
	"activerelay/api/problem"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// BatchPutDomains creates or changes many domains in one transaction. An entry that breaks a rule is reported in its
// place and changes nothing; trouble with the database undoes the whole batch.
func (a *API) BatchPutDomains(ctx context.Context, r rest.BatchPutDomainsRequestObject) (rest.BatchPutDomainsResponseObject, error) {
	return idempotent(ctx, a, attempt[rest.BatchPutDomainsResponseObject]{
		key: r.Params.IdempotencyKey, request: r, visit: rest.BatchPutDomainsResponseObject.VisitBatchPutDomainsResponse,
	}, func(tx *store.Tx) (rest.BatchPutDomainsResponseObject, error) {
		result := api.DomainBatchResult{Results: make([]api.DomainBatchOutcome, 0, len(r.Body.Domains))}
		for i, entry := range r.Body.Domains {
			outcome, err := a.batchEntry(ctx, tx, fmt.Sprintf("/domains/%d", i), entry)
			if err != nil {
				return nil, err
			}
			result.Results = append(result.Results, outcome)
			count(&result, outcome.Outcome)
		}
		return rest.BatchPutDomains200JSONResponse(result), nil
	})
}

// batchEntry does one entry. Its error is trouble of ours; what the caller did wrong is in the outcome.
func (a *API) batchEntry(ctx context.Context, tx *store.Tx, pointer string, entry api.DomainBatchEntry) (api.DomainBatchOutcome, error) {
	outcome, err := a.putEntry(ctx, tx, pointer, entry)
	var told *problem.Problem
	switch {
	case errors.As(err, &told):
		shown := problemToAPI(relocated(told, pointer), callFrom(ctx).requestID)
		return api.DomainBatchOutcome{
			Name: entry.Name, Outcome: api.DomainBatchOutcomeOutcomeFailed, Problem: &shown,
		}, nil
	case err != nil:
		return api.DomainBatchOutcome{}, err
	}
	shown := api.DomainBatchOutcome{Name: outcome.row.Name, Outcome: api.DomainBatchOutcomeOutcomeUnchanged}
	switch {
	case outcome.created:
		shown.Outcome = api.DomainBatchOutcomeOutcomeCreated
	case outcome.changed:
		shown.Outcome = api.DomainBatchOutcomeOutcomeUpdated
	}
	return shown, nil
}

func (a *API) putEntry(ctx context.Context, tx *store.Tx, pointer string, entry api.DomainBatchEntry) (domainOutcome, error) {
	name, err := domainName(pointer+"/name", entry.Name)
	if err != nil {
		return domainOutcome{}, err
	}
	edit, err := domainEdit{
		partner: entry.Partner, licensedUsers: entry.LicensedUsers, timeZone: entry.TimeZone,
		includeSubdomains: entry.IncludeSubdomains, usersMaySendAs: (*string)(entry.UsersMaySendAs), contacts: entry.Contacts,
	}.checked(pointer)
	if err != nil {
		return domainOutcome{}, err
	}
	return a.putDomain(ctx, tx, name, edit, nil)
}

// relocated points the fields of a problem at the entry that they are in.
func relocated(told *problem.Problem, prefix string) *problem.Problem {
	moved := *told
	moved.Errors = nil
	for _, field := range told.Errors {
		if !strings.HasPrefix(field.Pointer, prefix) {
			field.Pointer = prefix + field.Pointer
		}
		moved.Errors = append(moved.Errors, field)
	}
	return &moved
}

func count(result *api.DomainBatchResult, outcome api.DomainBatchOutcomeOutcome) {
	switch outcome {
	case api.DomainBatchOutcomeOutcomeCreated:
		result.Created++
	case api.DomainBatchOutcomeOutcomeUpdated:
		result.Updated++
	case api.DomainBatchOutcomeOutcomeUnchanged:
		result.Unchanged++
	case api.DomainBatchOutcomeOutcomeFailed:
		result.Failed++
	}
}

// problemToAPI is a problem inside a reply, in the form that a refused request has.
func problemToAPI(told *problem.Problem, requestID string) api.Problem {
	shown := api.Problem{
		Type: problem.TypePrefix + string(told.Reason), Title: told.Title, Status: told.Status, Detail: optional(told.Detail),
		Reason: string(told.Reason), RequestID: requestID,
	}
	for _, field := range told.Errors {
		shown.Errors = append(shown.Errors, api.InvalidField{
			Pointer: field.Pointer, Rule: field.Rule, Message: field.Message, Choices: field.Choices,
		})
	}
	return shown
}
