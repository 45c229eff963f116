package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"migproxy/config"
	"migproxy/upstream"
)

// metrics are what the front counts. No label has a user in it.
type metrics struct {
	logins  *prometheus.CounterVec   // protocol; outcome: upstream.Outcome.String
	active  *prometheus.GaugeVec     // protocol
	bytes   *prometheus.CounterVec   // protocol; direction: to_server, to_client
	seconds *prometheus.HistogramVec // protocol
	refused *prometheus.CounterVec   // reason: per_address, tls
}

// Values of the labels direction and reason.
const (
	toServer          = "to_server"
	toClient          = "to_client"
	refusedPerAddress = "per_address"
	refusedTLS        = "tls"
)

// newMetrics registers the metrics. The error is the registry's: they can be
// registered only once.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "migproxy_logins_total", Help: "Logins by what became of them."}, []string{"protocol", "outcome"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "migproxy_sessions", Help: "Sessions that are logged in now."}, []string{"protocol"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "migproxy_relayed_bytes_total", Help: "Bytes relayed after login."}, []string{"protocol", "direction"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "migproxy_login_seconds", Help: "Time until a login was decided, without the delays after wrong passwords and the wait for the end of a flip.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"protocol"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "migproxy_connections_refused_total", Help: "Connections that ended before a dialogue could begin."}, []string{"reason"}),
	}
	for _, c := range []prometheus.Collector{m.logins, m.active, m.bytes, m.seconds, m.refused} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	// Series that are there from the start show a first event as an increase.
	for _, p := range []config.Protocol{config.IMAP, config.POP3} {
		for o := upstream.Accepted; o <= upstream.TLSRequired; o++ {
			m.logins.WithLabelValues(string(p), o.String())
		}
		m.active.WithLabelValues(string(p))
		m.bytes.WithLabelValues(string(p), toServer)
		m.bytes.WithLabelValues(string(p), toClient)
		m.seconds.WithLabelValues(string(p))
	}
	m.refused.WithLabelValues(refusedPerAddress)
	m.refused.WithLabelValues(refusedTLS)
	return m, nil
}
