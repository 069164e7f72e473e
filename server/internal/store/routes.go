package store

import "time"

// Route is a smarthost that takes the place of MX delivery.
type Route struct {
	ID string `gorm:"primaryKey"`
	// Partner is nil for the operator's routes, which name no sender domain.
	Partner *string
	// Domain is the sender domain, RecipientDomain the recipients'; empty means any.
	Domain          string
	RecipientDomain string
	Host            string
	Port            int
	TLS             string
	// Username is empty where the smarthost takes mail without a login.
	Username string
	// PasswordSealed is the password under the key of this control plane; nil where there is none.
	PasswordSealed []byte
	// SecretVersion counts the changes of the password.
	SecretVersion int64
	Version       int64
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// Route returns one route.
func (tx *Tx) Route(id string) (Route, error) {
	var row Route
	err := tx.scoped(tx.db, "partner", "domain").Where("id = ?", id).Take(&row).Error
	return row, err
}

// LockRoute returns one route, which nobody else can change until the commit.
func (tx *Tx) LockRoute(id string) (Route, error) {
	var row Route
	err := tx.locked(tx.scoped(tx.db, "partner", "domain")).Where("id = ?", id).Take(&row).Error
	return row, err
}

// RouteForEdge returns one route of the partners in an edge's scope, or of the operator, whose routes every edge uses.
func (tx *Tx) RouteForEdge(id string) (Route, error) {
	q := tx.db.Where("id = ?", id)
	if !tx.Tenant.Everything() {
		q = q.Where("partner IS NULL OR partner IN ?", tx.Tenant.Partners)
	}
	var row Route
	err := q.Take(&row).Error
	return row, err
}

// RouteFilter narrows a list of routes. Empty fields do not.
type RouteFilter struct{ Partner, Domain string }

// Routes returns at most limit routes after an id, oldest first.
func (tx *Tx) Routes(filter RouteFilter, after string, limit int) ([]Route, error) {
	q := tx.scoped(tx.db, "partner", "domain").Where("id > ?", after)
	if filter.Partner != "" {
		q = q.Where("partner = ?", filter.Partner)
	}
	if filter.Domain != "" {
		q = q.Where("domain = ?", filter.Domain)
	}
	var rows []Route
	err := q.Order("id").Limit(limit).Find(&rows).Error
	return rows, err
}

// RoutesOf returns all routes of a sender domain, or with "" those that name none, by recipient domain.
func (tx *Tx) RoutesOf(domain string) ([]Route, error) {
	var rows []Route
	err := tx.scoped(tx.db, "partner", "domain").Where("domain = ?", domain).Order("recipient_domain").Find(&rows).Error
	return rows, err
}

// InsertRoute adds a route; its version becomes 1. A second one of the same domains is a conflict on
// routes_domain_recipient_domain_key.
func (tx *Tx) InsertRoute(row *Route) error {
	row.Version, row.CreatedAt, row.UpdatedAt = 1, tx.Now, tx.Now
	return tx.db.Create(row).Error
}

// UpdateRoute writes a route that LockRoute returned, with the next version.
func (tx *Tx) UpdateRoute(row *Route) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "partner", "domain"), row, read)
}

// DeleteRoute deletes a route.
func (tx *Tx) DeleteRoute(id string) error {
	return remove[Route](tx.scoped(tx.db, "partner", "domain").Where("id = ?", id))
}
