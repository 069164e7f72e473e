package store

import "time"

// Settings is the one row of platform settings; the contract documents each.
type Settings struct {
	ID                      int `gorm:"primaryKey"`
	QuotaFloor              int64
	QuotaPerUser            int64
	QuotaUnit               string
	DefaultTimeZone         string
	RelayIPActivation       string
	AllowUnscanned          bool
	AllowTargetNetworks     Strings
	BulkMode                string
	BulkRefuseAutoSubmitted bool
	BulkRecipientCap        int
	MaxRecipients           int
	MaxMessageBytes         int64
	MaxPolicyAgeSeconds     int
	QuotaReachedReplyServer string
	QuotaReachedReplyUser   string
	SuspendedDeferHours     int
	BareNewline             string
	NoticeFrom              string
	NoticePercent           int
	ComplaintsUser          int
	ComplaintsRelayIP       int
	ComplaintsDomain        int
	ComplaintsPartner       int
	ComplaintsWindowHours   int
	Version                 int64
	UpdatedAt               time.Time
}

// TableName names the table.
func (Settings) TableName() string { return "settings" }

// PlatformKey is the policy document of the platform.
const PlatformKey = "platform"

// Settings returns the platform settings. They are no tenant's secret: what may be shown of them is the caller's
// decision.
func (tx *Tx) Settings() (Settings, error) {
	var row Settings
	err := tx.db.Where("id = 1").Take(&row).Error
	return row, err
}

// LockSettings returns the settings, which nobody else can change until the commit.
func (tx *Tx) LockSettings() (Settings, error) {
	var row Settings
	err := tx.locked(tx.db).Where("id = 1").Take(&row).Error
	return row, err
}

// UpdateSettings writes settings that LockSettings returned, with the next version.
func (tx *Tx) UpdateSettings(row *Settings) error {
	read := row.Version
	row.Version, row.UpdatedAt = read+1, tx.Now
	return tx.update(tx.scoped(tx.db, "", ""), row, read)
}

// DatabaseID returns the random identity that the database was born with; it is the root of the policy epoch.
func (tx *Tx) DatabaseID() (string, error) {
	var id string
	err := tx.db.Raw("SELECT value FROM meta WHERE key = 'database_id'").Row().Scan(&id)
	return id, translate(err)
}
