package proxy

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

// under is an attempt of anna's under another name, as the server makes it.
func (w *world) under(name string) *Attempt {
	w.t.Helper()
	a := &Attempt{Protocol: config.IMAP, Login: name, Password: config.NewSecret(password)}
	a.Identity = resolve(w.cfg, a)
	w.check(w.broker.Owner(w.ctx, a))
	return a
}

// Whatever name a login uses, it goes on as the owner's account: its row, its
// user name on the servers, its password.
func TestLoginAliasLeadsToItsOwner(t *testing.T) {
	w := newWorld(t)
	w.source.set("password")
	w.source.valid[anna] = password
	w.put("at_source", "-", store.NewAccount{})
	for _, name := range []string{"a.rossi@example.com", `corp\anna`, "anna@old.example"} {
		w.check(w.store.GiveLoginAlias(w.ctx, name, anna))
	}
	for i, name := range []string{"a.rossi", "A.Rossi@EXAMPLE.com", `CORP\Anna`, "anna@old.example"} {
		a := w.under(name)
		if a.Identity.Address() != anna || a.Login != name {
			t.Fatalf("%s: %+v", name, a)
		}
		if got := w.result(w.broker.Login(w.ctx, a)); got != "park" {
			t.Errorf("%s: %s", name, got)
		}
		if acc, state := w.account(); state != "provisioning" || acc.PasswordVersion != 1 {
			t.Errorf("login %d: %s, %d passwords", i, state, acc.PasswordVersion)
		}
	}
	if list, err := w.store.Accounts(w.ctx, "", "", 9); err != nil || len(list) != 1 {
		t.Errorf("%d accounts, %v", len(list), err)
	}
	w.source.set("miss")
	if got := w.result(w.broker.Login(w.ctx, w.under(`corp\anna`))); got != "miss" {
		t.Errorf("a wrong password: %s", got)
	}
	w.check(w.claim().Flip(w.ctx, store.Active, 1, time.Time{}))
	w.target.set("password")
	w.target.valid[anna] = password
	w.source.recount()
	if got := w.result(w.broker.Login(w.ctx, w.under("a.rossi"))); got != "target" || w.source.count() != 0 {
		t.Errorf("%s; the source was asked %d times", got, w.source.count())
	}
	if a := w.under(`other\anna`); a.Identity != (config.Identity{}) {
		t.Errorf("%+v", a.Identity)
	}
}

// A login alias as authorisation identity is its owner, for the rules and for
// the servers.
func TestLoginAliasAsAuthorisationIdentity(t *testing.T) {
	w := newWorld(t)
	w.put("copying", "created", store.NewAccount{Mode: config.ModeAccounts})
	w.check(w.store.GiveLoginAlias(w.ctx, "a.rossi@example.com", anna))
	a := w.under("a.rossi")
	for _, own := range []string{"a.rossi", "anna", "A.rossi@example.com"} {
		a.Authzid = own
		if got := w.result(w.broker.Login(w.ctx, a)); got != "park" {
			t.Errorf("%s: %s", own, got)
		}
	}
	boss := w.under("boss@example.com")
	boss.Authzid = "a.rossi"
	if _, err := w.broker.Login(w.ctx, boss); upstream.OutcomeOf(err) != upstream.Held {
		t.Error(err)
	}
	w = newWorld(t)
	w.put("excluded", "-", store.NewAccount{})
	w.check(w.store.GiveLoginAlias(w.ctx, "a.rossi@example.com", anna))
	if got := w.result(w.broker.Login(w.ctx, boss)); got != "source" {
		t.Error(got)
	}
	if !slices.Equal(w.source.authz, []string{anna}) {
		t.Errorf("the source got the authorisation identities %q", w.source.authz)
	}
}

// When a name becomes a login alias, its sessions end, parked or on the source,
// and the client comes back to its owner's account.
func TestSessionsOfANameEndWhenItBecomesAnAlias(t *testing.T) {
	for _, state := range []string{"provisioning", "waiting"} {
		t.Run(state, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.store.Note(w.ctx, config.Identity{Login: "a", Local: "a.rossi", Domain: "example.com"}, store.Native)
			w.check(err)
			w.put(state, "-", store.NewAccount{Mode: config.ModeAccounts})
			if state == "waiting" { // for so long that his old mailbox is better
				w.broker.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
			}
			session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
			w.check(err)
			defer session.Conn.Close()
			if parked := session.Server == parkedServer; parked != (state == "provisioning") {
				t.Fatalf("parked: %v", parked)
			}
			late, err := w.broker.newLogin(w.ctx, w.attempt(config.IMAP)) // a login under way
			w.check(err)
			defer late.discard()
			w.check(late.read(w.ctx))
			if state == "waiting" {
				w.check(w.store.GiveLoginAlias(w.ctx, anna, "a.rossi@example.com"))
			} else {
				owner, err := w.store.Account(w.ctx, "a.rossi@example.com")
				w.check(err)
				w.check(w.claim().BecomeAlias(w.ctx, owner.ID))
			}
			err = session.Conn.SetReadDeadline(time.Now().Add(patience)) // it may be closed already
			buffer := make([]byte, 4096)
			for err == nil {
				_, err = session.Conn.Read(buffer)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the session went on")
			}
			if err := late.read(w.ctx); !errors.Is(err, errRemoved) {
				t.Errorf("the login under way: %v", err)
			}
			if a := w.under(anna); a.Identity.Local != "a.rossi" {
				t.Errorf("%+v", a.Identity)
			}
		})
	}
}

// owned is a stand-in of which every name is a login alias of the user's.
type owned struct{ authFunc }

func (owned) Owner(_ context.Context, a *Attempt) error {
	a.Identity = config.Identity{Login: "user", Local: "user", Domain: "example.com"}
	return nil
}

// Wrong passwords under any of his names count against the owner's account.
func TestWrongPasswordsCountForTheOwner(t *testing.T) {
	f := start(t, owned{rejecting(upstream.Miss)})
	p := f.connect(imapPlain)
	p.send("t LOGIN other guess\r\n")
	p.expect("t NO [AUTHENTICATIONFAILED]")
	f.failures.mu.Lock()
	r := f.failures.accounts.get("user@example.com")
	f.failures.mu.Unlock()
	if r == nil || len(r.failures) != 1 {
		t.Fatalf("%+v", r)
	}
	for i := range accountPenalty.max {
		f.failures.fail(attempt("127.0.0.1", "user", string(rune('a'+i))))
	}
	p.send("t LOGIN other another\r\n")
	p.expect("t NO [LIMIT]")
}
