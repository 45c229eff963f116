package admin_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
)

// flip makes the account that is due next active.
func (w *world) flip(t *testing.T) store.Account {
	t.Helper()
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err == nil {
		err = c.Flip(t.Context(), store.Active, c.Account.PasswordVersion, time.Now().Add(time.Hour))
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.Account
}

func TestComplete(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	w.flip(t)
	if _, err := w.store.Note(t.Context(), config.Identity{Login: "bert", Local: "bert", Domain: "example.com"}, store.AtSource); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.SetActive(t.Context(), "", true); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Complete(t.Context(), "", false, false); status(t, err) != http.StatusConflict || !strings.Contains(err.Error(), "migproxy stop") {
		t.Errorf("%v", err)
	}
	if _, err := w.client.Complete(t.Context(), "elsewhere.com", false, false); status(t, err) != http.StatusNotFound {
		t.Errorf("%v", err)
	}
	if _, err := w.client.SetActive(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	all, err := w.client.Complete(t.Context(), "Example.com", false, false)
	if err != nil || len(all) != 1 || !all[0].Completing || all[0].Finishing != 1 || all[0].LeftTotal != 2 || all[0].Finished {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := w.client.SetActive(t.Context(), "", true); status(t, err) != http.StatusConflict {
		t.Errorf("started during the completion: %v", err)
	}
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.SettleCompletion(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	all, err = w.client.Completion(t.Context(), "example.com")
	if err != nil || all[0].Completing || all[0].Finished || len(all[0].Left) != 1 || all[0].Left[0].Address != "bert@example.com" {
		t.Fatalf("%+v, %v", all, err)
	}
	all, err = w.client.Complete(t.Context(), "example.com", true, false)
	if err != nil || !all[0].Finished || all[0].LeftTotal != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := w.client.Retry(t.Context(), "bert@example.com", config.Secret{}); status(t, err) != http.StatusConflict || !strings.Contains(err.Error(), "is finished") {
		t.Errorf("%v", err)
	}
	if _, err := w.client.Adopt(t.Context(), "bert@example.com"); status(t, err) != http.StatusConflict || !strings.Contains(err.Error(), "is finished") {
		t.Errorf("%v", err)
	}
}

// A password for an account that goes on by itself is refused, and not kept; one
// for an account that has stopped is kept.
func TestRetryWithPasswordByState(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	before, err := w.store.Account(t.Context(), "anna@example.com")
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range map[store.State]int{store.Provisioning: http.StatusConflict, store.Waiting: 0, store.Failed: 0, store.Conflict: 0} {
		c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
		if err != nil || c == nil {
			t.Fatal(c, err)
		}
		if err := c.Release(t.Context(), state, "for the test", time.Now(), true); err != nil {
			t.Fatal(err)
		}
		given := "given when " + string(state)
		kept, _, err := w.store.Password(t.Context(), before.ID, store.SideSource)
		if err != nil {
			t.Fatal(err)
		}
		wanted := kept.Reveal()
		a, err := w.client.Retry(t.Context(), "anna@example.com", config.NewSecret(given))
		if want == 0 {
			wanted = given
			if err != nil || a.State != store.Provisioning {
				t.Errorf("%s: %+v, %v", state, a, err)
			}
		} else if status(t, err) != want {
			t.Errorf("%s: %v", state, err)
		}
		if p, _, err := w.store.Password(t.Context(), before.ID, store.SideSource); err != nil || p.Reveal() != wanted {
			t.Errorf("%s: %q is kept, %v", state, p.Reveal(), err)
		}
	}
}

// The administrator may give a password where one is needed, and nowhere else.
func TestRetryWithPassword(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	a := w.flip(t)
	if _, err := w.client.Retry(t.Context(), "anna@example.com", config.NewSecret("new")); status(t, err) != http.StatusConflict {
		t.Errorf("%v", err)
	}
	if _, err := w.client.Retry(t.Context(), "anna@example.com", config.Secret{}); err != nil {
		t.Fatal(err)
	}
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.RefusePassword(t.Context(), store.SideSource), c.NeedPassword(t.Context(), true),
		c.Release(t.Context(), store.Active, "it needs a password", time.Time{}, true)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if v, err := w.client.Account(t.Context(), "anna@example.com"); err != nil || !v.NeedsPassword {
		t.Errorf("%+v, %v", v, err)
	}
	secret := "p\xff\x00 w" // any octets
	if _, err := w.client.Retry(t.Context(), "anna@example.com", config.NewSecret(secret)); err != nil {
		t.Fatal(err)
	}
	if p, _, err := w.store.Password(t.Context(), a.ID, store.SideSource); err != nil || p.Reveal() != secret {
		t.Errorf("%v", err)
	}
	if _, err := w.client.Retry(t.Context(), "anna@example.com", config.NewSecret(strings.Repeat("x", 9<<10))); status(t, err) != http.StatusBadRequest {
		t.Errorf("%v", err)
	}
}
