package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// brokerMetrics are the figures of the Broker. No label names a user.
type brokerMetrics struct {
	// answers has the labels side (source, target), protocol (imap, pop3) and
	// outcome (those of upstream.Outcome that servers give).
	answers *prometheus.CounterVec
}

func newBrokerMetrics(r prometheus.Registerer) (brokerMetrics, error) {
	m := brokerMetrics{answers: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "migproxy_server_logins_total",
		Help: "Logins that the proxy tried on the servers behind it, by what they answered.",
	}, []string{"side", "protocol", "outcome"})}
	return m, r.Register(m.answers)
}
