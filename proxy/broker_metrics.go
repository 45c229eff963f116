package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// brokerMetrics are the figures of the Broker. No label names a user.
type brokerMetrics struct {
	// answers has the labels side (source, target), protocol (imap, pop3) and
	// outcome (those of upstream.Outcome that servers give).
	answers *prometheus.CounterVec
	// held has no labels.
	held prometheus.Histogram
}

func newBrokerMetrics(r prometheus.Registerer) (brokerMetrics, error) {
	m := brokerMetrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "migproxy_server_logins_total",
			Help: "Logins that the proxy tried on the servers behind it, by what they answered.",
		}, []string{"side", "protocol", "outcome"}),
		held: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "migproxy_login_held_seconds", Help: "How long logins waited for the end of their account's flip.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 20, 40}}),
	}
	for _, c := range []prometheus.Collector{m.answers, m.held} {
		if err := r.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}
