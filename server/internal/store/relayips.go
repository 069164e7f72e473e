package store

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"gorm.io/gorm"
)

// The states of a relay IP.
const (
	RelayIPRequested = "requested"
	RelayIPActive    = "active"
	RelayIPDisabled  = "disabled"
	RelayIPRejected  = "rejected"
)

// RelayIP is a client address that may relay for one domain.
type RelayIP struct {
	ID      string `gorm:"primaryKey"`
	Domain  string
	Partner string
	// Address is a canonical prefix, e.g. "192.0.2.10/32".
	Address string
	// FirstAddress and LastAddress are its ends; InsertRelayIP fills them in.
	FirstAddress string
	LastAddress  string
	State        string
	// Reason says why it is rejected or disabled, Cause who or what disabled it; both are empty otherwise.
	Reason  string
	Cause   string
	Comment string
	// RelayingClearedAt is when it was last enabled again: complaints before it no longer count. Nil means never.
	RelayingClearedAt *time.Time
	// ActivatedAt is nil until it was active for the first time.
	ActivatedAt *time.Time
	Version     int64
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// TableName names the table.
func (RelayIP) TableName() string { return "relay_ips" }

// RelayIP returns one relay IP.
func (tx *Tx) RelayIP(id string) (RelayIP, error) {
	var row RelayIP
	err := tx.scoped(tx.db, "partner", "domain").Where("id = ?", id).Take(&row).Error
	return row, err
}

// LockRelayIP returns one relay IP, which nobody else can change until the commit.
func (tx *Tx) LockRelayIP(id string) (RelayIP, error) {
	var row RelayIP
	err := tx.locked(tx.scoped(tx.db, "partner", "domain")).Where("id = ?", id).Take(&row).Error
	return row, err
}

// RelayIPOf returns the relay IP of a domain with exactly this prefix.
func (tx *Tx) RelayIPOf(domain string, prefix netip.Prefix) (RelayIP, error) {
	var row RelayIP
	err := tx.scoped(tx.db, "partner", "domain").
		Where("domain = ? AND address = ?", domain, prefix.String()).Take(&row).Error
	return row, err
}

// RelayIPFilter narrows a list of relay IPs. Empty fields do not.
type RelayIPFilter struct {
	Partner, Domain, State string
	// Prefix keeps those with exactly this prefix, Covering those that hold this address. Zero values keep all.
	Prefix   netip.Prefix
	Covering netip.Addr
}

// RelayIPs returns at most limit relay IPs after an id, oldest first.
func (tx *Tx) RelayIPs(filter RelayIPFilter, after string, limit int) ([]RelayIP, error) {
	q := tx.scoped(tx.db, "partner", "domain").Where("id > ?", after)
	if filter.Partner != "" {
		q = q.Where("partner = ?", filter.Partner)
	}
	if filter.Domain != "" {
		q = q.Where("domain = ?", filter.Domain)
	}
	if filter.State != "" {
		q = q.Where("state = ?", filter.State)
	}
	if filter.Prefix.IsValid() {
		q = q.Where("address = ?", filter.Prefix.String())
	}
	if filter.Covering.IsValid() {
		q = covering(q, filter.Covering)
	}
	var rows []RelayIP
	err := q.Order("id").Limit(limit).Find(&rows).Error
	return rows, err
}

// RelayIPsOf returns all relay IPs of a domain, oldest first.
func (tx *Tx) RelayIPsOf(domain string) ([]RelayIP, error) {
	var rows []RelayIP
	err := tx.scoped(tx.db, "partner", "domain").Where("domain = ?", domain).Order("id").Find(&rows).Error
	return rows, err
}

// MostSpecificRelayIP returns the relay IP of a domain with the longest prefix that holds an address, of those that
// were ever active.
func (tx *Tx) MostSpecificRelayIP(domain string, address netip.Addr) (RelayIP, error) {
	q := covering(tx.scoped(tx.db, "partner", "domain"), address.Unmap())
	var row RelayIP
	// The longest of the prefixes that hold one address begins last, or ends first.
	err := q.Where("domain = ? AND activated_at IS NOT NULL", domain).
		Order("first_address DESC, last_address").Limit(1).Take(&row).Error
	return row, err
}

// AddressTakenByOther reports whether a partner other than the named one has a relay IP, not a rejected one, that
// overlaps a prefix. It must run as System to mean anything.
func (tx *Tx) AddressTakenByOther(partner string, prefix netip.Prefix) (bool, error) {
	first, last := ends(prefix)
	var ids []string
	err := tx.scoped(tx.db.Model(&RelayIP{}), "partner", "domain").
		Where("first_address <= ? AND last_address >= ? AND first_address >= ?", last, first, widestFirst(prefix)).
		Where("partner <> ? AND state <> ?", partner, RelayIPRejected).
		Limit(1).Pluck("id", &ids).Error
	return len(ids) > 0, err
}

// InsertRelayIP adds a relay IP; its version becomes 1. A second one of the same domain and prefix is a conflict on
// relay_ips_domain_address_key.
func (tx *Tx) InsertRelayIP(row *RelayIP) error {
	prefix, err := netip.ParsePrefix(row.Address)
	if err != nil {
		return fmt.Errorf("insert relay IP: %w", err)
	}
	row.FirstAddress, row.LastAddress = ends(prefix)
	row.Version, row.CreatedAt, row.UpdatedAt = 1, tx.Now, tx.Now
	return tx.db.Create(row).Error
}

// UpdateRelayIP writes a relay IP that LockRelayIP returned, with the next version.
func (tx *Tx) UpdateRelayIP(row *RelayIP) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "partner", "domain"), row, read)
}

// DeleteRelayIP deletes a relay IP.
func (tx *Tx) DeleteRelayIP(id string) error {
	return remove[RelayIP](tx.scoped(tx.db, "partner", "domain").Where("id = ?", id))
}

// covering narrows to the prefixes that hold an address. No prefix is wider than widestFirst says, which keeps the scan
// of the index short.
func covering(q *gorm.DB, address netip.Addr) *gorm.DB {
	prefix := netip.PrefixFrom(address, address.BitLen())
	at, _ := ends(prefix)
	return q.Where("first_address <= ? AND last_address >= ? AND first_address >= ?", at, at, widestFirst(prefix))
}

// ends returns the first and the last address of a prefix as 32 hexadecimal digits, which sort as the addresses do.
func ends(prefix netip.Prefix) (first, last string) {
	low := prefix.Masked().Addr().As16()
	high := low
	bits := prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	for i := range high {
		switch {
		case bits <= 8*i:
			high[i] = 0xff
		case bits < 8*(i+1):
			high[i] |= 0xff >> (bits - 8*i)
		}
	}
	return hex.EncodeToString(low[:]), hex.EncodeToString(high[:])
}

// widestFirst is the first address of the widest prefix that is kept, IPv4 /24 or IPv6 /48, around a prefix.
func widestFirst(prefix netip.Prefix) string {
	widest := 48
	if prefix.Addr().Is4() {
		widest = 24
	}
	if prefix.Bits() > widest {
		prefix = netip.PrefixFrom(prefix.Addr(), widest)
	}
	first, _ := ends(prefix)
	return first
}
