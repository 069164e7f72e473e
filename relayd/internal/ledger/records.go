package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"activerelay/api/quota"
	"activerelay/relayd/internal/journal"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	metaKey     = []byte("lm")
	leasePrefix = []byte("ll")
	spentPrefix = []byte("ls")
)

func leaseKey(domain string, start time.Time) []byte { return dayKey(leasePrefix, domain, start) }

func spentKey(domain string, start time.Time) []byte { return dayKey(spentPrefix, domain, start) }

func dayKey(prefix []byte, domain string, start time.Time) []byte {
	key := append(bytes.Clone(prefix), domain...)
	return binary.BigEndian.AppendUint64(append(key, 0), uint64(start.Unix()))
}

func encodeSpent(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// record is a lease on the disk, without what is spent of it.
type record struct {
	Domain   string     `json:"domain"`
	Start    time.Time  `json:"day_start"`
	End      time.Time  `json:"day_end"`
	Granted  int64      `json:"granted"`
	Returned int64      `json:"returned"`
	Limit    int64      `json:"limit"`
	Used     int64      `json:"used"`
	Unit     quota.Unit `json:"unit"`
	Zone     string     `json:"time_zone"`
}

func (s *lease) record() record {
	return record{
		Domain: s.domain, Start: s.day.Start, End: s.day.End,
		Granted: s.counters.Granted, Returned: s.counters.Returned,
		Limit: s.limit, Used: s.used, Unit: s.unit, Zone: s.zone,
	}
}

func (r record) lease() *lease {
	return &lease{
		domain: r.Domain, day: quota.Day{Start: r.Start, End: r.resetsAt()},
		counters: quota.Counters{Granted: r.Granted, Returned: r.Returned},
		unit:     r.Unit, zone: r.Zone, limit: r.Limit, used: r.Used,
	}
}

// resetsAt is the end of the day on the clock of its zone, since that is how a sender is told. A zone that this machine does
// not know is told in UTC: the instant is the same.
func (r record) resetsAt() time.Time {
	zone, err := time.LoadLocation(r.Zone)
	if err != nil {
		return r.End.UTC()
	}
	return r.End.In(zone)
}

func (r record) put(b *journal.Batch) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode lease of %s: %w", r.Domain, err)
	}
	b.Set(leaseKey(r.Domain, r.Start), text)
	return nil
}

func (m meta) put(b *journal.Batch) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode ledger state: %w", err)
	}
	b.Set(metaKey, text)
	return nil
}

func deleteAll(b *journal.Batch) {
	for _, prefix := range [][]byte{leasePrefix, spentPrefix} {
		end := bytes.Clone(prefix)
		end[len(end)-1]++
		b.DeleteRange(prefix, end)
	}
}

// load reads everything back at Open. Where that cannot be done, or a count may have
// gone back, the ledger is empty: the control plane, which knows of more calls than it
// does, writes the old leases off and gives it a new generation.
func (l *Ledger) load() error {
	err := l.read()
	if err == nil && l.journal.ChangesLost() {
		err = fmt.Errorf("what was spent and given back may be lost: %w", journal.ErrCorrupt)
	}
	if !errors.Is(err, journal.ErrCorrupt) {
		return err
	}
	l.log.Error("leases cannot be read; asking for new ones", "err", err)
	l.meta, l.accounts = meta{}, map[string]*account{}
	b := l.journal.NewBatch()
	b.Delete(metaKey)
	deleteAll(b)
	return l.journal.Commit(b)
}

func (l *Ledger) read() error {
	text, err := l.journal.Get(metaKey)
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	if err == nil {
		if err := json.Unmarshal(text, &l.meta); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	err = l.journal.Scan(leasePrefix, func(key, text []byte) error {
		var r record
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("lease %q: %w", key, err)
		}
		l.account(r.Domain).leases[r.Start.Unix()] = r.lease()
		return nil
	})
	if err != nil {
		return err
	}
	return l.journal.Scan(spentPrefix, l.loadSpent)
}

func (l *Ledger) loadSpent(key, value []byte) error {
	rest := key[len(spentPrefix):]
	if len(rest) < 9 || len(value) != 8 {
		return fmt.Errorf("spent record %q: %w", key, journal.ErrCorrupt)
	}
	day := int64(binary.BigEndian.Uint64(rest[len(rest)-8:]))
	a := l.accounts[string(rest[:len(rest)-9])]
	if a == nil || a.leases[day] == nil {
		return fmt.Errorf("spent record %q has no lease: %w", key, journal.ErrCorrupt)
	}
	s := a.leases[day]
	s.ordered = int64(binary.BigEndian.Uint64(value))
	s.counters.Spent = s.ordered
	s.spentThen = s.ordered
	return nil
}

// metrics are the ledger's own figures.
type metrics struct {
	spent prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, l *Ledger) (*metrics, error) {
	m := &metrics{spent: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "relayd_ledger_spent_units_total",
		Help: "Quota units spent on accepted messages.",
	})}
	if registry == nil {
		return m, nil
	}
	fenced := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relayd_ledger_fenced",
		Help: "1 while leases of an earlier boot wait for the control plane.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.fenced {
			return 1
		}
		return 0
	})
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relayd_ledger_waiting",
		Help: "Sessions that wait for units.",
	}, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(l.waiting)
	})
	for _, c := range []prometheus.Collector{m.spent, fenced, waiting} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
