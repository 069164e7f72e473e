package relayd

import (
	"context"
	"net/netip"
	"strings"

	"activerelay/api"
	"activerelay/api/policy"
)

// noteRejected reports policy documents that did not compile, so that whoever operates the control plane sees which edge
// cannot enforce what.
func (e *edge) noteRejected(ctx context.Context, rejected []policy.Rejected) {
	batch := e.journal.NewBatch()
	defer batch.Discard()
	for _, r := range rejected {
		detail := r.Key + ": " + strings.Join(r.Faults, "; ")
		e.Log.ErrorContext(ctx, "policy document does not compile; what needs it is deferred", "key", r.Key, "revision", r.Revision, "faults", r.Faults)
		event := api.EdgeEvent{Time: e.Now().UTC(), Kind: api.EdgeEventKindPolicyRejected, PolicyRevision: &r.Revision, Detail: &detail}
		if err := e.outbox.Append(batch, event); err != nil {
			e.Log.ErrorContext(ctx, "rejected policy not reported", "error", err)
			return
		}
	}
	if err := e.journal.Commit(batch); err != nil {
		e.Log.ErrorContext(ctx, "rejected policy not reported", "error", err)
	}
}

// allowedTargets are the loopback and private networks that mail may be delivered to, as policy says now.
func (e *edge) allowedTargets() []netip.Prefix { return e.sync.Table().Platform().AllowTargets }
