package admin

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"migproxy/store"
)

var (
	// The label state has the values of store.States.
	accountsDesc = prometheus.NewDesc("migproxy_accounts", "Accounts by state.", []string{"state"}, nil)
	activeDesc   = prometheus.NewDesc("migproxy_migration_active",
		"1 while new accounts may begin in the domain, 0 while stopped.", []string{"domain"}, nil)
	stoppedDesc = prometheus.NewDesc("migproxy_migration_stopped_by_itself",
		"1 where the migration of the domain has stopped because too many accounts failed, until it is started, or stopped, by command.", []string{"domain"}, nil)
)

// accountCollector asks the store at each scrape, so that its figures are
// right after a restart and with several processes too.
type accountCollector struct{ server *Server }

var _ prometheus.Collector = (*accountCollector)(nil)

// Describe implements prometheus.Collector.
func (*accountCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- accountsDesc
	ch <- activeDesc
	ch <- stoppedDesc
	ch <- activeSinceDesc
	ch <- lastBegunDesc
	ch <- lastProgressDesc
}

// Collect implements prometheus.Collector.
func (c *accountCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	stats, err := c.server.Store.Statistics(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(accountsDesc, err)
	} else {
		for _, state := range store.States() {
			ch <- prometheus.MustNewConstMetric(accountsDesc, prometheus.GaugeValue,
				float64(stats.Accounts[state]), string(state))
		}
	}
	domains, err := c.server.domains(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(activeDesc, err)
		return
	}
	for _, d := range domains {
		ch <- prometheus.MustNewConstMetric(activeDesc, prometheus.GaugeValue, oneIf(d.Active), d.Name)
		ch <- prometheus.MustNewConstMetric(stoppedDesc, prometheus.GaugeValue, oneIf(d.StoppedBecause != ""), d.Name)
		collectWatch(ch, d)
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
