package store

import "time"

// DayFilter narrows reports. Empty fields do not.
type DayFilter struct {
	Partner, Domain string
	// From and To are the first and the last local date.
	From, To string
}

// DayCursor is a place in a list of reports. The zero cursor is its beginning.
type DayCursor struct {
	Day, Domain string
	DayStart    time.Time
}

// DayReports returns at most limit reports after a place, of the days on which anything was relayed or refused, newest
// day first, then by domain.
func (tx *Tx) DayReports(filter DayFilter, after DayCursor, limit int) ([]QuotaDay, error) {
	q := tx.scoped(tx.db, "partner", "domain").Where("day >= ? AND day <= ?", filter.From, filter.To)
	if filter.Partner != "" {
		q = q.Where("partner = ?", filter.Partner)
	}
	if filter.Domain != "" {
		q = q.Where("domain = ?", filter.Domain)
	}
	if after.Day != "" {
		q = q.Where("day < ? OR day = ? AND (domain > ? OR domain = ? AND day_start > ?)",
			after.Day, after.Day, after.Domain, after.Domain, after.DayStart)
	}
	q = q.Where(`spent > 0 OR messages > 0 OR EXISTS (SELECT 1 FROM usage_refusals AS r
		WHERE r.domain = quota_days.domain AND r.day_start = quota_days.day_start)`)
	var rows []QuotaDay
	err := q.Order("day DESC, domain, day_start").Limit(limit).Find(&rows).Error
	return rows, err
}

// RefusalCount is how often something was refused for one reason.
type RefusalCount struct {
	Reason   string
	Messages int64
}

// Refusals returns the refusals of some days by reason, most first, in the order of the days.
func (tx *Tx) Refusals(days []QuotaDay) ([][]RefusalCount, error) {
	counts := make([][]RefusalCount, len(days))
	if len(days) == 0 {
		return counts, nil
	}
	var domains []string
	var starts []time.Time
	places := map[dayKey]int{}
	for i, day := range days {
		places[keyOf(day.Domain, day.DayStart)] = i
		domains, starts = append(domains, day.Domain), append(starts, day.DayStart)
	}
	var rows []usageRefusal
	// Row values in a list are not SQLite's; this finds a few more, which have no place.
	err := tx.scoped(tx.db, "partner", "domain").Where("domain IN ? AND day_start IN ?", domains, starts).
		Order("messages DESC, reason").Find(&rows).Error
	for _, row := range rows {
		if i, known := places[keyOf(row.Domain, row.DayStart)]; known {
			counts[i] = append(counts[i], RefusalCount{Reason: row.Reason, Messages: row.Messages})
		}
	}
	return counts, err
}

// SenderTotal is what one sender of a domain did on one day.
type SenderTotal struct {
	// Kind is "client_address", "user" or "sender_address".
	Kind       string
	Key        string
	Messages   int64
	Recipients int64
	// Refused is the sum of Refusals.
	Refused  int64
	Refusals []RefusalCount `gorm:"-"`
}

// TopSenders returns the count senders of one kind with the most messages, relayed and refused together, on one day of a
// domain. There are none where the domain was another partner's on that day: it may have changed hands.
func (tx *Tx) TopSenders(domain string, dayStart time.Time, kind string, count int) ([]SenderTotal, error) {
	var own int64
	err := tx.scoped(tx.db.Model(&QuotaDay{}), "partner", "domain").
		Where("domain = ? AND day_start = ?", domain, dayStart).Count(&own).Error
	if err != nil || own == 0 {
		return nil, err
	}
	var totals []SenderTotal
	err = tx.db.Raw(`
		SELECT kind, key, CAST(SUM(messages) AS BIGINT) AS messages, CAST(SUM(recipients) AS BIGINT) AS recipients,
			CAST(SUM(refused) AS BIGINT) AS refused
		FROM (
			SELECT kind, key, messages, recipients, 0 AS refused FROM sender_usage
			WHERE domain = ? AND day_start = ? AND kind = ?
			UNION ALL
			SELECT kind, key, 0 AS messages, 0 AS recipients, messages AS refused FROM sender_refusals
			WHERE domain = ? AND day_start = ? AND kind = ?
		) AS senders
		GROUP BY kind, key
		ORDER BY SUM(messages) + SUM(refused) DESC, key
		LIMIT ?`, domain, dayStart, kind, domain, dayStart, kind, count).Scan(&totals).Error
	if err != nil || len(totals) == 0 {
		return nil, err
	}
	return totals, tx.addSenderRefusals(domain, dayStart, kind, totals)
}

func (tx *Tx) addSenderRefusals(domain string, dayStart time.Time, kind string, totals []SenderTotal) error {
	keys := make([]string, len(totals))
	index := map[string]*SenderTotal{}
	for i := range totals {
		keys[i] = totals[i].Key
		index[totals[i].Key] = &totals[i]
	}
	var rows []senderRefusal
	err := tx.db.Where("domain = ? AND day_start = ? AND kind = ? AND key IN ?", domain, dayStart, kind, keys).
		Order("messages DESC, reason").Find(&rows).Error
	for _, row := range rows {
		index[row.Key].Refusals = append(index[row.Key].Refusals, RefusalCount{Reason: row.Reason, Messages: row.Messages})
	}
	return err
}

// DayStartOf returns when the day of a domain with a local date started, ErrNotFound where nothing happened on it or the
// domain was another partner's on that day.
func (tx *Tx) DayStartOf(domain, day string) (time.Time, error) {
	var row QuotaDay
	err := tx.scoped(tx.db, "partner", "domain").Where("domain = ? AND day = ?", domain, day).Order("day_start DESC").Limit(1).Take(&row).Error
	return row.DayStart, err
}
