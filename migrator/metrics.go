package migrator

import "github.com/prometheus/client_golang/prometheus"

// Why a copy met trouble: the values of the label reason of
// migproxy_copy_errors_total.
const (
	errorSource      = "source"      // the source could not be asked, or broke off
	errorTarget      = "target"      // the target could not be asked, or broke off
	errorPassword    = "password"    // a server no longer takes the password kept
	errorProvision   = "provision"   // the account could not be created
	errorConflict    = "conflict"    // the target has an account of this name
	errorRefused     = "refused"     // the target refused a message
	errorQuota       = "quota"       // the target has no room
	errorUndelivered = "undelivered" // the source lists a message and does not give it
	errorCompare     = "compare"     // the comparison found a difference
	errorName        = "name"        // the mailbox seems to be another account's
	errorKeep        = "keep"        // the target did not keep a date, a flag or a keyword
	errorInternal    = "internal"    // the store, or a mistake of our own
)

// Why a flip was put off: the values of the label reason of
// migproxy_flips_put_off_total.
const (
	putOffSession  = "session"  // a session on the source was never silent
	putOffTime     = "time"     // the last pass took too long
	putOffArrivals = "arrivals" // mail arrived on the source meanwhile
	putOffUnequal  = "unequal"  // the two sides were not the same
)

type metrics struct {
	messages, bytes prometheus.Counter
	errors, putOff  *prometheus.CounterVec
	inWork          prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		messages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "migproxy_messages_copied_total", Help: "Messages that the target acknowledged."}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "migproxy_bytes_copied_total", Help: "Octets of messages that the target acknowledged."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "migproxy_copy_errors_total", Help: "Troubles of the copy, by reason."}, []string{"reason"}),
		putOff: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "migproxy_flips_put_off_total", Help: "Flips of accounts parked on the source that were put off or taken back, by reason."}, []string{"reason"}),
		inWork: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "migproxy_accounts_in_work", Help: "Accounts that a worker is moving now."}),
	}
	for _, reason := range []string{errorSource, errorTarget, errorPassword, errorProvision, errorConflict,
		errorRefused, errorQuota, errorUndelivered, errorCompare, errorName, errorKeep, errorInternal} {
		m.errors.WithLabelValues(reason)
	}
	for _, reason := range []string{putOffSession, putOffTime, putOffArrivals, putOffUnequal} {
		m.putOff.WithLabelValues(reason)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.messages, m.bytes, m.errors, m.putOff, m.inWork} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
