package store

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/config"
)

// active is a store in which the migration of example.com is active.
func active(t testing.TB) *Store {
	t.Helper()
	s := openDir(t, t.TempDir())
	_, err := s.SeedActive(t.Context(), "example.com", true)
	ok(t, err)
	return s
}

func (s *Store) inWave(t testing.TB, local string) bool {
	t.Helper()
	in, err := s.InWave(t.Context(), "example.com", local+"@example.com")
	ok(t, err)
	return in
}

// eventTexts lists what the migration's log says of no single account.
func eventTexts(t testing.TB, s *Store) (texts []string) {
	t.Helper()
	events, err := s.Events(t.Context(), "", 0, 1000)
	ok(t, err)
	for _, e := range events {
		if e.Address == "" {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// The settings' wave counts at the first start only.
func TestWaveIsSeededOnce(t *testing.T) {
	s := active(t)
	ctx := t.Context()
	differs := func(when string, want bool, w config.Wave) {
		t.Helper()
		size, err := s.WaveSize(ctx, "example.com", w)
		if err != nil || size.Differs != want {
			t.Errorf("%s: %+v, %v", when, size, err)
		}
	}
	settings := config.Wave{Include: []string{"b*@example.com", "anna@example.com"}, Exclude: []string{"bert@example.com"}}
	if s.inWave(t, "anna") {
		t.Error("in the wave before there is one")
	}
	ok(t, s.SeedWave(ctx, "example.com", settings))
	differs("at the first start", false, settings)
	if !s.inWave(t, "anna") || !s.inWave(t, "bea") || s.inWave(t, "bert") || s.inWave(t, "carl") {
		t.Error("not the settings' wave")
	}
	// Not even a wave that was emptied since is seeded again.
	_, err := s.RemoveFromWave(ctx, "example.com", []string{"anna@example.com", "b*@example.com", "bert@example.com"})
	ok(t, err)
	ok(t, s.SeedWave(ctx, "example.com", settings))
	if s.inWave(t, "anna") || s.inWave(t, "bea") {
		t.Error("seeded twice")
	}
	differs("empty", true, settings)
	differs("both empty", false, config.Wave{})
	_, err = s.AddToWave(ctx, "example.com", []string{"anna@example.com", "c*"}, false)
	ok(t, err)
	_, err = s.AddToWave(ctx, "example.com", []string{"bert@example.com"}, true)
	ok(t, err)
	differs("as many, and others", true, settings)
	differs("on the other side", true, config.Wave{Include: []string{"anna@example.com", "bert@example.com"}, Exclude: []string{"c*"}})
	differs("the same, in another order", false, config.Wave{Include: []string{"c*", "anna@example.com"}, Exclude: settings.Exclude})
}

func TestInWave(t *testing.T) {
	for _, c := range []struct{ include, exclude, in, out string }{
		{"", "", "", "anna bert"},
		{"*", "", "anna bert", ""},
		{"anna@example.com", "", "anna", "hanna annab bert"},
		{"a*@example.com", "", "anna arno", "hanna bert"},
		{"a*@* bert@example.com", "", "anna bert", "carl"},
		{"*", "anna@example.com", "bert", "anna"},
		{"* anna@example.com", "a*@example.com", "bert", "anna arno"}, // to exclude wins, whatever is more exact
		{"b*", "*t@example.com", "bea", "bert anna"},
	} {
		t.Run(c.include+" without "+c.exclude, func(t *testing.T) {
			s := active(t)
			_, err := s.AddToWave(t.Context(), "example.com", strings.Fields(c.include), false)
			ok(t, err)
			_, err = s.AddToWave(t.Context(), "example.com", strings.Fields(c.exclude), true)
			ok(t, err)
			_, err = s.AddToWave(t.Context(), "example.org", []string{"*"}, false) // another domain's
			ok(t, err)
			for want, names := range map[bool]string{true: c.in, false: c.out} {
				for _, name := range strings.Fields(names) {
					if s.inWave(t, name) != want {
						t.Errorf("%s: not %v", name, want)
					}
				}
			}
		})
	}
}

// Whatever many addresses a wave has, a login reads those rows that it needs.
func TestInWaveUsesIndices(t *testing.T) {
	s := active(t)
	rows, err := s.r.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+selectInWave, "example.com", "anna@example.com")
	ok(t, err)
	defer rows.Close()
	plan := ""
	for rows.Next() {
		var id, parent, x int
		var detail string
		ok(t, rows.Scan(&id, &parent, &x, &detail))
		plan += detail + "\n"
	}
	ok(t, rows.Err())
	if !strings.Contains(plan, "(domain=? AND pattern=?)") || !strings.Contains(plan, "wave_patterns_wildcard (domain=?)") || strings.Contains(plan, "SCAN wave_patterns") {
		t.Error(plan)
	}
}

func TestChangeTheWave(t *testing.T) {
	s := active(t)
	ctx := t.Context()
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("user%04d@example.com", i))
	}
	for _, c := range []struct {
		what    string
		change  func() (int, error)
		changed int
		event   string // empty: none
	}{
		{"add", func() (int, error) {
			return s.AddToWave(ctx, "example.com", []string{"anna@example.com", "b*"}, false)
		}, 2, "Wave of example.com: added anna@example.com, b*"},
		{"the same again", func() (int, error) {
			return s.AddToWave(ctx, "example.com", []string{"anna@example.com", "b*"}, false)
		}, 0, ""},
		{"to the other side", func() (int, error) {
			return s.AddToWave(ctx, "example.com", []string{"anna@example.com", "carl@example.com"}, true)
		}, 2, "Wave of example.com: excluded anna@example.com, carl@example.com"},
		{"and again", func() (int, error) {
			return s.AddToWave(ctx, "example.com", []string{"carl@example.com"}, true)
		}, 0, ""},
		{"many", func() (int, error) { return s.AddToWave(ctx, "example.com", many, false) }, 1000,
			"Wave of example.com: added user0000@example.com, user0001@example.com, user0002@example.com, user0003@example.com, user0004@example.com and 995 more"},
		{"remove", func() (int, error) {
			return s.RemoveFromWave(ctx, "example.com", append([]string{"b*", "carl@example.com", "nobody@example.com"}, many...))
		}, 1002, "Wave of example.com: removed b*, carl@example.com, user0000@example.com, user0001@example.com, user0002@example.com and 997 more"},
		{"remove again", func() (int, error) { return s.RemoveFromWave(ctx, "example.com", many) }, 0, ""},
	} {
		before := eventTexts(t, s)
		n, err := c.change()
		ok(t, err)
		said := eventTexts(t, s)[len(before):]
		if n != c.changed || c.event == "" && len(said) > 0 || c.event != "" && !slices.Equal(said, []string{c.event}) {
			t.Errorf("%s: changed %d, said %q", c.what, n, said)
		}
	}
	left, err := s.WavePatterns(ctx, "", WavePattern{}, 10)
	if err != nil || !slices.Equal(left, []WavePattern{{Domain: "example.com", Pattern: "anna@example.com", Excluded: true}}) {
		t.Errorf("%+v, %v", left, err)
	}
}

// The list is read page by page, and says where accounts stand.
func TestWavePatterns(t *testing.T) {
	s := active(t)
	ctx := t.Context()
	begin(t, s, "anna", "x")
	for _, domain := range []string{"example.org", "example.com"} {
		_, err := s.AddToWave(ctx, domain, []string{"*", "anna@" + domain, "bert@" + domain}, false)
		ok(t, err)
	}
	for domain, want := range map[string]string{
		"":            "com* comanna=provisioning combert org* organna orgbert",
		"example.org": "org* organna orgbert",
	} {
		var have []string
		var last WavePattern
		for {
			page, err := s.WavePatterns(ctx, domain, last, 1)
			ok(t, err)
			if len(page) == 0 {
				break
			}
			last = page[0]
			local, _, _ := strings.Cut(last.Pattern, "@")
			text := strings.TrimPrefix(last.Domain, "example.") + local
			if last.State != "" {
				text += "=" + string(last.State)
			}
			have = append(have, text)
		}
		if got := strings.Join(have, " "); got != want {
			t.Errorf("%q: %s", domain, got)
		}
	}
}

func TestBegun(t *testing.T) {
	s := active(t)
	ctx := t.Context()
	for _, name := range []string{"anna", "arno", "bert", "bea"} {
		begin(t, s, name, "x")
	}
	ok(t, claim(t, s).Flip(ctx, Active, 1, time.Time{}))                        // anna
	ok(t, claim(t, s).Release(ctx, Waiting, "for the test", time.Time{}, true)) // arno
	_, err := s.Note(ctx, identity("alma"), AtSource)
	ok(t, err)
	_, err = s.Exclude(ctx, identity("abel"))
	ok(t, err)
	for patterns, want := range map[string][2]int64{
		"*":                                 {3, 1},
		"a*@example.com":                    {1, 1},
		"a* anna@example.com":               {1, 1},
		"bert@example.com alma@example.com": {1, 0},
		"nobody@example.com":                {0, 0},
	} {
		moving, moved, err := s.Begun(ctx, "example.com", strings.Fields(patterns))
		if err != nil || moving != want[0] || moved != want[1] {
			t.Errorf("%s: %d, %d, %v", patterns, moving, moved, err)
		}
	}
}

// failure has the account that is due for longest put down, in a domain that at
// most max accounts may fail in.
func failure(t testing.TB, s *Store, to State, max int) *Claim {
	t.Helper()
	c := claim(t, s)
	c.MaxFailed = max
	ok(t, c.Release(t.Context(), to, "the target said \x00no", time.Time{}, true))
	return c
}

func stoppedBecause(t testing.TB, s *Store) string {
	t.Helper()
	d, err := s.DomainState(t.Context(), "example.com")
	ok(t, err)
	if d.Active == (d.StoppedBecause != "") {
		t.Errorf("%+v", d)
	}
	return d.StoppedBecause
}

func TestWaveStopsWhenTooManyFail(t *testing.T) {
	s := active(t)
	ctx := t.Context()
	for _, name := range []string{"anna", "bert", "carl", "dora", "emil", "fred", "gerd"} {
		begin(t, s, name, "x")
	}
	failure(t, s, Failed, 2)  // anna
	failure(t, s, Waiting, 2) // bert waits for somebody, and has not failed
	if why := stoppedBecause(t, s); why != "" {
		t.Fatal(why)
	}
	c := failure(t, s, Failed, 2) // carl
	const want = "2 accounts have failed since it was started (domains[].wave.max_failed: 2), the last is carl@example.com: the target said \uFFFDno"
	if why := stoppedBecause(t, s); why != want || c.Stopped != want {
		t.Errorf("%q, %q", why, c.Stopped)
	}
	if w := watch(t, s); !w.ActiveSince.IsZero() {
		t.Error("active since", w.ActiveSince)
	}
	loud := []string{"THE MIGRATION OF example.com HAS STOPPED BY ITSELF: " + want + ". When the cause is gone: `migproxy start --domain example.com`"}
	// What has begun goes on, and more failures say nothing more.
	if c := failure(t, s, Failed, 2); c.Stopped != "" { // dora
		t.Error(c.Stopped)
	}
	if texts := eventTexts(t, s); !slices.Equal(texts, loud) {
		t.Errorf("%q", texts)
	}
	// A start counts anew: of two that fail, the second stops it.
	ok(t, s.SetActive(ctx, "example.com", true))
	failure(t, s, Failed, 2) // emil
	if why := stoppedBecause(t, s); why != "" {
		t.Errorf("those that failed before the start count: %s", why)
	}
	if c := failure(t, s, Failed, 2); c.Stopped == "" || stoppedBecause(t, s) == "" { // fred
		t.Error("not stopped again")
	}
	ok(t, s.SetActive(ctx, "example.com", true))
	failure(t, s, Failed, 0) // gerd; no limit
	if why := stoppedBecause(t, s); why != "" {
		t.Error(why)
	}
}

// What failed and goes on does not count.
func TestWhatGoesOnHasNotFailed(t *testing.T) {
	for name, goOn := range map[string]func(*testing.T, *Store){
		"retried": func(t *testing.T, s *Store) {
			_, err := s.Retry(t.Context(), "anna@example.com")
			ok(t, err)
		},
		"excluded": func(t *testing.T, s *Store) {
			_, err := s.Exclude(t.Context(), identity("anna"))
			ok(t, err)
		},
		"flipped": func(t *testing.T, s *Store) {
			at(t, s, "accounts", "due", time.Now().Add(-time.Minute), "anna")
			ok(t, claim(t, s).Flip(t.Context(), Active, 1, time.Time{}))
		},
		"copies": func(t *testing.T, s *Store) {
			at(t, s, "accounts", "due", time.Now().Add(-time.Minute), "anna")
			c := claim(t, s)
			f := folder(t, c, "INBOX")
			ok(t, c.SetOrigin(t.Context(), OriginCreated))
			ok(t, c.Settle(t.Context(), f.ID, nil, batch(1, 3, 0)))
		},
		"sets a message aside": func(t *testing.T, s *Store) {
			at(t, s, "accounts", "due", time.Now().Add(-time.Minute), "anna")
			c := claim(t, s)
			m := SetAside{FolderID: folder(t, c, "INBOX").ID, SourceUID: 1, Octets: 1}
			ok(t, c.PutAside(t.Context(), &m, strings.NewReader("x")))
		},
		"put down otherwise": func(t *testing.T, s *Store) {
			at(t, s, "accounts", "due", time.Now().Add(-time.Minute), "anna")
			failure(t, s, Waiting, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := active(t)
			begin(t, s, "anna", "x")
			failure(t, s, Failed, 2)
			goOn(t, s)
			begin(t, s, "bert", "x")
			at(t, s, "accounts", "due", time.Now().Add(-time.Hour), "bert")
			failure(t, s, Failed, 2)
			if why := stoppedBecause(t, s); why != "" {
				t.Error(why)
			}
		})
	}
}

// An account that is tried again and again has failed after failedTries tries.
func TestTriesWithoutProgressAreAFailure(t *testing.T) {
	for _, state := range []State{Provisioning, Copying, Active} {
		s := active(t)
		begin(t, s, "anna", "x")
		for try := 1; try <= failedTries; try++ {
			c := claim(t, s)
			c.MaxFailed = 1
			ok(t, c.Release(t.Context(), state, "no", time.Now().Add(-time.Second), true))
			want := try == failedTries && state != Active
			if (c.Stopped != "") != want || (stoppedBecause(t, s) != "") != want {
				t.Errorf("%s: after %d tries: %q", state, try, c.Stopped)
			}
		}
		// The administrator goes on without it, whatever it does.
		ok(t, s.SetActive(t.Context(), "example.com", true))
		for range 3 {
			c := claim(t, s)
			c.MaxFailed = 1
			ok(t, c.Release(t.Context(), state, "no", time.Now().Add(-time.Second), true))
			if why := stoppedBecause(t, s); why != "" {
				t.Errorf("%s: it counts again: %s", state, why)
			}
		}
	}
}

// Of accounts that fail at the same time one stops the wave, and says so.
func TestFailuresAtOnceStopOnce(t *testing.T) {
	s := active(t)
	const n = 8
	var claims []*Claim
	for i := range n {
		begin(t, s, fmt.Sprintf("user%d", i), "x")
		c := claim(t, s)
		c.MaxFailed = 3
		claims = append(claims, c)
	}
	var all sync.WaitGroup
	for _, c := range claims {
		all.Go(func() {
			if err := c.Release(t.Context(), Failed, "no", time.Time{}, true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	stopped := 0
	for _, c := range claims {
		if c.Stopped != "" {
			stopped++
			if !strings.HasPrefix(c.Stopped, "3 accounts have failed") {
				t.Error(c.Stopped)
			}
		}
	}
	if texts := eventTexts(t, s); stopped != 1 || len(texts) != 1 {
		t.Errorf("stopped %d times, said %q", stopped, texts)
	}
}

// A password that came while an account was worked on is tried before it counts.
func TestNewPasswordIsTriedBeforeItCounts(t *testing.T) {
	s := active(t)
	a := begin(t, s, "anna", "x")
	c := claim(t, s)
	c.MaxFailed = 1
	_, err := s.SealPassword(t.Context(), a.ID, config.NewSecret("newer"))
	ok(t, err)
	ok(t, c.Release(t.Context(), Failed, "no", time.Time{}, true))
	if c.Stopped != "" {
		t.Error(c.Stopped)
	}
	if c := failure(t, s, Failed, 1); c.Stopped == "" {
		t.Error("not stopped")
	}
}

// What is stopped by command is not stopped by itself as well.
func TestFailuresOfAStoppedDomain(t *testing.T) {
	s := active(t)
	begin(t, s, "anna", "x")
	ok(t, s.SetActive(t.Context(), "example.com", false))
	if c := failure(t, s, Failed, 1); c.Stopped != "" || len(eventTexts(t, s)) != 0 {
		t.Errorf("%q, %q", c.Stopped, eventTexts(t, s))
	}
	d, err := s.DomainState(t.Context(), "example.com")
	if err != nil || d.StoppedBecause != "" || d.Active {
		t.Errorf("%+v, %v", d, err)
	}
}
