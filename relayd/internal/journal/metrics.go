package journal

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the journal's own figures; the zero registerer keeps none.
type metrics struct {
	registry prometheus.Registerer
	commits  *prometheus.CounterVec
	seconds  prometheus.Histogram
	syncs    prometheus.Counter
	damage   *prometheus.CounterVec
	all      []prometheus.Collector
}

func newMetrics(registry prometheus.Registerer, j *Journal) (*metrics, error) {
	m := &metrics{
		registry: registry,
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_journal_commits_total",
			Help: "Batches committed; mode is synced or lazy.",
		}, []string{"mode"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "relayd_journal_commit_seconds",
			Help:    "Time from a synced commit's call to its batch being on the disk.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 3, 10),
		}),
	}
	m.syncs = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "relayd_journal_syncs_total",
		Help: "Syncs of the log; synced batches share them.",
	})
	m.damage = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "relayd_journal_damage_total",
		Help: "Damaged places found in the journal's files (log or table) that were cut out.",
	}, []string{"in"})
	m.damage.WithLabelValues("log")
	m.damage.WithLabelValues("table")
	failed := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relayd_journal_failed",
		Help: "1 after a failed sync: nothing is accepted until restart.",
	}, func() float64 {
		if j.Err() != nil {
			return 1
		}
		return 0
	})
	disk := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "relayd_journal_disk_bytes",
		Help: "Space that the journal's files take.",
	}, func() float64 { return float64(j.diskBytes()) })
	m.all = []prometheus.Collector{m.commits, m.seconds, m.syncs, m.damage, failed, disk}
	if registry == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := registry.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, err
		}
	}
	return m, nil
}

func (j *Journal) diskBytes() uint64 {
	if !j.opened.Load() || j.gate.enter() != nil {
		return 0
	}
	defer j.gate.leave()
	return j.db.Metrics().DiskSpaceUsage()
}

// committed counts one batch.
func (m *metrics) committed(sync bool, took time.Duration) {
	if !sync {
		m.commits.WithLabelValues("lazy").Inc()
		return
	}
	m.commits.WithLabelValues("synced").Inc()
	m.seconds.Observe(took.Seconds())
}

// unregister lets the same registry serve the journal that is opened next.
func (m *metrics) unregister() {
	if m.registry == nil {
		return
	}
	for _, c := range m.all {
		m.registry.Unregister(c)
	}
}
