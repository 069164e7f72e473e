package httpapi

import "github.com/prometheus/client_golang/prometheus"

// metrics are the API's. Labels are operation ids and status classes, both few.
type metrics struct {
	requests         *prometheus.CounterVec
	seconds          *prometheus.HistogramVec
	panics           prometheus.Counter
	policyRejections prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_server_requests_total",
			Help: "Requests by operation id (none = no such path) and HTTP status.",
		}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "relay_server_request_seconds",
			Help:    "How long requests took, by operation id; long polls include their wait.",
			Buckets: []float64{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30},
		}, []string{"operation"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_server_panics_total", Help: "Requests that ended in a panic, which is always a mistake of ours.",
		}),
		policyRejections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_server_policy_rejections_total", Help: "Policy documents that edges reported as not understood, each revision once.",
		}),
	}
	registry.MustRegister(m.requests, m.seconds, m.panics, m.policyRejections)
	return m
}
