package store

import (
	"time"

	"gorm.io/gorm/clause"
)

// Domain is a customer domain.
type Domain struct {
	Name          string `gorm:"primaryKey"`
	Partner       string
	LicensedUsers int64
	// TimeZone is the zone of the domain itself; nil inherits the partner's, then the platform's.
	TimeZone          *string
	IncludeSubdomains bool
	// UsersMaySendAs is "own" or "domain".
	UsersMaySendAs string
	Contacts       Strings
	Administrative `gorm:"embedded"`
	Relaying       Relaying `gorm:"embedded;embeddedPrefix:relaying_"`

	// BulkMode is empty while the platform's rule for bulk mail applies. BulkVersion counts its changes.
	BulkMode      string
	BulkReason    string
	BulkExpiresAt *time.Time
	BulkVersion   int64

	// OverrideLimit is nil while the limit by licensed users applies. OverrideVersion counts its changes.
	OverrideLimit     *int64
	OverrideExpiresAt *time.Time
	OverrideReason    string
	OverrideVersion   int64

	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// DomainTaken is the constraint of a domain name that exists already.
const DomainTaken = "domains_pkey"

// DomainKey is the policy document of a domain.
func DomainKey(name string) string { return "domain/" + name }

// Domain returns one domain.
func (tx *Tx) Domain(name string) (Domain, error) {
	var row Domain
	err := tx.scoped(tx.db, "partner", "name").Where("name = ?", name).Take(&row).Error
	return row, err
}

// LockDomain returns one domain, which nobody else can change until the commit.
func (tx *Tx) LockDomain(name string) (Domain, error) {
	var row Domain
	err := tx.locked(tx.scoped(tx.db, "partner", "name")).Where("name = ?", name).Take(&row).Error
	return row, err
}

// DomainFilter narrows a list of domains. Empty fields do not.
type DomainFilter struct {
	Partner, Status string
	// Prefix is what the names start with.
	Prefix string
}

// Domains returns at most limit domains after a name, by name.
func (tx *Tx) Domains(filter DomainFilter, after string, limit int) ([]Domain, error) {
	q := tx.scoped(tx.db, "partner", "name").Where("name > ?", after)
	if filter.Partner != "" {
		q = q.Where("partner = ?", filter.Partner)
	}
	if filter.Status != "" {
		q = q.Where("status = ?", filter.Status)
	}
	if filter.Prefix != "" {
		// Names are ASCII, so what starts with the prefix lies between it and the prefix followed by the last byte.
		q = q.Where("name >= ? AND name < ?", filter.Prefix, filter.Prefix+"\x7f")
	}
	var rows []Domain
	err := q.Order("name").Limit(limit).Find(&rows).Error
	return rows, err
}

// InForce is what follows for a domain from its own row, its partner's and the settings.
type InForce struct {
	// Limit is the daily limit in quota units.
	Limit int64
	// TimeZone is the zone whose midnight starts the day.
	TimeZone string
}

// InForce returns what follows for each of some domains, by name.
func (tx *Tx) InForce(domains ...Domain) (map[string]InForce, error) {
	if len(domains) == 0 {
		return nil, nil
	}
	rules, err := tx.quotaRules(domains)
	if err != nil {
		return nil, err
	}
	facts := make(map[string]InForce, len(domains))
	for _, domain := range domains {
		zone, err := rules.zone(domain)
		if err != nil {
			return nil, err
		}
		facts[domain.Name] = InForce{Limit: rules.limit(domain, tx.Now), TimeZone: zone.String()}
	}
	return facts, nil
}

// InsertDomain adds a domain; its version becomes 1. A name that is taken, by whomever, is a conflict on "domains_pkey"
// that leaves the transaction usable.
func (tx *Tx) InsertDomain(row *Domain) error {
	row.Version, row.CreatedAt, row.UpdatedAt = 1, tx.Now, tx.Now
	result := tx.db.Clauses(clause.OnConflict{DoNothing: true}).Create(row)
	if result.Error == nil && result.RowsAffected == 0 {
		return &ErrConflict{Constraint: DomainTaken}
	}
	return result.Error
}

// UpdateDomain writes a domain that LockDomain returned, with the next version.
func (tx *Tx) UpdateDomain(row *Domain) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "partner", "name"), row, read)
}

// DeleteDomain deletes a domain with its relay IPs, users and routes. Reports and the audit log stay.
func (tx *Tx) DeleteDomain(name string) error {
	if err := remove[Domain](tx.scoped(tx.db, "partner", "name").Where("name = ?", name)); err != nil {
		return err
	}
	return tx.db.Where("domain = ?", name).Delete(&Route{}).Error
}

// DisabledForAbuse reports whether relaying of a domain, or of one of its relay IPs or users, was disabled by complaints
// or the operator. Deleting it would be a way around that.
func (tx *Tx) DisabledForAbuse(name string) (bool, error) {
	causes := []string{CauseComplaints, CauseOperator}
	var found int64
	err := tx.db.Raw(`SELECT
		(SELECT COUNT(*) FROM domains WHERE name = ? AND relaying_state = ? AND relaying_cause IN ?) +
		(SELECT COUNT(*) FROM relay_ips WHERE domain = ? AND state = ? AND cause IN ?) +
		(SELECT COUNT(*) FROM users WHERE domain = ? AND relaying_state = ? AND relaying_cause IN ?)`,
		name, RelayingDisabled, causes, name, RelayingDisabled, causes, name, RelayingDisabled, causes).Scan(&found).Error
	return found > 0, err
}
