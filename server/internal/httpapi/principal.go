package httpapi

import (
	"context"
	"slices"
	"time"

	"activerelay/api"
	"activerelay/server/internal/store"
)

// Principal is who a request is made as. It comes from the credential alone.
type Principal struct {
	// TokenID is the id of the token, or of the edge.
	TokenID string
	Name    string
	Role    api.Role
	// Partner is empty for operators and edges; Domain is set for customers, Edge for edges.
	Partner string
	Domain  string
	Edge    string
	// Partners is the scope of an edge; empty means all.
	Partners  []string
	ReadOnly  bool
	Scopes    []api.Scope
	ExpiresAt *time.Time
}

// Tenant returns what the principal may see. A principal of an unknown role, such as the zero one, sees nothing.
func (p Principal) Tenant() store.Tenant {
	switch p.Role {
	case api.RoleOperator:
		return store.Operator()
	case api.RolePartner:
		return store.PartnerTenant(p.Partner)
	case api.RoleCustomer:
		return store.CustomerTenant(p.Partner, p.Domain)
	case api.RoleEdge:
		return store.EdgeTenant(p.Edge, p.Partners)
	default:
		return store.Tenant{}
	}
}

// May reports whether the principal may call an operation.
func (p Principal) may(op *operation, method string) bool {
	switch {
	case !slices.Contains(op.roles, p.Role):
		return false
	case op.scope == scopeSelf:
		return true
	case p.ReadOnly && method != "GET":
		return false
	default:
		return slices.Contains(p.Scopes, api.Scope(op.scope))
	}
}

// call is what the middleware has found out about one request.
type call struct {
	requestID string
	operation *operation
	principal Principal
}

type callKey struct{}

// callFrom returns the call of a request; outside of one it is empty, so nobody is its principal.
func callFrom(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// PrincipalFrom returns who a request is made as; the zero Principal, who sees nothing, on public operations.
func PrincipalFrom(ctx context.Context) Principal { return callFrom(ctx).principal }

// operationID returns the id of the operation that is called, which is also the action of its audit entries.
func operationID(ctx context.Context) string {
	if op := callFrom(ctx).operation; op != nil {
		return op.id
	}
	return ""
}
