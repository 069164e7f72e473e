package deliver

import (
	"cmp"
	"errors"
	"strings"

	"activerelay/relayd/internal/queue"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what attempts come to. The counters of every message are looked
// up once, in advance.
type metrics struct {
	delivered map[string]prometheus.Counter // by the last word of the channel
	reused    prometheus.Counter

	results     *prometheus.CounterVec // class: delivered, temporary, permanent; tls: "", none, encrypted, verified, dane, sts
	connections *prometheus.CounterVec // event: opened, reused, failed, unusable, tls-fallback
	uncertain   prometheus.Counter
	tlsRefusals *prometheus.CounterVec // channel: encrypted, verified, dane, sts
	stsTesting  prometheus.Counter
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
		tlsRefusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relayd_deliver_tls_refusals_total",
			Help: "Connections given up because their TLS was less than demanded, by what the channel had to be.",
		}, []string{"channel"}),
		stsTesting: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relayd_deliver_sts_testing_failures_total",
			Help: "Connections to servers that would fail an MTA-STS policy that is in testing mode.",
		}),
	}
	m.delivered = make(map[string]prometheus.Counter)
	for _, channel := range []string{channelNone, channelEncrypted, channelVerified, channelDANE, channelSTS} {
		m.delivered[channel] = m.results.WithLabelValues(queue.Delivered.String(), channel)
	}
	m.reused = m.connections.WithLabelValues("reused")
	if registry == nil {
		return m, nil
	}
	return m, errors.Join(registry.Register(m.results), registry.Register(m.connections), registry.Register(m.uncertain),
		registry.Register(m.tlsRefusals), registry.Register(m.stsTesting))
}

func (m *metrics) result(r *queue.Result) {
	// "TLS 1.3 dane": the version would only multiply the series.
	channel := r.TLS[strings.LastIndexByte(r.TLS, ' ')+1:]
	if counter := m.delivered[channel]; counter != nil && r.Class == queue.Delivered {
		counter.Inc()
		return
	}
	m.results.WithLabelValues(r.Class.String(), channel).Inc()
}

func (m *metrics) tlsRefused(d demand) {
	m.tlsRefusals.WithLabelValues(cmp.Or(d.channel, channelEncrypted)).Inc()
}

func (m *metrics) connection(event string) { m.connections.WithLabelValues(event).Inc() }
