package store

import (
	"slices"
	"time"

	"gorm.io/gorm"
)

// The values of an edge's status.
const (
	EdgeActive  = "active"
	EdgeRetired = "retired"
)

// Edge is one relayd.
type Edge struct {
	ID     string `gorm:"primaryKey"`
	Name   string
	Status string
	// Partners is its scope; empty means all.
	Partners Strings
	// PublicKey is the X25519 key that secrets are sealed to, base64.
	PublicKey         string
	SoftwareVersion   string
	CapabilityVersion int
	// Generation counts the lives of the edge's leases: those of an older one are written off.
	Generation     int64
	CredentialHash []byte
	// NextCredentialHash is a rotated credential that was not used yet; nil means none.
	NextCredentialHash []byte
	// BootNonce is that of the running relayd; PreviousBootNonces are the last ones before it, oldest first.
	BootNonce          string
	PreviousBootNonces Strings
	// LeaseSequence is the number of the last lease call that counted.
	LeaseSequence int64
	// EventGeneration and EventAcknowledged say up to which event nothing is missing.
	EventGeneration   int64
	EventAcknowledged int64
	// EventLatest is the time of the latest event that was taken; nil means none.
	EventLatest *time.Time
	// EventRepeatTo and EventRepeatBefore are what EventAcknowledged and EventLatest were when a generation of events ended:
	// the edge tells again what it told before.
	EventRepeatTo     int64
	EventRepeatBefore *time.Time
	// InstructionNumber is the last that was given out.
	InstructionNumber       int64
	InstructionAcknowledged int64
	// ReportedEpoch is the history in which the edge made its last complete report of leases.
	ReportedEpoch    string
	EnforcedEpoch    string
	EnforcedRevision int64
	JoinedAt         time.Time
	// LastSeenAt is exact to a second or two.
	LastSeenAt *time.Time
	RetiredAt  *time.Time
}

// maxPreviousBootNonces bounds how many starts back a clone is recognised by its boot nonce.
const maxPreviousBootNonces = 16

// serves reports whether the edge's scope includes a partner.
func (e *Edge) serves(partner string) bool {
	return len(e.Partners) == 0 || slices.Contains(e.Partners, partner)
}

// edges narrows to what the tenant may see: an edge sees itself, partners and customers see none.
func (tx *Tx) edges() *gorm.DB {
	q := tx.db.Model(&Edge{})
	switch tx.Tenant.kind {
	case operator:
		return q
	case edge:
		return q.Where("id = ?", tx.Tenant.Edge)
	default:
		return q.Where("1 = 0")
	}
}

// Edge returns one edge.
func (tx *Tx) Edge(id string) (Edge, error) {
	var row Edge
	err := tx.edges().Where("id = ?", id).Take(&row).Error
	return row, err
}

// LockEdge returns one edge, which nobody else can change until the commit.
func (tx *Tx) LockEdge(id string) (Edge, error) {
	var row Edge
	err := tx.locked(tx.edges()).Where("id = ?", id).Take(&row).Error
	return row, err
}

// Edges returns at most limit edges after an id, oldest first.
func (tx *Tx) Edges(after string, limit int) ([]Edge, error) {
	var rows []Edge
	err := tx.edges().Where("id > ?", after).Order("id").Limit(limit).Find(&rows).Error
	return rows, err
}

// InsertEdge adds an edge that joins now. It holds no units, so its report of leases is complete.
func (tx *Tx) InsertEdge(row *Edge) error {
	epoch, err := tx.Epoch()
	if err != nil {
		return err
	}
	row.Status, row.Generation = EdgeActive, 1
	row.ReportedEpoch, row.JoinedAt = epoch, tx.Now
	return tx.db.Create(row).Error
}

// updateEdge writes the named columns of an edge that LockEdge returned.
func (tx *Tx) updateEdge(row *Edge, columns ...string) error {
	return tx.db.Model(&Edge{}).Where("id = ?", row.ID).Select(columns).Updates(row).Error
}

// RetireEdge revokes the credential of an edge that LockEdge returned. Its leases are written off by staying as they
// are: units that it did not report as spent may have been spent, so they stay counted as held, and the limit holds.
// What it did return before is free as ever.
func (tx *Tx) RetireEdge(row *Edge) error {
	row.Status, row.RetiredAt = EdgeRetired, &tx.Now
	row.CredentialHash, row.NextCredentialHash = nil, nil
	if err := tx.forgetInstructions(row.ID); err != nil {
		return err
	}
	if err := tx.leaveQueue(row.ID); err != nil {
		return err
	}
	if err := tx.db.Where("edge = ?", row.ID).Delete(&Rejection{}).Error; err != nil {
		return err
	}
	return tx.updateEdge(row, "status", "retired_at", "credential_hash", "next_credential_hash")
}

// SetNextCredential gives an edge that LockEdge returned a second credential.
func (tx *Tx) SetNextCredential(row *Edge, hash []byte) error {
	row.NextCredentialHash = hash
	return tx.updateEdge(row, "next_credential_hash")
}

// PromoteCredential makes the rotated credential, which was just used for the first time, the only one. It does
// nothing when another call has done it already.
func (tx *Tx) PromoteCredential(id string, hash []byte) error {
	return tx.edges().Where("id = ? AND next_credential_hash = ?", id, hash).
		Updates(map[string]any{"credential_hash": hash, "next_credential_hash": nil}).Error
}

// EdgeSeen is what polls and calls told of an edge since it was last written down.
type EdgeSeen struct {
	At time.Time
	// Epoch is empty when the edge did not say what it enforces.
	Epoch    string
	Revision int64
	// Version and Capability are what the edge runs; Version is empty when it did not say.
	Version    string
	Capability int
}

// SaveSeen writes down what was seen of edges.
func (tx *Tx) SaveSeen(seen map[string]EdgeSeen) error {
	ids := make([]string, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	slices.Sort(ids) // all replicas lock in one order
	for _, id := range ids {
		s := seen[id]
		columns := map[string]any{"last_seen_at": s.At}
		if s.Epoch != "" {
			columns["enforced_epoch"], columns["enforced_revision"] = s.Epoch, s.Revision
		}
		if s.Version != "" {
			columns["software_version"], columns["capability_version"] = s.Version, s.Capability
		}
		if err := tx.edges().Where("id = ?", id).Updates(columns).Error; err != nil {
			return err
		}
	}
	return nil
}
