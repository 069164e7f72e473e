package store

import (
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"activerelay/api/quota"
)

// QuotaDay is the quota of one domain on one day.
type QuotaDay struct {
	Domain   string    `gorm:"primaryKey"`
	DayStart time.Time `gorm:"primaryKey"`
	DayEnd   time.Time
	// Day is the local date by which people call the day, "2026-11-22".
	Day string
	// TimeZone is the zone in which the day was made.
	TimeZone string
	Partner  string
	// Unit is "message" or "recipient"; it holds for the whole day.
	Unit string
	// Limit is the highest that was in force on this day, in units.
	Limit int64 `gorm:"column:quota_limit"`
	// Held is the sum of granted less returned units over all leases: it includes those that are spent.
	Held int64
	// Recovered units are held on the word of edges only, since a restore had forgotten their grants.
	Recovered int64
	// Spent is the sum of spent units over all leases, as reported.
	Spent int64
	// Messages and Recipients were accepted, by the events.
	Messages   int64
	Recipients int64
}

// Span is the day as instants.
func (d QuotaDay) Span() quota.Day { return quota.Day{Start: d.DayStart, End: d.DayEnd} }

// QuotaLease is what one edge holds of a day.
type QuotaLease struct {
	Domain     string    `gorm:"primaryKey"`
	DayStart   time.Time `gorm:"primaryKey"`
	Edge       string    `gorm:"primaryKey"`
	Generation int64     `gorm:"primaryKey"`
	Granted    int64
	Spent      int64
	Returned   int64
	UpdatedAt  time.Time
}

// Counters are the counters of the lease.
func (l QuotaLease) Counters() quota.Counters {
	return quota.Counters{Granted: l.Granted, Spent: l.Spent, Returned: l.Returned}
}

// DomainQuota is what the rules say of a domain's quota now, with the running day as it is written, if it is.
type DomainQuota struct {
	Domain Domain
	// Day is the running day. When nothing was asked for yet it is not written anywhere: Written is false and the
	// counters are 0.
	Day     QuotaDay
	Written bool
	// Leases are by edge; the generations of one edge are added up.
	Leases []QuotaLease
}

// DomainQuota returns the figures of a domain's running day.
func (tx *Tx) DomainQuota(name string) (DomainQuota, error) {
	domain, err := tx.Domain(name)
	if err != nil {
		return DomainQuota{}, err
	}
	rules, err := tx.quotaRules([]Domain{domain})
	if err != nil {
		return DomainQuota{}, err
	}
	last, err := tx.lastDay(name)
	if err != nil {
		return DomainQuota{}, err
	}
	day, err := rules.dayAt(domain, last, tx.Now)
	if err != nil {
		return DomainQuota{}, err
	}
	figures := DomainQuota{Domain: domain, Day: day}
	if last == nil || !last.DayStart.Equal(day.DayStart) {
		return figures, nil
	}
	figures.Written = true
	err = tx.db.Model(&QuotaLease{}).
		Select(`domain, day_start, edge, MAX(generation) AS generation, CAST(SUM(granted) AS BIGINT) AS granted,
			CAST(SUM(spent) AS BIGINT) AS spent, CAST(SUM(returned) AS BIGINT) AS returned`).
		Where("domain = ? AND day_start = ?", name, day.DayStart).
		Group("domain, day_start, edge").Order("edge").Scan(&figures.Leases).Error
	return figures, err
}

// RaiseRunningDay lets a rise of a domain's limit count at once: it is called in the transaction of the change. A fall
// changes nothing, since it applies from the next day.
func (tx *Tx) RaiseRunningDay(domain string, limit int64) error {
	return tx.db.Model(&QuotaDay{}).
		Where("domain = ? AND day_start <= ? AND day_end > ? AND quota_limit < ?", domain, tx.Now, tx.Now, limit).
		UpdateColumn("quota_limit", limit).Error
}

// FixRunningDay writes the running day of a domain down under the rules as they are. It is called before a change of
// zone, which takes effect when the running day ends, so the day must be known as it was.
func (tx *Tx) FixRunningDay(name string) error {
	domain, err := tx.Domain(name)
	if err != nil {
		return err
	}
	rules, err := tx.quotaRules([]Domain{domain})
	if err != nil {
		return err
	}
	_, err = tx.openDay(rules, domain)
	return err
}

// QuotaTerms are what the rules say of a domain's quota now.
type QuotaTerms struct {
	// Limit follows from users, settings and override; the running day may have a higher one.
	Limit int64
	// TimeZone is the zone in force: the domain's, else its partner's, else the platform's.
	TimeZone string
}

// QuotaTerms returns the terms of some domains, in their order.
func (tx *Tx) QuotaTerms(domains ...Domain) ([]QuotaTerms, error) {
	rules, err := tx.quotaRules(domains)
	if err != nil {
		return nil, err
	}
	terms := make([]QuotaTerms, 0, len(domains))
	for _, d := range domains {
		terms = append(terms, QuotaTerms{Limit: rules.limit(d, tx.Now), TimeZone: rules.zoneName(d)})
	}
	return terms, nil
}

// quotaRules are the rows that the limits and days of some domains follow from.
type quotaRules struct {
	settings Settings
	partners map[string]Partner
	zones    map[string]*time.Location
}

func (tx *Tx) quotaRules(domains []Domain) (*quotaRules, error) {
	rules := &quotaRules{partners: map[string]Partner{}, zones: map[string]*time.Location{}}
	var err error
	if rules.settings, err = tx.Settings(); err != nil {
		return nil, err
	}
	slugs := make([]string, 0, len(domains))
	for _, d := range domains {
		if _, known := rules.partners[d.Partner]; !known {
			rules.partners[d.Partner] = Partner{}
			slugs = append(slugs, d.Partner)
		}
	}
	// A customer reads its partner's zone through the domain, so the look-up is the program's own.
	var rows []Partner
	if err := tx.db.Where("slug IN ?", slugs).Find(&rows).Error; err != nil {
		return nil, err
	}
	for _, row := range rows {
		rules.partners[row.Slug] = row
	}
	return rules, nil
}

// limit is the daily limit of a domain that follows from users, settings and override.
func (r *quotaRules) limit(d Domain, now time.Time) int64 {
	var override *quota.Override
	if d.OverrideLimit != nil && d.OverrideExpiresAt != nil {
		override = &quota.Override{Limit: *d.OverrideLimit, ExpiresAt: *d.OverrideExpiresAt}
	}
	fromUsers := quota.Limit(d.LicensedUsers, r.settings.QuotaFloor, r.settings.QuotaPerUser)
	return quota.LimitAt(fromUsers, override, now)
}

// zoneName is the zone in force: the domain's, else its partner's, else the platform's.
func (r *quotaRules) zoneName(d Domain) string {
	if d.TimeZone != nil && *d.TimeZone != "" {
		return *d.TimeZone
	}
	if own := r.partners[d.Partner].TimeZone; own != "" {
		return own
	}
	return r.settings.DefaultTimeZone
}

func (r *quotaRules) zone(d Domain) (*time.Location, error) {
	name := r.zoneName(d)
	if loc, loaded := r.zones[name]; loaded {
		return loc, nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone of %s: %w", d.Name, err)
	}
	r.zones[name] = loc
	return loc, nil
}

// dayAt is the day of a domain that contains now, given the last one that is written. A day that is written keeps its
// span, zone and unit; its limit rises when the rules now give more.
func (r *quotaRules) dayAt(d Domain, last *QuotaDay, now time.Time) (QuotaDay, error) {
	loc, err := r.zone(d)
	if err != nil {
		return QuotaDay{}, err
	}
	computed := r.limit(d, now)
	var known quota.Day
	if last != nil {
		known = last.Span()
	}
	span := quota.Advance(known, now, loc)
	if last != nil && span.Start.Equal(last.DayStart) {
		day := *last
		day.Limit = quota.Standing{Limit: last.Limit, Granted: last.Held}.InForce(computed, span, now)
		return day, nil
	}
	return newDay(d, span, loc, computed, r.settings.QuotaUnit), nil
}

// forgottenDay is a day that an edge has counters of while nothing is written of it, which a restored database explains.
// It must be a day as the zone has them, and lately: an edge cannot make up days.
func (r *quotaRules) forgottenDay(d Domain, start, now time.Time) (day QuotaDay, plausible bool, err error) {
	loc, err := r.zone(d)
	if err != nil {
		return QuotaDay{}, false, err
	}
	span := quota.DayOf(start, loc)
	if !span.Start.Equal(start) || start.After(now) || now.Sub(start) > maxForgotten {
		return QuotaDay{}, false, nil
	}
	return newDay(d, span, loc, r.limit(d, now), r.settings.QuotaUnit), true, nil
}

// maxForgotten is how far back counters of a day that is not written are believed.
const maxForgotten = 7 * 24 * time.Hour

// spanOf is the day of a zone that contains an instant, whatever is written.
func (r *quotaRules) spanOf(d Domain, at time.Time) (quota.Day, *time.Location, error) {
	loc, err := r.zone(d)
	if err != nil {
		return quota.Day{}, nil, err
	}
	return quota.DayOf(at, loc), loc, nil
}

func newDay(d Domain, span quota.Day, loc *time.Location, limit int64, unit string) QuotaDay {
	year, month, day := span.Date(loc)
	return QuotaDay{
		Domain: d.Name, Partner: d.Partner, DayStart: span.Start.UTC(), DayEnd: span.End.UTC(),
		Day:      time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Format(time.DateOnly),
		TimeZone: loc.String(), Unit: unit, Limit: limit,
	}
}

// lastDay returns the latest day of a domain that is written, nil when there is none.
func (tx *Tx) lastDay(domain string) (*QuotaDay, error) {
	var row QuotaDay
	err := tx.db.Where("domain = ?", domain).Order("day_start DESC").Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) || errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return &row, err
}

// openDay writes the running day of a domain, unless it is written. Two transactions that do so at once come one after
// the other, by the lock on the domain, so a change of zone between them cannot make two days that overlap.
func (tx *Tx) openDay(rules *quotaRules, domain Domain) (QuotaDay, error) {
	err := tx.locked(tx.db).Select("name").Where("name = ?", domain.Name).Take(&Domain{}).Error
	if err != nil {
		return QuotaDay{}, err
	}
	last, err := tx.lastDay(domain.Name)
	if err != nil {
		return QuotaDay{}, err
	}
	day, err := rules.dayAt(domain, last, tx.Now)
	if err != nil || last != nil && last.DayStart.Equal(day.DayStart) {
		return day, err
	}
	return day, tx.insertDay(&day)
}

func (tx *Tx) insertDay(day *QuotaDay) error {
	return tx.db.Clauses(clause.OnConflict{DoNothing: true}).Create(day).Error
}

// lockDays returns written days in their order and keeps others from changing them until the commit: the last day of
// each domain, and those that start at one of the instants.
func (tx *Tx) lockDays(domains []string, starts []time.Time) ([]QuotaDay, error) {
	if len(domains) == 0 {
		return nil, nil
	}
	last := tx.db.Model(&QuotaDay{}).Select("domain, MAX(day_start)").Where("domain IN ?", domains).Group("domain")
	q := tx.locked(tx.db).Where("domain IN ?", domains)
	if len(starts) > 0 {
		q = q.Where(tx.db.Where("(domain, day_start) IN (?)", last).Or("day_start IN ?", starts))
	} else {
		q = q.Where("(domain, day_start) IN (?)", last)
	}
	var rows []QuotaDay
	err := q.Order("domain, day_start").Find(&rows).Error
	return rows, err
}
