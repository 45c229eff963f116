package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

func TestNotOurs(t *testing.T) {
	w := newWorld(t)
	for _, login := range []string{"anna@elsewhere.example", "", "@example.com"} {
		a := &Attempt{Protocol: config.IMAP, Login: login, Password: config.NewSecret(password)}
		a.Identity = resolve(w.cfg, a)
		if got := w.result(w.broker.Login(w.ctx, a)); got != "miss" {
			t.Errorf("%q: %s", login, got)
		}
	}
	if w.target.count()+w.source.count() != 0 {
		t.Error("a server was asked")
	}
}

// unreachable gives a server that nobody listens for.
func unreachable(t *testing.T) *config.Server {
	s := startServer(t, "gone", config.IMAP, "yes")
	cfg := s.config()
	cfg.Address[0].Port = 1 // tcpmux: reserved, refused
	return cfg
}

// A server that cannot be reached is not a wrong password, and creates nothing.
func TestUnreachableIsNotUnknown(t *testing.T) {
	t.Run("target", func(t *testing.T) {
		w := newWorld(t, func(c *config.Config) { c.Domains[0].Target.IMAP = unreachable(t) })
		if got := w.login(config.IMAP); got != "unavailable" {
			t.Error(got)
		}
		if _, state := w.account(); state != "unknown" || w.source.count() != 0 {
			t.Errorf("%s, the source was asked %d times", state, w.source.count())
		}
	})
	t.Run("source", func(t *testing.T) {
		w := newWorld(t, func(c *config.Config) { c.Domains[0].Source.IMAP = unreachable(t) })
		if got := w.login(config.IMAP); got != "unavailable!" {
			t.Error(got)
		}
		if _, state := w.account(); state != "unknown" {
			t.Error(state)
		}
		w.target.set("yes")
		if got := w.login(config.IMAP); got != "target" {
			t.Errorf("a user of the target got %s", got)
		}
	})
}

// A phone opens five connections at once: one account, and each parked.
func TestFiveFirstLoginsBeginOnce(t *testing.T) {
	w := newWorld(t)
	results := make([]string, 5)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = w.login(config.IMAP) })
	}
	wg.Wait()
	for _, r := range results {
		if r != "park" {
			t.Errorf("results %v", results)
		}
	}
	if a, state := w.account(); state != "provisioning" || a.PasswordVersion != 1 {
		t.Errorf("%s, %d passwords", state, a.PasswordVersion)
	}
}

// An account that flips while the servers answer is decided by its new state:
// the source's password must not open the source, and the target's is right
// although the source does not know it.
func TestStateIsReadAgainAfterTheAnswers(t *testing.T) {
	for _, tt := range []struct{ source, target, want string }{
		{"yes", "miss", "miss"}, {"miss", "yes", "target"}, {"unavailable", "yes", "target"},
	} {
		w := newWorld(t)
		w.put("copying", "created", store.NewAccount{Mode: config.ModeAccounts})
		w.source.set(tt.source)
		w.target.set(tt.target)
		w.source.change = func() {
			c, err := w.store.ClaimNext(w.ctx, "test", time.Minute)
			if err == nil {
				err = c.Flip(w.ctx, store.Active, c.Account.PasswordVersion, time.Time{})
			}
			if err != nil {
				t.Error(err)
			}
		}
		if got := w.login(config.IMAP); got != tt.want || w.target.count() != 1 {
			t.Errorf("source %s: %s, target asked %d times", tt.source, got, w.target.count())
		}
	}
}

// The same for native: it is written only where there is no row.
func TestNativeIsNotWrittenOverAnotherState(t *testing.T) {
	w := newWorld(t)
	w.target.set("yes")
	w.target.change = func() {
		_, err := w.store.Exclude(w.ctx, annasIdentity)
		if err != nil {
			t.Error(err)
		}
	}
	if got := w.login(config.IMAP); got != "source" {
		t.Error(got)
	}
	if _, state := w.account(); state != "excluded" {
		t.Error(state)
	}
}

func TestAdopt(t *testing.T) {
	for _, tt := range []struct{ source, want, state string }{
		{"yes", "target", "copying"}, {"miss", "target", "native"}, {"unavailable", "unavailable", "unknown"},
	} {
		w := newWorld(t, func(c *config.Config) { c.Domains[0].Adopt = true })
		w.target.set("yes")
		w.source.set(tt.source)
		if got := w.login(config.IMAP); got != tt.want {
			t.Errorf("source %s: %s", tt.source, got)
		}
		a, state := w.account()
		if state != tt.state || state == "copying" && a.Origin != store.OriginAdopted {
			t.Errorf("source %s: %s, origin %s", tt.source, state, a.Origin)
		}
	}
}

// A new password of an account that is being moved is kept, and only a right one.
func TestNewPasswordIsSealed(t *testing.T) {
	for _, state := range []string{"provisioning", "copying", "failed", "waiting"} {
		w := newWorld(t)
		w.put(state, map[bool]string{true: "-", false: "created"}[state == "provisioning"],
			store.NewAccount{Mode: config.ModeAccounts, Password: config.NewSecret("the old one")})
		w.source.set("miss")
		if got := w.login(config.IMAP); got != "miss" {
			t.Errorf("%s: %s", state, got)
		}
		a, _ := w.account()
		if a.PasswordVersion != 1 {
			t.Errorf("%s: a wrong password was sealed", state)
		}
		w.source.set("yes")
		for range 2 {
			if got := w.login(config.IMAP); got != "park" {
				t.Errorf("%s: %s", state, got)
			}
		}
		a, now := w.account()
		kept, version, err := w.store.Password(w.ctx, a.ID, store.SideSource)
		if err != nil || version != 2 || kept.Reveal() != password {
			t.Errorf("%s: version %d, %v", state, version, err)
		}
		if now == "failed" || now == "waiting" {
			t.Errorf("%s: the work was not begun again", state)
		}
	}
}

// After parking.max without progress the user gets his old mailbox back.
func TestStoppedAccountsGoBackToTheSource(t *testing.T) {
	w := newWorld(t)
	w.put("failed", "created", store.NewAccount{Mode: config.ModeAccounts})
	w.broker.now = func() time.Time { return time.Now().Add(61 * time.Minute) }
	if got := w.login(config.IMAP); got != "source" {
		t.Error(got)
	}
	w.source.set("miss")
	if got := w.login(config.IMAP); got != "miss" {
		t.Error(got)
	}
}

// A retry of what has not worked for long does not take the old mailbox away
// again; who has only waited for his turn is not sent back.
func TestRetriesLeaveSessionsOnTheSource(t *testing.T) {
	w := newWorld(t)
	w.put("copying", "created", store.NewAccount{Mode: config.ModeAccounts})
	w.broker.now = func() time.Time { return time.Now().Add(61 * time.Minute) }
	if got := w.login(config.IMAP); got != "park" {
		t.Errorf("one who waits for his turn: %s", got)
	}
	w.check(w.claim().Release(w.ctx, store.Waiting, "for the test", time.Now(), true))
	session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
	w.check(err)
	defer session.Conn.Close()
	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	c := w.claim()
	if seen := <-changes; seen.State != store.Copying || c.Account.State != store.Copying {
		t.Fatalf("the retry is %s", seen.State)
	}
	changed := w.attempt(config.IMAP)
	changed.Password = config.NewSecret("a new one")
	if got := w.result(w.broker.Login(w.ctx, changed)); got != "source" {
		t.Errorf("during a retry: %s", got)
	}
	if a, _ := w.account(); a.PasswordVersion != 2 {
		t.Error("the new password was not kept")
	}
	if got := w.result(session, nil); got != "source" {
		t.Errorf("the session is on %s", got)
	}
}

// In mode passwords the login waits for the worker, and the target has the
// last word about the password.
func TestModePasswords(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Domains[0].Mode = config.ModePasswords })
	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	got := make(chan string, 1)
	go func() { got <- w.login(config.IMAP) }()
	if c := <-changes; c.State != store.Provisioning {
		t.Fatal(c.State)
	}
	c := w.claim()
	if c.Account.Mode != config.ModePasswords {
		t.Error(c.Account.Mode)
	}
	w.target.set("yes")
	w.check(c.SetOrigin(w.ctx, store.OriginCreated))
	w.check(c.Flip(w.ctx, store.Finished, 1, time.Time{}))
	if r := <-got; r != "target" || w.target.count() != 2 {
		t.Errorf("%s, target asked %d times", r, w.target.count())
	}
}

func TestModePasswordsGivesUp(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Domains[0].Mode = config.ModePasswords })
	ctx, cancel := context.WithCancel(w.ctx)
	changes, unsubscribe := w.store.Subscribe(false)
	defer unsubscribe()
	got := make(chan string, 1)
	go func() { got <- w.result(w.broker.Login(ctx, w.attempt(config.IMAP))) }()
	<-changes
	cancel()
	if r := <-got; r != "held" && r != "unavailable" {
		t.Error(r)
	}
	// A worker that failed is not waited for, and its account not parked.
	c := w.claim()
	w.check(c.Release(w.ctx, store.Failed, "for the test", time.Time{}, true))
	if r := w.login(config.IMAP); r != "held" {
		t.Error(r)
	}
}

func TestPOP3(t *testing.T) {
	w := newWorld(t)
	// Neither server has POP3: IMAP answers who it is, and parking needs no more.
	if got := w.login(config.POP3); got != "held" {
		t.Error(got)
	}
	if _, state := w.account(); state != "provisioning" {
		t.Error(state)
	}
	w.target.idle()
	w.source.idle()

	w = newWorld(t)
	w.target.set("yes")
	if got := w.login(config.POP3); got != "unavailable" {
		t.Errorf("relayed over a protocol that the target lacks: %s", got)
	}

	pop := startServer(t, "pop3target", config.POP3, "yes")
	w = newWorld(t, func(c *config.Config) { c.Domains[0].Target.POP3 = pop.config() })
	if got := w.login(config.POP3); got != "pop3target" || w.target.count() != 0 {
		t.Error(got)
	}
}

func TestHold(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Domains[0].Parking.Mode = config.ParkHold })
	for range 2 {
		_, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
		if upstream.OutcomeOf(err) != upstream.Held || !errors.Is(err, errRightPassword) {
			t.Error(err)
		}
	}
	if _, state := w.account(); state != "provisioning" {
		t.Error(state)
	}
}

// Somebody who logs in for anna with a password of his own.
func TestDelegatedLogin(t *testing.T) {
	w := newWorld(t, func(c *config.Config) {
		other := c.Domains[0]
		other.Name = "other.example"
		c.Domains = append(c.Domains, other)
	})
	a := &Attempt{Protocol: config.IMAP, Login: "boss@example.com", Authzid: anna, Password: config.NewSecret(password)}
	a.Identity = resolve(w.cfg, a)
	if got := w.result(w.broker.Login(w.ctx, a)); got != "source" {
		t.Error(got)
	}
	if !slices.Equal(w.source.authz, []string{anna}) {
		t.Errorf("the source got the authorisation identities %q", w.source.authz)
	}
	if list, err := w.store.Accounts(w.ctx, "", "", 1); err != nil || len(list) != 0 {
		t.Errorf("written: %v, %v", list, err)
	}
	w.put("copying", "created", store.NewAccount{Mode: config.ModeAccounts})
	if _, err := w.broker.Login(w.ctx, a); upstream.OutcomeOf(err) != upstream.Held || errors.Is(err, errRightPassword) {
		t.Error(err)
	}
	if acc, _ := w.account(); acc.PasswordVersion != 1 {
		t.Error("another's password was sealed for anna")
	}
	// A password of one domain is shown to no server of another.
	w.target.recount()
	w.source.recount()
	for _, authzid := range []string{"anna@elsewhere.example", "anna@other.example"} {
		a.Authzid = authzid
		if got := w.result(w.broker.Login(w.ctx, a)); got != "miss" || w.target.count()+w.source.count() != 0 {
			t.Errorf("%s: %s", authzid, got)
		}
	}
	// One's own address is no other identity.
	a = w.attempt(config.IMAP)
	a.Authzid = "ANNA@Example.com"
	if got := w.result(w.broker.Login(w.ctx, a)); got != "park" {
		t.Error(got)
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.login(config.IMAP)
	w.login(config.IMAP)
	w.source.set("miss")
	b := &Attempt{Protocol: config.IMAP, Login: "nobody@example.com", Password: config.NewSecret(password)}
	b.Identity = resolve(w.cfg, b)
	w.result(w.broker.Login(w.ctx, b))
	events, err := w.store.Events(w.ctx, "", 0, 1000)
	w.check(err)
	var got []string
	for _, e := range events {
		got = append(got, e.Address+": "+e.Text)
		if strings.Contains(e.Text, password) || strings.Contains(e.Text, "secret of") {
			t.Error(e.Text)
		}
	}
	old := fmt.Sprintf("127.0.0.1:%d", w.source.address.Port)
	want := []string{
		anna + ": Checking '" + anna + "' on the remote server '" + old + "'...",
		anna + ": Account already being migrated",
		"nobody@example.com: Checking 'nobody@example.com' on the remote server '" + old + "'...",
		"nobody@example.com: 'nobody@example.com' not found on the remote server",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A session on the source ends when the account has moved; one on the target
// of another account does not.
func TestFlipEndsSessionsOnTheSource(t *testing.T) {
	w := newWorld(t)
	w.put("failed", "created", store.NewAccount{Mode: config.ModeAccounts})
	w.broker.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
	w.check(err)
	defer session.Conn.Close()
	_, err = w.store.Retry(w.ctx, anna)
	w.check(err)
	w.check(w.claim().Flip(w.ctx, store.Active, 1, time.Time{}))
	if _, err := session.Reader.ReadByte(); err == nil {
		t.Error("the source went on talking")
	}
	if len(w.broker.watches.byAddress) != 0 {
		t.Error("the watch was kept")
	}
}

// A session on the source ends when the account's turn to move has come, so that
// its client comes back and is parked.
func TestBeginEndsSessionsOnTheSource(t *testing.T) {
	for _, state := range []string{"unknown", "at_source"} {
		w := newWorld(t)
		w.put(state, "-", store.NewAccount{})
		w.check(w.store.SetActive(w.ctx, "example.com", false))
		if state == "unknown" {
			w.target.set("unavailable") // the one way to the source that writes nothing
		}
		session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
		w.check(err)
		defer session.Conn.Close()
		if session.Server == parkedServer {
			t.Fatal("parked")
		}
		w.check(session.Conn.SetReadDeadline(time.Now().Add(patience)))
		w.check(w.store.SetActive(w.ctx, "example.com", true))
		w.target.set("miss")
		if got := w.login(config.IMAP); got != "park" {
			t.Fatal(got)
		}
		if _, err := session.Reader.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the session on the source went on: %v", err)
		}
	}
}

// An account may flip after the decision and before anybody listens for it.
func TestFlipBetweenDecisionAndSession(t *testing.T) {
	for name, finish := range map[string]func(*login, context.Context) (*upstream.Session, error){
		"relay to the source": (*login).relayToSource,
		"park":                (*login).parkNow,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put("copying", "created", store.NewAccount{Mode: config.ModeAccounts})
			l, err := w.broker.newLogin(w.ctx, w.attempt(config.IMAP))
			w.check(err)
			defer l.discard()
			w.check(l.read(w.ctx))
			l.facts.source = l.ask(w.ctx, l.source)
			w.check(w.claim().Flip(w.ctx, store.Active, 1, time.Time{}))
			session, err := finish(l, w.ctx)
			if err != nil || session != nil {
				t.Fatalf("%v %v", session, err)
			}
			if v := decide(l.facts); v.action != actAskTarget {
				t.Errorf("then %+v", v)
			}
			if len(w.broker.watches.parked()) != 0 {
				t.Error("the watch was kept")
			}
		})
	}
}
