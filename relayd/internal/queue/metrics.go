package queue

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the queue's own figures.
type metrics struct {
	// outcomes by state: delivered, bounced, expired, cancelled, deferred,
	// held, notified.
	outcomes *prometheus.CounterVec
	delay    prometheus.Histogram
}

func newMetrics(registry prometheus.Registerer, q *Queue) (*metrics, error) {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_queue_outcomes_total",
			Help: "What became of recipients; notified counts notifications, held counts messages set aside.",
		}, []string{"state"}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "relayd_queue_delivery_delay_seconds",
			Help:    "Time from acceptance to delivery, one for each recipient.",
			Buckets: []float64{0.05, 0.2, 1, 5, 30, 120, 600, 3600, 14400, 86400, 432000},
		}),
	}
	if registry == nil {
		return m, nil
	}
	gauge := func(name, help string, of func(Stats) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(of(q.Stats())) })
	}
	return m, errors.Join(
		registry.Register(m.outcomes), registry.Register(m.delay),
		registry.Register(gauge("relayd_queue_messages", "Messages in the queue.",
			func(s Stats) int { return s.Messages })),
		registry.Register(gauge("relayd_queue_waiting", "Parts of messages that are due and wait for a slot.",
			func(s Stats) int { return s.Waiting })),
		registry.Register(gauge("relayd_queue_attempts", "Delivery attempts under way.",
			func(s Stats) int { return s.Attempts })),
		registry.Register(gauge("relayd_queue_held", "Messages in the queue that an operator holds.",
			func(s Stats) int { return s.Held })),
	)
}

func (m *metrics) outcome(state string) { m.outcomes.WithLabelValues(state).Inc() }
