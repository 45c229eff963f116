package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
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

// Who is kept on the source has no other mailbox: he gets it until the
// administrator ends that by force.
func TestExcludedAccountIsNotCompletedAway(t *testing.T) {
	w := newWorld(t)
	w.put("excluded", "-", store.NewAccount{})
	w.check(w.store.SetActive(w.ctx, "example.com", false))
	w.check(w.store.Complete(w.ctx, "example.com", store.CompleteWhole, false))
	if got := w.login(config.IMAP); got != "source" {
		t.Error(got)
	}
	w.check(w.store.Complete(w.ctx, "example.com", store.CompleteForced, false))
	if got := w.login(config.IMAP); got != "miss" {
		t.Errorf("after force: %s", got)
	}
}

// finish ends the migration of the domain by force.
func (w *world) finish() {
	w.t.Helper()
	w.check(w.store.SetActive(w.ctx, "example.com", false))
	w.check(w.store.Complete(w.ctx, "example.com", store.CompleteForced, true))
	d, err := w.store.DomainState(w.ctx, "example.com")
	if err != nil || !d.Finished {
		w.t.Fatalf("%+v, %v", d, err)
	}
}

// When a domain is finished, the sessions on its source end, and those in parked
// mailboxes: what is done there from then on would be lost, or never end.
func TestSessionsEndWithTheirDomain(t *testing.T) {
	for _, tt := range []struct{ state, origin, want string }{
		{"unknown", "-", "source"}, // stopped, and the target is away
		{"at_source", "-", "source"},
		{"excluded", "-", "source"},
		{"conflict", "-", "source"},
		{"copying", "created", "park"},
		{"failed", "created", "park"},
	} {
		t.Run(tt.state, func(t *testing.T) {
			w := newWorld(t)
			w.put(tt.state, tt.origin, store.NewAccount{Mode: config.ModeAccounts})
			w.check(w.store.SetActive(w.ctx, "example.com", false))
			w.target.set("unavailable")
			session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
			w.check(err)
			defer session.Conn.Close()
			if on := map[bool]string{true: "park", false: "source"}[session.Server == parkedServer]; on != tt.want {
				t.Fatalf("the session is on %s", on)
			}
			if _, state := w.account(); state != tt.state {
				t.Fatalf("the account is %s", state)
			}
			w.check(session.Conn.SetDeadline(time.Now().Add(10 * time.Second)))
			w.finish()
			if _, err := io.Copy(io.Discard, session.Reader); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the session goes on")
			}
		})
	}
}

// A login that is decided while its domain is finished gets what the domain has
// then.
func TestDomainIsFinishedDuringALogin(t *testing.T) {
	for _, state := range []string{"unknown", "at_source", "excluded", "copying"} {
		t.Run(state, func(t *testing.T) {
			w := newWorld(t)
			origin := "-"
			if state == "copying" {
				origin = "created"
			}
			w.put(state, origin, store.NewAccount{Mode: config.ModeAccounts})
			w.check(w.store.SetActive(w.ctx, "example.com", false))
			w.source.change = w.finish
			if got := w.login(config.IMAP); got != "miss" {
				t.Error(got)
			}
			w.source.idle()
		})
	}
}

// Nor does it get a session where the domain is finished when all is decided,
// just as that session's watch begins.
func TestDomainIsFinishedAsASessionBegins(t *testing.T) {
	for name, ago := range map[string]time.Duration{"park": 0, "source": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put("failed", "created", store.NewAccount{Mode: config.ModeAccounts})
			watched := func() bool {
				w.broker.watches.mu.Lock()
				defer w.broker.watches.mu.Unlock()
				return len(w.broker.watches.byAddress) > 0
			}
			finished := false
			w.broker.now = func() time.Time { // is asked whenever the account is read
				if !finished && watched() {
					finished = true
					w.finish()
				}
				return time.Now().Add(ago)
			}
			session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
			if session != nil {
				session.Conn.Close()
				t.Fatalf("a session on %s", session.Server)
			}
			if got := w.result(nil, err); got != "miss" || !finished {
				t.Error(got, finished)
			}
			w.source.idle()
		})
	}
}

// A login that waits for the move of its password waits no longer than that goes
// on.
func TestFinishedDomainIsNotAwaited(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Domains[0].Mode = config.ModePasswords })
	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	got := make(chan string, 1)
	go func() { got <- w.login(config.IMAP) }()
	if c := <-changes; c.State != store.Provisioning {
		t.Fatal(c.State)
	}
	w.finish()
	select {
	case r := <-got:
		if r != "miss" {
			t.Error(r)
		}
	case <-time.After(passwordWait / 2):
		t.Error("the login still waits")
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

// The wave of the store counts, at each login: who is added to it begins at his
// next one, who is taken out of it stays on the source, and who has begun goes on.
func TestWaveChangesBetweenLogins(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Domains[0].Wave.Include = []string{"carl@example.com"} })
	as := func(local, want, state string) {
		t.Helper()
		w.id.Local, w.id.Login = local, local+"@example.com"
		if got := w.login(config.IMAP); got != want {
			t.Errorf("%s is led to %s, not %s", local, got, want)
		}
		if _, got := w.account(); got != state {
			t.Errorf("%s is %s, not %s", local, got, state)
		}
	}
	add := func(excluded bool, patterns ...string) {
		t.Helper()
		_, err := w.store.AddToWave(w.ctx, "example.com", patterns, excluded)
		w.check(err)
	}
	as("anna", "source", "at_source")
	as("carl", "park", "provisioning")
	add(false, "a*@example.com", "bert@example.com")
	as("anna", "park", "provisioning")
	_, err := w.store.RemoveFromWave(w.ctx, "example.com", []string{"a*@example.com", "bert@example.com"})
	w.check(err)
	as("anna", "park", "provisioning") // goes on
	as("arno", "source", "at_source")
	as("bert", "source", "at_source")
	add(false, "*")
	add(true, "bert@example.com")
	as("bert", "source", "at_source")
	as("arno", "park", "provisioning")
	// Who fails stops the domain; then nobody begins, and those begun go on.
	w.id.Local, w.id.Login = "arno", "arno@example.com"
	c := w.claim()
	c.MaxFailed = 1
	w.check(c.Release(w.ctx, store.Failed, "for the test", time.Time{}, true))
	as("dora", "source", "at_source")
	as("anna", "park", "provisioning")
	w.check(w.store.SetActive(w.ctx, "example.com", true))
	as("dora", "park", "provisioning")
}
