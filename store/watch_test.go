package store

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// at writes a time into the rows of accounts or domains.
func at(t *testing.T, s *Store, table, column string, when time.Time, name string) {
	t.Helper()
	key := map[string]string{"accounts": "local", "domains": "name"}[table]
	_, err := s.w.ExecContext(t.Context(), "UPDATE "+table+" SET "+column+" = $1 WHERE "+key+" = $2", millis(when), name)
	ok(t, err)
}

func watch(t *testing.T, s *Store) Watch {
	t.Helper()
	w, err := s.Watch(t.Context(), "example.com")
	ok(t, err)
	return w
}

func TestActiveSince(t *testing.T) {
	s := openDir(t, t.TempDir())
	since := func() time.Time { t.Helper(); return watch(t, s).ActiveSince }
	seed := func(active bool) {
		t.Helper()
		_, err := s.SeedActive(t.Context(), "example.com", active)
		ok(t, err)
	}
	if !since().IsZero() {
		t.Error("active before it was known")
	}
	seed(false)
	if !since().IsZero() {
		t.Error("active before it was started")
	}
	ok(t, s.SetActive(t.Context(), "example.com", true))
	first := since()
	if first.IsZero() || time.Since(first) > time.Minute {
		t.Error(first)
	}
	month := time.Now().Add(-30 * 24 * time.Hour)
	at(t, s, "domains", "active_since", month, "example.com")
	seed(true) // the next start of the process
	if got := since(); got.UnixMilli() != month.UnixMilli() {
		t.Errorf("since %s after a restart", got)
	}
	ok(t, s.SetActive(t.Context(), "example.com", true)) // said anew
	if got := since(); time.Since(got) > time.Minute {
		t.Errorf("since %s after another start", got)
	}
	ok(t, s.SetActive(t.Context(), "example.com", false))
	if !since().IsZero() {
		t.Error("active while stopped")
	}
	// A version that did not keep the time had started it.
	ok(t, s.SetActive(t.Context(), "example.com", true))
	at(t, s, "domains", "active_since", time.Time{}, "example.com")
	seed(true)
	if got := since(); time.Since(got) > time.Minute {
		t.Errorf("since %s after an upgrade", got)
	}
}

func TestLeftActive(t *testing.T) {
	day := 24 * time.Hour
	now := time.Date(2026, 3, 30, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		active, begun time.Duration // ago; 0: never
		want          time.Duration // ago; 0: not left active
	}{
		{0, 0, 0},
		{0, 30 * day, 0},
		{13 * day, 0, 0},
		{14 * day, 0, 14 * day},
		{60 * day, 13 * day, 0},
		{60 * day, 15 * day, 15 * day},
		{3 * day, 40 * day, 0},
		{20 * day, 40 * day, 20 * day},
	} {
		var w Watch
		if c.active > 0 {
			w.ActiveSince = now.Add(-c.active)
		}
		if c.begun > 0 {
			w.LastBegun = now.Add(-c.begun)
		}
		if since, left := w.LeftActive(now); left != (c.want > 0) || left && now.Sub(since) != c.want {
			t.Errorf("%+v: %v since %s", c, left, since)
		}
	}
}

func TestStandsStill(t *testing.T) {
	s := openDir(t, t.TempDir())
	ctx := t.Context()
	_, err := s.SeedActive(ctx, "example.com", true)
	ok(t, err)
	now := time.Now()
	is := func(when string, toMove int64, ago time.Duration) {
		t.Helper()
		w := watch(t, s)
		since, still := w.StandsStill(now)
		if w.ToMove != toMove || still != (toMove > 0 && ago >= time.Hour) || still && now.Sub(since).Round(time.Minute) != ago {
			t.Errorf("%s: %v since %s: %+v", when, still, since, w)
		}
		if toMove == 0 && !w.LastProgress.IsZero() {
			t.Errorf("%s: progress of nothing: %+v", when, w)
		}
	}
	ago := func(column, name string, d time.Duration) {
		t.Helper()
		at(t, s, "accounts", column, now.Add(-d), name)
	}
	is("nothing", 0, 0)
	begin(t, s, "anna", "x")
	is("begun", 1, 0)
	ago("began_at", "anna", 3*time.Hour)
	ago("progress_at", "anna", 3*time.Hour) // as Begin writes it
	is("never came on", 1, 3*time.Hour)
	anna := claim(t, s)
	f := folder(t, anna, "INBOX")
	ok(t, anna.SetOrigin(ctx, OriginCreated))
	ok(t, anna.Settle(ctx, f.ID, nil, batch(1, 3, 0)))
	is("copies", 1, 0)
	ago("progress_at", "anna", 2*time.Hour)
	is("stopped copying", 1, 2*time.Hour)
	// Another that has just begun is no progress, and one that has flipped is.
	begin(t, s, "bert", "x")
	is("another begins", 2, 2*time.Hour)
	ok(t, claim(t, s).Flip(ctx, Active, 1, now))
	is("another flipped", 1, 0)
	ago("flipped_at", "bert", 90*time.Minute)
	is("another flipped long ago", 1, 90*time.Minute)
	bert := claim(t, s)
	g := folder(t, bert, "INBOX")
	ok(t, bert.Settle(ctx, g.ID, nil, batch(1, 3, 0)))
	ok(t, bert.CaughtUp(ctx, now.Add(time.Hour)))
	is("a catch-up is none", 1, 90*time.Minute)
	for _, state := range []State{Waiting, Failed} {
		_, err = s.w.ExecContext(ctx, "UPDATE accounts SET state = $1 WHERE local = 'anna'", state)
		ok(t, err)
		is(string(state), 1, 90*time.Minute)
	}
	ok(t, s.SetActive(ctx, "example.com", false))
	is("stopped, and those begun are still to be finished", 1, 90*time.Minute)
	// Nothing was moved for weeks; who begins then does not stand still.
	for _, name := range []string{"anna", "bert"} {
		ago("flipped_at", name, 500*time.Hour)
		_, err = s.w.ExecContext(ctx, "UPDATE accounts SET state = 'active' WHERE local = $1", name)
		ok(t, err)
	}
	is("all have flipped", 0, 0)
	begin(t, s, "carl", "x")
	is("begun after weeks", 1, 0)
	ago("began_at", "carl", 61*time.Minute)
	ago("progress_at", "carl", 61*time.Minute)
	is("begun an hour ago", 1, 61*time.Minute)
	_, err = s.w.ExecContext(ctx, "UPDATE domains SET finished = TRUE")
	ok(t, err)
	is("finished by force", 0, 0)
}

func TestWarningsAreDaily(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	for _, domain := range []string{"example.com", "example.org"} {
		_, err := s.SeedActive(t.Context(), domain, true)
		ok(t, err)
	}
	now := time.Now()
	for _, c := range []struct {
		domain string
		kind   Warning
		after  time.Duration
		want   bool
	}{
		{"example.com", WarnStandstill, 0, true},
		{"example.com", WarnStandstill, time.Minute, false},
		{"example.com", WarnLeftActive, time.Minute, true},
		{"example.org", WarnStandstill, time.Minute, true},
		{"example.com", WarnStandstill, 24*time.Hour - time.Second, false},
		{"example.com", WarnStandstill, 24 * time.Hour, true},
		{"example.com", WarnLeftActive, 24 * time.Hour, false},
	} {
		s = openDir(t, dir) // a restart says nothing twice
		told, err := s.Warn(t.Context(), c.domain, c.kind, "LOUD", now.Add(c.after))
		if err != nil || told != c.want {
			t.Errorf("%+v: %v, %v", c, told, err)
		}
	}
	if events, err := s.Events(t.Context(), "", 0, 100); err != nil || len(events) != 4 || events[0].Text != "LOUD" || events[0].Address != "" {
		t.Errorf("%+v, %v", events, err)
	}
}

// A bulk is over when nothing of it is being moved or tried again by itself;
// that is said once, and not of a single account.
func TestBulk(t *testing.T) {
	s := openDir(t, t.TempDir())
	ctx := t.Context()
	_, err := s.SeedActive(ctx, "example.com", true)
	ok(t, err)
	said := func(when string, want ...string) {
		t.Helper()
		over, err := s.BulkOver(ctx, "example.com")
		ok(t, err)
		_, ended, err := s.EndBulk(ctx, "example.com")
		ok(t, err)
		if ended && !over {
			t.Errorf("%s: ended and not over", when)
		}
		events, err := s.Events(ctx, "", 0, 100)
		ok(t, err)
		var have []string
		for _, e := range events {
			have = append(have, strings.TrimPrefix(e.Text, "Bulk migration finished: "))
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s: %q", when, have)
		}
	}
	flip := func(c *Claim) { t.Helper(); ok(t, c.Flip(ctx, Active, 1, time.Time{})) }
	said("nothing")
	begin(t, s, "anna", "x")
	said("one begins")
	flip(claim(t, s))
	said("one has moved")
	begin(t, s, "bert", "x")
	begin(t, s, "carl", "x")
	bert, carl := claim(t, s), claim(t, s)
	flip(bert)
	said("one of two")
	begin(t, s, "dora", "x") // while the bulk goes on
	dora := claim(t, s)
	ok(t, carl.Release(ctx, Waiting, "full", time.Now().Add(time.Hour), true))
	flip(dora)
	said("one is tried again")
	at(t, s, "accounts", "due", time.Now(), "carl")
	carl = claim(t, s)
	said("it is being tried")
	ok(t, carl.Release(ctx, Waiting, "ask the administrator", time.Time{}, true))
	first := "2 accounts of example.com migrated, 1 not, see `migproxy accounts`"
	said("nothing is left to do", first)
	said("once only", first)
	_, err = s.Retry(ctx, "carl@example.com") // belongs to a bulk that is over
	ok(t, err)
	said("retried", first)
	flip(claim(t, s))
	said("one afterwards", first)
	for _, name := range []string{"emil", "fred"} {
		begin(t, s, name, "x")
	}
	ok(t, s.SetActive(ctx, "example.com", false))
	flip(claim(t, s))
	_, err = s.Exclude(ctx, identity("fred"))
	ok(t, err)
	_, err = s.Exclude(ctx, identity("emil"))
	if err == nil {
		t.Error("excluded after the flip")
	}
	said("the last was excluded, after a stop", first, "1 accounts of example.com migrated, 1 not, see `migproxy accounts`")
}
