package httpapi

import (
	"context"
	"strings"

	"activerelay/api"
	"activerelay/api/reason"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// GetDecision explains the refusal whose reference the sender was shown.
func (a *API) GetDecision(ctx context.Context, r rest.GetDecisionRequestObject) (rest.GetDecisionResponseObject, error) {
	var row store.Decision
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		// References are upper case, but come by way of people and their mail programs.
		row, err = tx.Decision(strings.ToUpper(r.Ref))
		return err
	})
	if err != nil {
		return nil, notFound(err, "decision")
	}
	return rest.GetDecision200JSONResponse(decisionToAPI(row)), nil
}

func decisionToAPI(row store.Decision) api.Decision {
	shown := api.Decision{
		Ref: row.Ref, Time: row.OccurredAt, Edge: row.Edge, Domain: optional(row.Domain), Partner: optional(row.Partner),
		Reason: row.Reason, Stage: row.Stage, Reply: row.Reply, ClientAddress: optional(row.ClientAddress),
		User: optional(row.UserAddress), Sender: optional(row.Sender), Recipient: optional(row.Recipient),
		Detail: optional(row.Detail), Explanation: "An edge newer than this control plane gave the reason; the reply says more.",
	}
	if known, ok := reason.Lookup(reason.Slug(row.Reason)); ok {
		shown.Explanation = known.Explanation
	}
	if row.PolicyRevision != 0 {
		shown.PolicyRevision = &row.PolicyRevision
	}
	return shown
}

// ListReasons lists the reason registry.
func (a *API) ListReasons(context.Context, rest.ListReasonsRequestObject) (rest.ListReasonsResponseObject, error) {
	return rest.ListReasons200JSONResponse{Items: convert(reason.All(), reasonToAPI)}, nil
}

func reasonToAPI(r reason.Reason) api.ReasonEntry {
	entry := api.ReasonEntry{
		Slug: string(r.Slug), Title: r.Title, Retry: r.Retry, Charged: r.Charged, Explanation: r.Explanation,
		Stages: convert(r.Stages, func(s reason.Stage) string { return string(s) }),
	}
	if r.Reply.SMTP != 0 {
		entry.SMTPCode = &r.Reply.SMTP
	}
	if r.Reply.Enhanced != (reason.Enhanced{}) {
		entry.EnhancedCode = optional(r.Reply.Enhanced.String())
	}
	if r.HTTPStatus != 0 {
		entry.HTTPStatus = &r.HTTPStatus
	}
	return entry
}
