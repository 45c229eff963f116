package admin_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// Each account that cannot be taken back is refused with its own reason, by the dry
// run as well.
func TestRollbackRefusals(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	id := func(local string) config.Identity {
		return config.Identity{Login: local, Local: local, Domain: "example.com"}
	}
	flip := func(local string, mode config.Mode, adopt bool, to store.State) {
		t.Helper()
		if _, _, err := w.store.Begin(ctx, store.NewAccount{Identity: id(local), Password: config.NewSecret("x"), Mode: mode, Adopt: adopt}); err != nil {
			t.Fatal(err)
		}
		c, err := w.store.ClaimNext(ctx, "test", time.Minute)
		if err == nil && !adopt {
			err = c.SetOrigin(ctx, store.OriginFree)
		}
		if err == nil && !adopt {
			err = c.SetOrigin(ctx, store.OriginCreated)
		}
		if err == nil {
			err = c.Flip(ctx, to, c.Account.PasswordVersion, time.Time{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	flip("anna", config.ModeAccounts, false, store.Active)
	flip("bert", config.ModeAccounts, true, store.Active)
	flip("carl", config.ModePasswords, false, store.Finished)
	if _, err := w.store.Note(ctx, id("dora"), store.Native); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Note(ctx, id("emil"), store.AtSource); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Exclude(ctx, id("fritz")); err != nil {
		t.Fatal(err)
	}
	w.plan = func(_ context.Context, a store.Account) (migrator.RollbackPlan, error) {
		return migrator.RollbackPlan{Messages: 7}, nil
	}
	for local, want := range map[string]string{"bert": "lived on the target before", "carl": "nothing of the mail", "dora": "lived on the target before",
		"emil": "has not moved", "fritz": "lives at its source already"} {
		_, err := w.client.Rollback(ctx, local+"@example.com")
		if status(t, err) != http.StatusConflict || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", local, err)
		}
		if _, err := w.client.PlanRollback(ctx, local+"@example.com"); status(t, err) != http.StatusConflict {
			t.Errorf("%s: %v", local, err)
		}
	}
	if _, err := w.client.Rollback(ctx, "nobody@example.com"); status(t, err) != http.StatusNotFound {
		t.Error(err)
	}
	if plan, err := w.client.PlanRollback(ctx, "anna@example.com"); err != nil || plan.Messages != 7 {
		t.Errorf("%+v, %v", plan, err)
	}
	if a, err := w.store.Account(ctx, "anna@example.com"); err != nil || a.RollingBack != store.NotRollingBack {
		t.Errorf("the dry run has begun something: %+v, %v", a, err)
	}
	if a, err := w.client.Rollback(ctx, "ANNA@example.com"); err != nil || !a.RollingBack {
		t.Errorf("%+v, %v", a, err)
	}
}
