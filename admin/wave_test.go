package admin_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/store"
)

func (w *world) wave(t *testing.T, domain string) (all []string) {
	t.Helper()
	err := w.client.Wave(t.Context(), domain, func(p admin.WavePattern) error {
		text := p.Domain + " " + p.Pattern
		if p.Excluded {
			text += " no"
		}
		all = append(all, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func patterns(domain string, texts ...string) (all []admin.WavePattern) {
	for _, p := range texts {
		all = append(all, admin.WavePattern{Domain: domain, Pattern: p})
	}
	return all
}

func TestWave(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	// One request for two domains, in any case, with a pattern twice.
	q := admin.WaveRequest{Patterns: append(patterns("Example.org", "*"), patterns("", "ANNA@example.com", "b*@EXAMPLE.com", "anna@example.com")...)}
	for _, want := range [][]admin.WaveChange{
		{{Domain: "example.com", Changed: 2, Active: true}, {Domain: "example.org", Changed: 1, Active: true}},
		{{Domain: "example.com", Unchanged: 2, Active: true}, {Domain: "example.org", Unchanged: 1, Active: true}},
	} {
		if got, err := w.client.AddToWave(ctx, q); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if got := w.wave(t, ""); !slices.Equal(got, []string{"example.com anna@example.com", "example.com b*@example.com", "example.org *"}) {
		t.Errorf("%q", got)
	}
	// Who has begun goes on, and the answer says how many.
	w.begin(t, "anna")
	c, err := w.store.ClaimNext(ctx, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Flip(ctx, store.Active, 1, time.Time{}); err != nil {
		t.Fatal(err)
	}
	w.begin(t, "bert")
	q = admin.WaveRequest{Exclude: true, Patterns: patterns("example.com", "*")}
	if got, err := w.client.AddToWave(ctx, q); err != nil || !slices.Equal(got, []admin.WaveChange{{Domain: "example.com", Changed: 1, Moving: 1, Moved: 1, Active: true}}) {
		t.Errorf("%+v, %v", got, err)
	}
	q = admin.WaveRequest{Patterns: patterns("example.com", "b*@example.com", "nobody@example.com")}
	if got, err := w.client.RemoveFromWave(ctx, q); err != nil || !slices.Equal(got, []admin.WaveChange{{Domain: "example.com", Changed: 1, Unchanged: 1, Moving: 1, Active: true}}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got := w.wave(t, "Example.com"); !slices.Equal(got, []string{"example.com * no", "example.com anna@example.com"}) {
		t.Errorf("%q", got)
	}
	s, err := w.client.Status(ctx)
	if want := (admin.WaveStatus{Included: 1, Excluded: 1, Differs: true}); err != nil || s.Domains[0].Wave != want {
		t.Errorf("%+v, %v", s.Domains[0].Wave, err)
	}
	all, err := w.store.Events(ctx, "", 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range all {
		said = append(said, e.Text)
	}
	if want := []string{"Wave of example.com: added anna@example.com, b*@example.com", "Wave of example.org: added *",
		"Wave of example.com: excluded *", "Wave of example.com: removed b*@example.com"}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
}

// Where one pattern is wrong, nothing is changed.
func TestWaveRefuses(t *testing.T) {
	w := start(t)
	for text, want := range map[string]string{
		"anna@example.net":      `"example.net" is not in the settings`,
		"anna\x00@example.com":  "neither an address nor a pattern",
		"anna:pw@example.com":   "neither an address nor a pattern",
		"*":                     "--domain", // whose?
		"":                      "--domain",
		"anna@example.com@x.de": "neither an address nor a pattern",
	} {
		_, err := w.client.AddToWave(t.Context(), admin.WaveRequest{Patterns: append(patterns("example.com", "a*"), patterns("", text)...)})
		if status(t, err) != http.StatusBadRequest || !strings.HasPrefix(err.Error(), "pattern 2: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := w.client.RemoveFromWave(t.Context(), admin.WaveRequest{Patterns: patterns("example.org", "anna@example.com")})
	if status(t, err) != http.StatusBadRequest || !strings.Contains(err.Error(), "not in the domain example.org") {
		t.Errorf("%v", err)
	}
	if err := w.client.Wave(t.Context(), "example.net", nil); status(t, err) != http.StatusNotFound {
		t.Errorf("%v", err)
	}
	if got := w.wave(t, ""); len(got) != 0 {
		t.Errorf("%q", got)
	}
	long := slices.Repeat(patterns("example.com", "*"), admin.WavePatternsMax+1)
	if _, err := w.client.AddToWave(t.Context(), admin.WaveRequest{Patterns: long}); status(t, err) != http.StatusBadRequest || !strings.Contains(err.Error(), "split the list") {
		t.Errorf("%v", err)
	}
}

func TestReadWavePattern(t *testing.T) {
	one := &config.Config{Domains: []config.Domain{{Name: "example.com"}}}
	two := &config.Config{Domains: []config.Domain{{Name: "example.com"}, {Name: "example.org"}}}
	def := &config.Config{DefaultDomain: "Example.org", Domains: two.Domains}
	for _, c := range []struct {
		cfg                *config.Config
		text, domain, want string // want is empty where it is refused
	}{
		{one, "*", "", "example.com *"}, {two, "*", "", ""}, {def, "*", "", "example.org *"}, {def, "*", "EXAMPLE.com", "example.com *"},
		{two, "Anna@Example.com", "", "example.com anna@example.com"}, {def, "anna@example.com", "", "example.com anna@example.com"},
		{two, "anna@example.com", "example.org", ""}, {def, "a*@example.com", "", "example.com a*@example.com"},
		{def, "anna@*", "", "example.org anna@*"}, {def, "anna", "", ""}, {one, "anna@example.net", "", ""}, {one, "*", "example.net", ""},
	} {
		p, err := admin.ReadWavePattern(c.cfg, c.text, c.domain)
		if got := p.Domain + " " + p.Pattern; (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%q, %q: %s, %v", c.text, c.domain, got, err)
		}
	}
}

// A list is streamed page by page, and a wave of many addresses is changed at once.
func TestLargeWave(t *testing.T) {
	w := start(t)
	var q admin.WaveRequest
	for i := range 2_000 {
		q.Patterns = append(q.Patterns, admin.WavePattern{Domain: "example.com", Pattern: fmt.Sprintf("user%05d@example.com", i)})
	}
	if got, err := w.client.AddToWave(t.Context(), q); err != nil || got[0].Changed != len(q.Patterns) {
		t.Fatalf("%+v, %v", got, err)
	}
	if got := w.wave(t, "example.com"); len(got) != len(q.Patterns) || got[len(got)-1] != "example.com user01999@example.com" {
		t.Errorf("%d patterns", len(got))
	}
	if got, err := w.client.RemoveFromWave(t.Context(), q); err != nil || got[0].Changed != len(q.Patterns) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A domain that has stopped by itself says why, until it is started.
func TestStoppedByItself(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c.MaxFailed = 1
	if err := c.Release(t.Context(), store.Failed, "no", time.Time{}, true); err != nil {
		t.Fatal(err)
	}
	is := func(active bool) {
		t.Helper()
		s, err := w.client.Status(t.Context())
		if d := s.Domains[0]; err != nil || d.Active != active || strings.HasPrefix(d.StoppedBecause, "1 accounts have failed") == active {
			t.Errorf("%+v, %v", d, err)
		}
		value := map[bool]string{true: "0", false: "1"}[active]
		for _, want := range []string{`migproxy_migration_stopped_by_itself{domain="example.com"} ` + value, `migproxy_migration_stopped_by_itself{domain="example.org"} 0`} {
			if _, got := get(t, "http://"+w.server.MetricsAddress()+"/metrics"); !strings.Contains(got, want+"\n") {
				t.Errorf("no %s in\n%s", want, got)
			}
		}
	}
	is(false)
	if _, err := w.client.SetActive(t.Context(), "example.com", true); err != nil {
		t.Fatal(err)
	}
	is(true)
}
