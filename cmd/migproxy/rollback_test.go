package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// active puts an account into the store that has moved.
func (w *world) active(t *testing.T, local string) {
	t.Helper()
	ctx := t.Context()
	_, _, err := w.store.Begin(ctx, store.NewAccount{Identity: identity(local), Password: config.NewSecret("hunter2"), Mode: config.ModeAccounts})
	var c *store.Claim
	if err == nil {
		c, err = w.store.ClaimNext(ctx, "test", time.Minute)
	}
	if err == nil {
		err = errors.Join(c.SetOrigin(ctx, store.OriginFree), c.SetOrigin(ctx, store.OriginCreated), c.Flip(ctx, store.Active, 1, time.Time{}))
	}
	if err == nil {
		err = w.store.Event(ctx, local+"@example.com", "an old event")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// worker takes the next account back as the migrator would, and ends it by end.
func (w *world) worker(t *testing.T, end func(context.Context, *store.Claim) error) <-chan error {
	t.Helper()
	changes, cancel := w.store.Subscribe(false)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		ctx := context.Background()
		for c := range changes {
			if c.RollingBack == store.RollbackWanted {
				break
			}
		}
		c, err := w.store.ClaimNext(ctx, "test", time.Minute)
		if err == nil {
			err = errors.Join(c.BeginRollback(ctx), w.store.Event(ctx, "anna@example.com", "'anna@example.com': 2 messages of 'INBOX' are copied back to 'INBOX'"), end(ctx, c))
		}
		done <- err
	}()
	return done
}

// The command follows the rollback to its end, and says what it came to.
func TestRollback(t *testing.T) {
	w := startWorld(t)
	w.active(t, "anna")
	flags := []string{"--config", w.config}
	w.plan = func(context.Context, store.Account) (migrator.RollbackPlan, error) {
		return migrator.RollbackPlan{Messages: 3, Octets: 4096, Folders: []migrator.RollbackFolder{
			{Target: "INBOX", Source: "INBOX", Messages: 2, Octets: 96},
			{Target: "Entw&APw-rfe/neu", Source: "INBOX.Entw&APw-rfe.neu", Messages: 1, Octets: 4000, Create: true}}}, nil
	}
	for name, args := range map[string]string{"rollback_plan": "account rollback anna@example.com --dry-run", "rollback_plan_json": "account rollback anna@example.com --dry-run --json"} {
		o := runCLI(t, append(strings.Fields(args), flags...)...)
		if o.status != exitDone || o.stderr != "" {
			t.Errorf("%+v", o)
		}
		golden(t, name, o.stdout)
	}
	w.plan = func(context.Context, store.Account) (migrator.RollbackPlan, error) {
		return migrator.RollbackPlan{}, errors.New("the source is away")
	}
	if o := runCLI(t, append([]string{"account", "rollback", "anna@example.com", "--dry-run"}, flags...)...); o.status != exitFailed || !strings.Contains(o.stderr, "the source is away") {
		t.Errorf("%+v", o)
	}
	if o := runCLI(t, append([]string{"account", "rollback", "anna@example.com", "--json"}, flags...)...); o.status != exitUsage {
		t.Errorf("%+v", o)
	}
	o := runCLI(t, append([]string{"account", "exclude", "anna@example.com"}, flags...)...)
	if o.status != exitFailed || !strings.Contains(o.stderr, "`migproxy account rollback anna@example.com` takes it back") {
		t.Errorf("%+v", o)
	}

	done := w.worker(t, func(ctx context.Context, c *store.Claim) error {
		return c.GiveUpRollback(ctx, "it was not taken back to its source: it has no room", time.Time{})
	})
	o = runCLI(t, append([]string{"account", "rollback", "anna@example.com"}, flags...)...)
	if err := <-done; err != nil || o.status != exitFailed || !strings.Contains(o.stderr, "stays on the target (active): it was not taken back to its source: it has no room") {
		t.Errorf("%+v, %v", o, err)
	}
	done = w.worker(t, func(ctx context.Context, c *store.Claim) error { return c.EndRollback(ctx) })
	o = runCLI(t, append([]string{"account", "rollback", "anna@example.com"}, flags...)...)
	if err := <-done; err != nil || o.status != exitDone || o.stderr != "" {
		t.Errorf("%+v, %v", o, err)
	}
	golden(t, "rollback", o.stdout)
	if o := runCLI(t, append([]string{"account", "rollback", "anna@example.com"}, flags...)...); o.status != exitFailed || !strings.Contains(o.stderr, "lives at its source already") {
		t.Errorf("%+v", o)
	}
	o = runCLI(t, append([]string{"account", "retry", "anna@example.com"}, flags...)...)
	if o.status != exitDone {
		t.Errorf("%+v", o)
	}
	golden(t, "rollback_retry", o.stdout)
}

// Whoever stops watching leaves the work running.
func TestRollbackGoesOn(t *testing.T) {
	w := startWorld(t)
	w.active(t, "anna")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := w.worker(t, func(context.Context, *store.Claim) error {
		cancel()
		return nil
	})
	var out, errs strings.Builder
	status := execute(ctx, []string{"account", "rollback", "anna@example.com", "--config", w.config}, &out, &errs)
	if err := <-done; err != nil || status != exitFailed || !strings.Contains(errs.String(), "being taken back on the server") {
		t.Errorf("%d, %s, %v", status, errs.String(), err)
	}
	if a, err := w.store.Account(t.Context(), "anna@example.com"); err != nil || a.RollingBack != store.RollbackUnderWay {
		t.Errorf("%+v, %v", a, err)
	}
}
