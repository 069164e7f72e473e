package store

import (
	"slices"

	"gorm.io/gorm"
)

type tenantKind int

const (
	nobody tenantKind = iota
	operator
	partner
	customer
	edge
)

// Tenant is who a transaction is for, and so what it can see. It is made from a credential, never from a path or a
// body. The zero Tenant sees nothing.
type Tenant struct {
	kind tenantKind
	// Partner is the slug of a partner or of a customer's partner.
	Partner string
	// Domain is the one domain of a customer.
	Domain string
	// Edge is the id of an edge.
	Edge string
	// Partners is the scope of an edge; empty means all.
	Partners []string
}

// Operator sees everything.
func Operator() Tenant { return Tenant{kind: operator} }

// System sees everything; it is the program itself, e.g. when it looks up a token.
func System() Tenant { return Tenant{kind: operator} }

// Partner sees what belongs to one partner.
func PartnerTenant(slug string) Tenant { return Tenant{kind: partner, Partner: slug} }

// CustomerTenant sees what belongs to one domain of a partner.
func CustomerTenant(slug, domain string) Tenant {
	return Tenant{kind: customer, Partner: slug, Domain: domain}
}

// EdgeTenant sees what belongs to the partners in an edge's scope, all when there are none.
func EdgeTenant(id string, partners []string) Tenant {
	return Tenant{kind: edge, Edge: id, Partners: slices.Clone(partners)}
}

// Everything reports whether the tenant sees all objects.
func (t Tenant) Everything() bool {
	return t.kind == operator || t.kind == edge && len(t.Partners) == 0
}

// scoped narrows a query to what the tenant may see, by the columns that hold the owning partner and domain. An empty
// column name means that the table has none, so a tenant who is told apart by it sees no row.
func (tx *Tx) scoped(q *gorm.DB, partnerColumn, domainColumn string) *gorm.DB {
	t := tx.Tenant
	switch {
	case t.Everything():
		return q
	case t.kind == partner && t.Partner != "" && partnerColumn != "":
		return q.Where(partnerColumn+" = ?", t.Partner)
	case t.kind == customer && t.Domain != "" && partnerColumn != "" && domainColumn != "":
		return q.Where(partnerColumn+" = ?", t.Partner).Where(domainColumn+" = ?", t.Domain)
	case t.kind == edge && partnerColumn != "":
		return q.Where(partnerColumn+" IN ?", t.Partners)
	default:
		return q.Where("1 = 0")
	}
}
