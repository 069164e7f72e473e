package store

import "strings"

// SubdomainsOfOthers returns the registered domains below one that includes its subdomains which belong to other partners,
// by name. Their names are the business of an edge that serves the domain, and of nobody else.
func (tx *Tx) SubdomainsOfOthers(row Domain) ([]string, error) {
	if !row.IncludeSubdomains {
		return nil, nil
	}
	var names []string
	// A name holds no wildcard of LIKE: letters, digits, hyphens and dots.
	err := tx.db.Model(&Domain{}).Where("name LIKE ? AND partner <> ?", "%."+row.Name, row.Partner).Order("name").Pluck("name", &names).Error
	return names, err
}

// PublishDomainsAbove publishes the domains that include the subdomain of a name, which was registered or deleted.
func (tx *Tx) PublishDomainsAbove(name string) error {
	var above []string
	for _, rest, found := strings.Cut(name, "."); found; _, rest, found = strings.Cut(rest, ".") {
		above = append(above, rest)
	}
	var names []string
	err := tx.db.Model(&Domain{}).Where("name IN ? AND include_subdomains = ?", above, true).Pluck("name", &names).Error
	for _, found := range names {
		tx.Publish(DomainKey(found))
	}
	return err
}
