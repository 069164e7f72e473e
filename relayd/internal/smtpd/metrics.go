package smtpd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's figures. No label holds anything that a client can
// choose.
type metrics struct {
	connections prometheus.Gauge
	accepted    prometheus.Counter
	bytes       prometheus.Counter
	refused     *prometheus.CounterVec // by reason
	logins      *prometheus.CounterVec // by outcome
	guessing    *prometheus.CounterVec // by whose tries were used up
	stages      *prometheus.HistogramVec
	undelivered prometheus.Counter
	unreported  prometheus.Counter
	unlogged    prometheus.Counter
	unscanned   prometheus.Counter
	// What stages has for each stage.
	receive, scan, quota, store prometheus.Observer
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "relayd_smtp_" + name, Help: help})
	}
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "relayd_smtp_connections", Help: "Connections that are open.",
		}),
		accepted: counter("accepted_total", "Messages answered 250."),
		bytes:    counter("accepted_bytes_total", "Bytes of messages answered 250."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_smtp_refused_total", Help: "Refusals and deferrals, by reason of the registry.",
		}, []string{"reason"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_smtp_logins_total", Help: "AUTH attempts: right, wrong, unchecked or turned-away.",
		}, []string{"outcome"}),
		guessing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_smtp_guessing_total", Help: "Minutes in which an address or a user had used up its wrong passwords: somebody is guessing.",
		}, []string{"of"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "relayd_smtp_stage_seconds", Help: "Time that a message spent in a stage: receive, scan, quota or store.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"stage"}),
		undelivered: counter("replies_undelivered_total", "Messages stored whose 250 did not reach the client: it may send them again."),
		unreported:  counter("refusals_unreported_total", "Refusals that were not reported to the control plane, because there were too many."),
		unlogged:    counter("refusals_unlogged_total", "Refusals without a line in the mail log, because there were too many."),
		unscanned:   counter("unscanned_total", "Messages accepted without a scanner because the platform allows it."),
	}
	m.receive, m.scan = m.stages.WithLabelValues("receive"), m.stages.WithLabelValues("scan")
	m.quota, m.store = m.stages.WithLabelValues("quota"), m.stages.WithLabelValues("store")
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.connections, m.accepted, m.bytes, m.refused, m.logins, m.guessing, m.stages, m.undelivered, m.unreported, m.unlogged,
		m.unscanned,
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// over observes how long the message was in a stage, and begins the next one.
func (in *intake) over(stage prometheus.Observer) {
	now := time.Now()
	stage.Observe(now.Sub(in.began).Seconds())
	in.began = now
}
