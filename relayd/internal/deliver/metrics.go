package deliver

import (
	"errors"

	"activerelay/relayd/internal/queue"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what attempts come to.
type metrics struct {
	results     *prometheus.CounterVec // class: delivered, temporary, permanent; tls: yes, no
	connections *prometheus.CounterVec // event: opened, reused, failed, unusable, tls-fallback
	uncertain   prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_deliver_results_total",
			Help: "Outcomes of delivery attempts, one for each recipient.",
		}, []string{"class", "tls"}),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_deliver_connections_total",
			Help: "Connections to other mail servers, by what became of them.",
		}, []string{"event"}),
		uncertain: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relayd_deliver_uncertain_total",
			Help: "Messages whose reply to the final dot was lost: each may arrive twice.",
		}),
	}
	if registry == nil {
		return m, nil
	}
	return m, errors.Join(registry.Register(m.results), registry.Register(m.connections), registry.Register(m.uncertain))
}

func (m *metrics) result(r queue.Result) {
	tls := "no"
	if r.TLS != "" {
		tls = "yes"
	}
	m.results.WithLabelValues(r.Class.String(), tls).Inc()
}

func (m *metrics) connection(event string) { m.connections.WithLabelValues(event).Inc() }
