package scan

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures of one scanner.
type metrics struct {
	// seconds by outcome: clean, malware, too-big, failed.
	seconds *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer, d *Clamd) (*metrics, error) {
	labels := prometheus.Labels{"scanner": d.Name()}
	m := &metrics{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:        "relayd_scan_seconds",
		Help:        "Time of one content scan, by its outcome.",
		ConstLabels: labels,
		Buckets:     []float64{.001, .005, .02, .1, .5, 2, 10, 60},
	}, []string{"outcome"})}
	if registry == nil {
		return m, nil
	}
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "relayd_scanner_up",
		Help:        "1 while the scanner answers, 0 while it is down and mail is deferred.",
		ConstLabels: labels,
	}, func() float64 {
		if d.Health().State == Down {
			return 0
		}
		return 1
	})
	return m, errors.Join(registry.Register(m.seconds), registry.Register(up))
}

func (m *metrics) scanned(v Verdict, err error, took time.Duration) {
	outcome := v.Outcome.String()
	switch {
	case errors.Is(err, ErrTooBig):
		outcome = "too-big"
	case err != nil:
		outcome = "failed"
	}
	m.seconds.WithLabelValues(outcome).Observe(took.Seconds())
}
