package relayd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"activerelay/relayd/internal/journal"
	"activerelay/relayd/internal/ledger"
	"activerelay/relayd/internal/outbox"
	"activerelay/relayd/internal/spool"

	"github.com/prometheus/client_golang/prometheus"
)

// disk is what the edge must not forget. Opening the journal takes the data directory for this process alone.
type disk struct {
	journal *journal.Journal
	spool   *spool.Spool
	outbox  *outbox.Outbox
	ledger  *ledger.Ledger
}

func openDisk(c Config, metrics prometheus.Registerer) (*disk, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	d := &disk{}
	// It makes the data directory too.
	d.journal, err = journal.Open(journal.Config{Dir: filepath.Join(c.DataDir, "journal"), Log: c.Log, Metrics: metrics})
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", c.DataDir, err)
	}
	d.spool, err = spool.Open(spool.Config{Dir: filepath.Join(c.DataDir, "spool"), Journal: d.journal, Log: c.Log, Metrics: metrics})
	if err == nil {
		d.outbox, err = outbox.Open(outbox.Config{Journal: d.journal, Now: c.Now, Metrics: metrics})
	}
	if err == nil {
		d.ledger, err = ledger.Open(ledger.Config{
			Journal: d.journal, Now: c.Now, BootID: boot, TrustAcrossBoots: c.SpendAtOnce, Log: c.Log, Metrics: metrics,
		})
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *disk) close() error {
	var err error
	if d.spool != nil {
		err = d.spool.Close()
	}
	return errors.Join(err, d.journal.Close())
}

// ownerKey holds the id of the edge whose leases, events and instructions the journal keeps.
var ownerKey = []byte("id")

// belongTo makes the journal that of one edge. Leases and numbers of another one mean nothing to the control plane, and
// would be counted twice.
func (d *disk) belongTo(edge string, generation int64) error {
	owner, err := d.journal.Get(ownerKey)
	switch {
	case err == nil && string(owner) == edge:
		return nil
	case err == nil:
		return fmt.Errorf("the journal is that of edge %s, and identity.json that of edge %s: start the new edge with a data directory of its own", owner, edge)
	case errors.Is(err, journal.ErrCorrupt):
		// Nothing says that it is another's, and mail waits in it.
	case !errors.Is(err, journal.ErrNotFound):
		return fmt.Errorf("read owner of the journal: %w", err)
	default:
		if err := errors.Join(d.ledger.StartGeneration(generation), d.outbox.StartGeneration(generation)); err != nil {
			return err
		}
	}
	b := d.journal.NewBatch()
	b.Set(ownerKey, []byte(edge))
	if err := d.journal.Commit(b); err != nil {
		return fmt.Errorf("write owner of the journal: %w", err)
	}
	return nil
}

// bootID names this boot of the kernel: after another one the disk may be an older copy of itself.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}
