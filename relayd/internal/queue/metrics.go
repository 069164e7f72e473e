package queue

import (
	"errors"

	"activerelay/api"
	"activerelay/relayd/internal/spool"

	"github.com/prometheus/client_golang/prometheus"
)

// counted is an outcome that is counted or logged.
type counted uint8

const (
	countDelivered counted = iota
	countBounced
	countExpired
	countCancelled
	countDeferred
	countHeld
	countNotified
	countUnnotified
	countOnHold   // logged only, from here on
	countReleased // logged only
)

func countedAs(state spool.State) counted {
	switch state {
	case spool.Bounced:
		return countBounced
	case spool.Expired:
		return countExpired
	case spool.Cancelled:
		return countCancelled
	}
	return countDelivered
}

// metrics are the queue's own figures.
type metrics struct {
	outcomes [countUnnotified + 1]prometheus.Counter
	delays   *prometheus.CounterVec
	delay    prometheus.Histogram
}

func newMetrics(registry prometheus.Registerer, q *Queue) (*metrics, error) {
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "relayd_queue_outcomes_total",
		Help: "What became of recipients; notified counts notifications, unnotified those that a domain had too many of, held counts messages set aside.",
	}, []string{"state"})
	m := &metrics{
		delays: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_queue_deferred_total", Help: "Deferrals of recipients, by why they wait.",
		}, []string{"reason"}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "relayd_queue_delivery_delay_seconds",
			Help:    "Time from acceptance to delivery, one for each recipient.",
			Buckets: []float64{0.05, 0.2, 1, 5, 30, 120, 600, 3600, 14400, 86400, 432000},
		}),
	}
	for i, state := range []string{"delivered", "bounced", "expired", "cancelled", "deferred", "held", "notified", "unnotified"} {
		m.outcomes[i] = outcomes.WithLabelValues(state)
	}
	if registry == nil {
		return m, nil
	}
	gauge := func(name, help string, of func(Stats) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(of(q.Stats())) })
	}
	return m, errors.Join(
		registry.Register(outcomes), registry.Register(m.delays), registry.Register(m.delay),
		registry.Register(gauge("relayd_queue_messages", "Messages in the queue.",
			func(s Stats) int { return s.Messages })),
		registry.Register(gauge("relayd_queue_waiting", "Parts of messages that are due and wait for a slot.",
			func(s Stats) int { return s.Waiting })),
		registry.Register(gauge("relayd_queue_attempts", "Delivery attempts under way.",
			func(s Stats) int { return s.Attempts })),
		registry.Register(gauge("relayd_queue_held", "Messages in the queue that an operator holds.",
			func(s Stats) int { return s.Held })),
		registry.Register(gauge("relayd_queue_dead_destinations", "Destinations that are only probed, since no connection to them succeeded.",
			func(s Stats) int { return s.Dead })),
	)
}

func (m *metrics) count(c counted) {
	if int(c) < len(m.outcomes) {
		m.outcomes[c].Inc()
	}
}

func (m *metrics) deferred(why api.DelayReason) { m.delays.WithLabelValues(string(why)).Inc() }
