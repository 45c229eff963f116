package admin_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// seconds is the value of a metric with this name and domain; ok is false where
// there is none.
func seconds(t *testing.T, metrics, name, domain string) (value time.Time, ok bool) {
	t.Helper()
	_, rest, ok := strings.Cut(metrics, "\n"+name+`{domain="`+domain+`"} `)
	if !ok {
		return value, false
	}
	text, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(int64(n * 1000)), true
}

func TestWatchMetrics(t *testing.T) {
	w := start(t)
	const since, begun, progress = "migproxy_migration_active_since_timestamp_seconds",
		"migproxy_migration_last_begun_timestamp_seconds", "migproxy_migration_last_progress_timestamp_seconds"
	w.begin(t, "anna")
	if _, err := w.client.SetActive(t.Context(), "example.org", false); err != nil {
		t.Fatal(err)
	}
	code, text := get(t, "http://"+w.server.MetricsAddress()+"/metrics")
	if code != http.StatusOK {
		t.Fatal(code, text)
	}
	recent := func(name, domain string) {
		t.Helper()
		if at, ok := seconds(t, text, name, domain); !ok || time.Since(at).Abs() > time.Minute {
			t.Errorf("%s of %s is %s, %v", name, domain, at, ok)
		}
	}
	recent(since, "example.com")
	recent(begun, "example.com")
	recent(progress, "example.com")
	if at, ok := seconds(t, text, begun, "example.org"); !ok || at.Unix() != 0 {
		t.Errorf("%s, %v", at, ok)
	}
	for _, name := range []string{since, progress} {
		if _, ok := seconds(t, text, name, "example.org"); ok {
			t.Errorf("%s of a stopped domain without accounts", name)
		}
	}
	s, err := w.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Domains[0]; d.ToMove != 1 || d.ActiveSince.IsZero() || d.LastBegun.IsZero() || d.LastProgress.IsZero() || d.LeftActive || d.StandsStill {
		t.Errorf("%+v", d)
	}
	if d := s.Domains[1]; d.ToMove != 0 || !d.ActiveSince.IsZero() || !d.LastBegun.IsZero() || !d.LastProgress.IsZero() {
		t.Errorf("%+v", d)
	}
}
