package proxy

import (
	"fmt"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
)

// In a finished domain the source is never asked, whatever the account is and
// whatever the target says.
func TestFinishedDomain(t *testing.T) {
	for _, state := range []string{"unknown", "at_source", "provisioning", "copying", "active", "finished", "native", "failed", "waiting", "conflict", "excluded"} {
		for answer, want := range map[string]string{"yes": "target", "miss": "miss", "refused": "refused", "unavailable": "unavailable"} {
			t.Run(state+" "+answer, func(t *testing.T) {
				w := newWorld(t)
				origin := "-"
				if state != "unknown" && state != "at_source" && state != "native" && state != "provisioning" {
					origin = "created"
				}
				w.put(state, origin, store.NewAccount{Mode: config.ModeAccounts})
				w.check(w.store.SetActive(w.ctx, "example.com", false))
				w.check(w.store.Complete(w.ctx, "example.com", store.CompleteForced, true))
				if state == "active" { // its last pass goes on
					w.check(w.claim().Finish(w.ctx))
				}
				w.check(w.store.SettleCompletion(w.ctx, "example.com"))
				w.target.set(answer)
				if got := w.login(config.IMAP); got != want || w.source.count() != 0 || w.target.count() != 1 {
					t.Errorf("%s; source asked %d times, target %d", got, w.source.count(), w.target.count())
				}
			})
		}
	}
}

// While the last passes go on, nobody begins.
func TestNobodyBeginsDuringTheCompletion(t *testing.T) {
	w := newWorld(t)
	w.check(w.store.SetActive(w.ctx, "example.com", false))
	w.check(w.store.Complete(w.ctx, "example.com", store.CompleteWhole, false))
	if got := w.login(config.IMAP); got != "miss" { // nothing was there to complete
		t.Error(got)
	}
}

// A login on the target has an active account caught up, at most once a minute,
// and gives it a password if it needs one; it decides nothing about the login.
func TestLoginCatchesUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		needs  bool
		ago    time.Duration // since the last catch-up
		answer string
		due    bool
		kept   bool // the password of this login
	}{
		{"long ago", false, time.Hour, "yes", true, false},
		{"just now", false, time.Second, "yes", false, false},
		{"wrong password", false, time.Hour, "miss", false, false},
		{"needs a password", true, time.Second, "yes", true, true},
		{"needs a password, wrong one", true, time.Hour, "miss", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.begin(store.NewAccount{Mode: config.ModeAccounts, Password: config.NewSecret("of the source")})
			c := w.claim()
			w.check(c.SetOrigin(w.ctx, store.OriginCreated))
			w.check(c.Flip(w.ctx, store.Active, 1, time.Now()))
			c = w.claim()
			later := time.Now().Add(3 * time.Hour)
			if tt.needs {
				w.check(c.RefusePassword(w.ctx, store.SideSource))
				w.check(c.NeedPassword(w.ctx, true))
				w.check(c.Release(w.ctx, store.Active, "it needs a password", time.Time{}, true))
			} else {
				w.check(c.CaughtUp(w.ctx, later))
			}
			w.broker.now = func() time.Time { return time.Now().Add(tt.ago) }
			w.target.set(tt.answer)
			want := "target"
			if tt.answer != "yes" {
				want = "miss"
			}
			if got := w.login(config.IMAP); got != want {
				t.Error(got)
			}
			a, _ := w.account()
			if due := !a.Due.IsZero() && !a.Due.After(time.Now()); due != tt.due {
				t.Errorf("due %v", a.Due)
			}
			p, _, err := w.store.Password(w.ctx, a.ID, store.SideSource)
			if kept := err == nil && p.Reveal() == password; kept != tt.kept {
				t.Errorf("kept %t, %v", kept, err)
			}
			if w.source.count() != 0 {
				t.Error("the source was asked")
			}
		})
	}
}

// A login of somebody who lives on the target while his old mail is copied there
// gives the copy the password that opens the target, once.
func TestLoginGivesAdoptedAccountsPassword(t *testing.T) {
	for _, state := range []string{"waiting", "failed", "copying"} {
		for answer, keeps := range map[string]bool{"yes": true, "miss": false} {
			w := newWorld(t)
			w.put(state, "adopted", store.NewAccount{Mode: config.ModeAccounts, Password: config.NewSecret("older")})
			w.target.set(answer)
			w.login(config.IMAP)
			a, now := w.account()
			p, _, err := w.store.Password(w.ctx, a.ID, store.SideTarget)
			if kept := err == nil && p.Reveal() == password; kept != keeps || state != "copying" && keeps == a.Due.IsZero() || now != state {
				t.Errorf("%s, %s: kept %q, %v; %+v", state, answer, p.Reveal(), err, a)
			}
			if p, _, err := w.store.Password(w.ctx, a.ID, store.SideSource); err != nil || p.Reveal() != "older" {
				t.Errorf("%s: the source's password is %q, %v", state, p.Reveal(), err)
			}
			if !keeps {
				continue
			}
			c := w.claim()
			w.check(c.Release(w.ctx, store.Waiting, "for the test", time.Time{}, true))
			w.login(config.IMAP) // it has been tried
			if a, _ := w.account(); !a.Due.IsZero() {
				t.Errorf("%s: due again: %+v", state, a)
			}
			w.check(w.store.KeepTargetPassword(w.ctx, a.ID, config.NewSecret("for a while")))
			c = w.claim()
			w.check(c.RefusePassword(w.ctx, store.SideTarget))
			w.check(c.Release(w.ctx, store.Waiting, "for the test", time.Time{}, true))
			w.login(config.IMAP)
			if a, _ := w.account(); a.Due.IsZero() {
				t.Errorf("%s: not due: %+v", state, a)
			}
		}
	}
}

// A login with a new password begins the work of a stopped account again, and
// answers nothing that the administrator was asked.
func TestReviveKeepsTheReason(t *testing.T) {
	for _, state := range []string{"waiting", "failed"} {
		w := newWorld(t)
		w.put(state, "created", store.NewAccount{Mode: config.ModeAccounts, Password: config.NewSecret("older")})
		if got := w.login(config.IMAP); got != "park" {
			t.Errorf("%s: %s", state, got)
		}
		if a, now := w.account(); now != "copying" || a.Reason != "for the test" || a.Attempts != 0 || a.Due.IsZero() || a.PasswordVersion != 2 {
			t.Errorf("%s: %+v", state, a)
		}
	}
}

// Whoever logs in for another gives no password of the other's.
func TestDelegatedLoginKeepsNoPassword(t *testing.T) {
	w := newWorld(t)
	w.begin(store.NewAccount{Mode: config.ModeAccounts})
	c := w.claim()
	w.check(c.Flip(w.ctx, store.Active, 1, time.Now()))
	c = w.claim()
	w.check(c.RefusePassword(w.ctx, store.SideSource))
	w.check(c.NeedPassword(w.ctx, true))
	w.check(c.Release(w.ctx, store.Active, "it needs a password", time.Time{}, true))
	w.target.set("yes")
	a := w.attempt(config.IMAP)
	a.Authzid, a.Login = anna, "admin@example.com"
	a.Identity = resolve(w.cfg, a)
	session, err := w.broker.Login(w.ctx, a)
	if got := w.result(session, err); got != "target" {
		t.Error(got)
	}
	if _, _, err := w.store.Password(w.ctx, 1, store.SideSource); err == nil {
		t.Error(fmt.Errorf("the delegate's password was kept"))
	}
}
