package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"migproxy/store"
)

// WatchStatus says whether a domain's migration goes on as it should.
type WatchStatus struct {
	// ActiveSince is when the migration was last started; left out where it is
	// not active.
	ActiveSince time.Time `json:"active_since,omitzero"`
	// LastBegun is when an account last began to move.
	LastBegun time.Time `json:"last_begun,omitzero"`
	// LeftActive: it is active, and no account has begun for so long that it
	// looks forgotten.
	LeftActive bool `json:"left_active"`
	// ToMove counts the accounts that have begun and have not flipped.
	ToMove int64 `json:"to_move"`
	// LastProgress is when one of these made progress, or the first of them
	// began.
	LastProgress time.Time `json:"last_progress,omitzero"`
	// StandsStill: accounts are to be moved, and none has made progress for long.
	StandsStill bool `json:"stands_still"`
}

func viewWatch(w store.Watch, now time.Time) WatchStatus {
	_, left := w.LeftActive(now)
	_, still := w.StandsStill(now)
	return WatchStatus{ActiveSince: w.ActiveSince, LastBegun: w.LastBegun, LeftActive: left,
		ToMove: w.ToMove, LastProgress: w.LastProgress, StandsStill: still}
}

var (
	activeSinceDesc = prometheus.NewDesc("migproxy_migration_active_since_timestamp_seconds",
		"When the migration of the domain was last started; only where it is active.", []string{"domain"}, nil)
	lastBegunDesc = prometheus.NewDesc("migproxy_migration_last_begun_timestamp_seconds",
		"When an account of the domain last began to move; 0 where none has.", []string{"domain"}, nil)
	lastProgressDesc = prometheus.NewDesc("migproxy_migration_last_progress_timestamp_seconds",
		"When an account of the domain that is to be moved made progress, or the first of them began; only where there are any.", []string{"domain"}, nil)
)

// collectWatch sends the metrics of one domain.
func collectWatch(ch chan<- prometheus.Metric, d DomainStatus) {
	gauge := func(desc *prometheus.Desc, at time.Time) {
		value := 0.0
		if !at.IsZero() {
			value = float64(at.UnixMilli()) / 1000
		}
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, d.Name)
	}
	if !d.ActiveSince.IsZero() {
		gauge(activeSinceDesc, d.ActiveSince)
	}
	gauge(lastBegunDesc, d.LastBegun)
	if d.ToMove > 0 {
		gauge(lastProgressDesc, d.LastProgress)
	}
}
