package policy

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"activerelay/api"
	"activerelay/api/mailaddr"
)

// Table is everything that an edge decides by. It is never changed: [Apply]
// returns another.
type Table struct {
	cursor   Cursor
	platform *Platform
	partners trie[*Partner]
	domains  trie[*Domain]
}

// Cursor is a place in the order of documents.
type Cursor struct {
	Revision int64
	Key      string
}

// Compare orders cursors by revision, then key.
func (c Cursor) Compare(other Cursor) int {
	return cmp.Or(cmp.Compare(c.Revision, other.Revision), strings.Compare(c.Key, other.Key))
}

// Rejected is a document that did not compile, or not in all its parts.
type Rejected struct {
	Key      string
	Revision int64
	// Faults name the part and the rule, e.g. "/clients/3/address: not a
	// prefix". They never repeat a value.
	Faults []string
}

// Empty is the table before the first document: the platform's defaults, no
// partner, no domain.
func Empty() *Table {
	return &Table{platform: defaultPlatform(), partners: newTrie[*Partner](), domains: newTrie[*Domain]()}
}

// Apply returns the table after a page of documents. t stays as it is. Documents
// at or before the cursor of t were enforced already and are passed over.
func Apply(t *Table, documents []api.PolicyDocument) (*Table, []Rejected) {
	page := slices.Clone(documents)
	slices.SortStableFunc(page, func(a, b api.PolicyDocument) int { return place(a).Compare(place(b)) })
	next, run, rejected := *t, &edit{}, []Rejected(nil)
	for i := range page {
		if place(page[i]).Compare(next.cursor) <= 0 {
			continue
		}
		next.cursor = place(page[i])
		if faults := next.take(run, &page[i]); len(faults) > 0 {
			rejected = append(rejected, Rejected{Key: page[i].Key, Revision: page[i].Revision, Faults: faults})
		}
	}
	return &next, rejected
}

func place(d api.PolicyDocument) Cursor { return Cursor{Revision: d.Revision, Key: d.Key} }

// take puts one document into a table that nobody else has seen yet.
func (t *Table) take(run *edit, d *api.PolicyDocument) []string {
	kind, name, _ := strings.Cut(d.Key, "/")
	switch kind {
	case "platform":
		return t.takePlatform(d)
	case "partner":
		return t.takePartner(run, name, d)
	case "domain":
		return t.takeDomain(run, name, d)
	}
	return nil
}

func (t *Table) takePlatform(d *api.PolicyDocument) []string {
	if d.Deleted {
		t.platform = defaultPlatform()
		return nil
	}
	var f faults
	t.platform = compilePlatform(d.Platform, &f)
	return f.list
}

func (t *Table) takePartner(run *edit, slug string, d *api.PolicyDocument) []string {
	if d.Deleted {
		t.partners = t.partners.remove(run, slug)
		return nil
	}
	var f faults
	t.partners = t.partners.put(run, strings.Clone(slug), compilePartner(slug, d.Partner, &f))
	return f.list
}

func (t *Table) takeDomain(run *edit, name string, d *api.PolicyDocument) []string {
	if d.Deleted {
		t.domains = t.domains.remove(run, name)
		return nil
	}
	var f faults
	compiled := compileDomain(name, d.Domain, &f)
	t.domains = t.domains.put(run, compiled.Name, compiled)
	return f.list
}

// Cursor is the last document that the table took. The zero value means none.
func (t *Table) Cursor() Cursor { return t.cursor }

// Revision is the policy revision that decisions by this table name.
func (t *Table) Revision() int64 { return t.cursor.Revision }

// Platform is the settings of the platform, with their defaults where no
// document came yet.
func (t *Table) Platform() *Platform { return t.platform }

// Partner finds a partner by its slug.
func (t *Table) Partner(slug string) (*Partner, bool) { return t.partners.get(slug) }

// Domain finds the domain under which a mail domain speaks: itself, or the
// nearest registered domain above it where that one includes its subdomains. A
// registered domain hides those above it, since it may be another partner's.
func (t *Table) Domain(name string) (*Domain, bool) {
	if d, ok := t.domains.get(name); ok {
		return d, true
	}
	for rest := parent(name); rest != ""; rest = parent(rest) {
		if d, ok := t.domains.get(rest); ok {
			return d, d.IncludeSubdomains && !d.excepts(name)
		}
	}
	return nil, false
}

// excepts reports whether a name is another partner's domain below this one, or
// lies below such a domain.
func (d *Domain) excepts(name string) bool {
	return slices.ContainsFunc(d.ExceptSubdomains, func(other string) bool {
		return name == other || strings.HasSuffix(name, "."+other)
	})
}

func parent(name string) string {
	_, rest, _ := strings.Cut(name, ".")
	return rest
}

// User finds an SMTP AUTH identity and its domain. A user belongs to the
// nearest registered domain that its address lies in.
func (t *Table) User(address mailaddr.Address) (*User, *Domain, Answer) {
	for name := address.Domain; name != ""; name = parent(name) {
		if d, ok := t.domains.get(name); ok {
			user, answer := d.User(address)
			return user, d, answer
		}
	}
	return nil, nil, No
}

// Domains yields every domain in no particular order.
func (t *Table) Domains() iter.Seq[*Domain] { return t.domains.all() }

// DomainCount is the number of domains.
func (t *Table) DomainCount() int { return t.domains.size }

// Partners yields every partner in no particular order.
func (t *Table) Partners() iter.Seq[*Partner] { return t.partners.all() }
