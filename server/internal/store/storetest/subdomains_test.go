package storetest_test

import (
	"slices"
	"testing"

	"activerelay/server/internal/store"
)

func TestADomainKnowsTheDomainsBelowItThatBelongToOthers(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.addPartner(t, "acme")
		f.addPartner(t, "other")
		f.addDomain(t, "acme", "acme.example", func(d *store.Domain) { d.IncludeSubdomains = true })
		for _, name := range []string{"a.acme.example", "b.a.acme.example", "xacme.example"} {
			f.addDomain(t, "other", name, nil)
		}
		f.addDomain(t, "acme", "own.acme.example", nil)
		before := f.documents(t)["domain/acme.example"].Revision
		f.write(t, store.System(), func(tx *store.Tx) error {
			row, err := tx.Domain("acme.example")
			if err != nil {
				return err
			}
			names, err := tx.SubdomainsOfOthers(row)
			if want := []string{"a.acme.example", "b.a.acme.example"}; !slices.Equal(names, want) {
				t.Errorf("others have %v, want %v", names, want)
			}
			row.IncludeSubdomains = false
			if names, err := tx.SubdomainsOfOthers(row); err != nil || names != nil {
				t.Errorf("a domain that speaks for itself alone: %v, %v", names, err)
			}
			return err
		})
		f.write(t, store.System(), func(tx *store.Tx) error { return tx.PublishDomainsAbove("c.b.a.acme.example") })
		if after := f.documents(t)["domain/acme.example"].Revision; after <= before {
			t.Errorf("the domain above has revision %d, as before", after)
		}
	})
}
