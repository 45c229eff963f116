package migrator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// When no account of several is being moved any more, that is said, in the log
// and as an event.
func TestBulkMigrationFinished(t *testing.T) {
	_, _, _, b := fakes(t, twoFolders)
	if _, err := b.store.SeedActive(t.Context(), domain, true); err != nil {
		t.Fatal(err)
	}
	b.anna(t)
	// The fake target has one account only: whoever comes second is in conflict.
	b.begin(t, store.NewAccount{Identity: identity("bert"), Password: config.NewSecret(secret)})
	o := b.options(t)
	o.Concurrency = 1
	core, log := observer.New(zapcore.InfoLevel)
	o.Log = zap.New(core)
	const text = "Bulk migration finished: 1 accounts of " + domain + " migrated, 1 not, see `migproxy accounts`"
	b.until(t, o, "anna", func(store.Account) bool { return slices.Contains(b.events(t), text) })
	if n := log.FilterMessage("Bulk migration finished").Len(); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

// A list whose accounts begin one after the other is one bulk, even if for a
// moment none of those begun is being moved.
func TestBulkIsLookedAtTwice(t *testing.T) {
	_, _, _, b := fakes(t, nil)
	if _, err := b.store.SeedActive(t.Context(), domain, true); err != nil {
		t.Fatal(err)
	}
	m, err := migrator.New(b.options(t))
	if err != nil {
		t.Fatal(err)
	}
	over := false
	look := func(want bool, finished int) {
		t.Helper()
		if over, err = m.LookAtBulk(t.Context(), domain, over); err != nil || over != want {
			t.Errorf("over: %v, %v", over, err)
		}
		if n := strings.Count(strings.Join(b.events(t), "\n"), "Bulk migration finished"); n != finished {
			t.Errorf("said %d times", n)
		}
	}
	through := func(names ...string) {
		t.Helper()
		for _, name := range names {
			b.begin(t, store.NewAccount{Identity: identity(name), Password: config.NewSecret(secret)})
			if _, err := b.store.Exclude(t.Context(), identity(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	look(false, 0)
	through("anna", "bert")
	look(true, 0)
	b.begin(t, store.NewAccount{Identity: identity("carl"), Password: config.NewSecret(secret)})
	look(false, 0)
	if _, err := b.store.Exclude(t.Context(), identity("carl")); err != nil {
		t.Fatal(err)
	}
	look(true, 0)
	look(false, 1)
	look(false, 1)
}

// A migration that was left active, and one that stands still, is told loudly
// once a day.
func TestLoudWarnings(t *testing.T) {
	_, _, _, b := fakes(t, twoFolders)
	o := b.options(t)
	core, log := observer.New(zapcore.WarnLevel)
	o.Log = zap.New(core)
	m, err := migrator.New(o)
	if err != nil {
		t.Fatal(err)
	}
	look := func(after time.Duration, want ...string) {
		t.Helper()
		if err := m.LookAtDomain(t.Context(), domain, time.Now().Add(after)); err != nil {
			t.Fatal(err)
		}
		loud, events := log.TakeAll(), b.events(t)
		for i, entry := range loud {
			if i >= len(want) || !strings.HasPrefix(entry.Message, want[i]) || !slices.Contains(events, entry.Message) {
				t.Errorf("after %s: %q, want %q", after, entry.Message, want)
			}
		}
		if len(loud) != len(want) {
			t.Errorf("after %s: %d lines, want %q", after, len(loud), want)
		}
	}
	const day = 24 * time.Hour
	left, still := "THE MIGRATION OF "+domain+" IS STILL ACTIVE", "THE MIGRATION OF "+domain+" STANDS STILL: 1 accounts"
	look(100 * day) // not active
	if _, err := b.store.SeedActive(t.Context(), domain, true); err != nil {
		t.Fatal(err)
	}
	look(13 * day)
	look(15*day, left)
	look(15*day + time.Hour)
	look(16*day+time.Minute, left)
	b.anna(t)
	look(59 * time.Minute)
	look(61*time.Minute, still)
	look(23 * time.Hour)
	look(26*time.Hour, still)
	look(30*day, left, still)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatal(a.State, a.Reason)
	}
	if err := b.store.SetActive(t.Context(), domain, false); err != nil {
		t.Fatal(err)
	}
	look(100 * day)
}

// An account that cannot be created stops the wave of its domain, once, loudly, and
// goes on being tried.
func TestFailuresStopTheWave(t *testing.T) {
	_, _, driver, b := fakes(t, nil)
	if _, err := b.store.SeedActive(t.Context(), domain, true); err != nil {
		t.Fatal(err)
	}
	b.domains[domain].Config.Wave.MaxFailed = 1
	driver.fail = errors.New("no room on the tape")
	b.anna(t)
	o := b.options(t)
	core, log := observer.New(zapcore.ErrorLevel)
	o.Log = zap.New(core)
	b.until(t, o, "anna", func(a store.Account) bool { return a.Attempts > 10 })
	state, err := b.store.DomainState(t.Context(), domain)
	if err != nil || state.Active || !strings.HasPrefix(state.StoppedBecause, "1 accounts have failed") || !strings.HasSuffix(state.StoppedBecause, "no room on the tape") {
		t.Errorf("%+v, %v", state, err)
	}
	if n := strings.Count(strings.Join(b.events(t), "\n"), "HAS STOPPED BY ITSELF"); n != 1 {
		t.Errorf("said %d times", n)
	}
	loud := log.FilterMessageSnippet("HAS STOPPED BY ITSELF").All()
	if len(loud) != 1 || loud[0].ContextMap()["because"] != state.StoppedBecause {
		t.Errorf("in the log: %+v", loud)
	}
}
