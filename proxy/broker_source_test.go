package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

func parkAtSource(c *config.Config) { c.Domains[0].Parking.Mode = config.ParkSource }

// newSourceWorld is a world whose users work on the source until the flip, which
// waits only for a moment of silence.
func newSourceWorld(t *testing.T, change ...func(*config.Config)) *world {
	t.Helper()
	w := newWorld(t, append(change, parkAtSource)...)
	w.broker.sources.quiet = 20 * time.Millisecond
	w.broker.sources.quietLost = 40 * time.Millisecond
	return w
}

// moving puts anna's account into the copy and gives the claim on it.
func (w *world) moving() *store.Claim {
	w.t.Helper()
	w.put("copying", "created", store.NewAccount{Mode: config.ModeAccounts})
	return w.claim()
}

// hold asks for the account's sessions to be closed, as the worker does, and waits
// until they are.
func (w *world) hold(c *store.Claim) {
	w.t.Helper()
	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	w.check(c.BeginFlip(w.ctx))
	for {
		if change := receive(w.t, changes); change.Flipping == store.FlipHeld {
			return
		}
	}
}

// until waits for what another goroutine is about to do.
func (w *world) until(what string, true func() bool) {
	w.t.Helper()
	for !true() {
		if w.ctx.Err() != nil {
			w.t.Fatalf("waited in vain until %s", what)
		}
		runtime.Gosched()
	}
}

// waiting waits until as many watches of anna's account are there.
func (w *world) waiting(n int) {
	w.t.Helper()
	w.until(fmt.Sprintf("%d logins wait", n), func() bool {
		w.broker.watches.mu.Lock()
		defer w.broker.watches.mu.Unlock()
		return len(w.broker.watches.byAddress[anna]) == n
	})
}

// logins begins logins and gives their results as they come.
func (w *world) logins(attempts ...*Attempt) <-chan string {
	got := make(chan string, len(attempts))
	for _, a := range attempts {
		go func() {
			session, err := w.broker.Login(w.ctx, a)
			got <- w.result(session, err)
		}()
	}
	return got
}

// Logins that meet a flip wait, without asking anybody, and end where the account
// is when it is over.
func TestHeldLoginsEndWhereTheAccountIs(t *testing.T) {
	for _, tt := range []struct {
		name, want, delegate string
		end                  func(w *world, c *store.Claim) error
	}{
		{"flipped", "target", "target", func(w *world, c *store.Claim) error { return c.Flip(w.ctx, store.Active, 1, time.Time{}) }},
		{"taken back", "source", "source", func(w *world, c *store.Claim) error { return c.EndFlip(w.ctx) }},
		{"stopped", "source", "source", func(w *world, c *store.Claim) error {
			return c.Release(w.ctx, store.Waiting, "for the test", time.Time{}, true)
		}},
		{"excluded", "source", "source", func(w *world, c *store.Claim) error {
			_, err := w.store.Exclude(w.ctx, annasIdentity)
			return err
		}},
		{"domain finished", "target", "target", func(w *world, c *store.Claim) error {
			w.finish()
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newSourceWorld(t)
			c := w.moving()
			w.hold(c)
			w.target.set("yes")
			delegate := w.attempt(config.IMAP)
			delegate.Authzid, delegate.Login = anna, "boss@example.com"
			delegate.Identity = resolve(w.cfg, delegate)
			own, others := w.logins(w.attempt(config.IMAP), w.attempt(config.IMAP), w.attempt(config.IMAP)), w.logins(delegate)
			w.waiting(4)
			if n := w.source.count() + w.target.count(); n != 0 {
				t.Errorf("%d servers were asked", n)
			}
			w.check(tt.end(w, c))
			for range 3 {
				if got := receive(t, own); got != tt.want {
					t.Error(got)
				}
			}
			if got := receive(t, others); got != tt.delegate {
				t.Errorf("a delegate: %s", got)
			}
			if n := metric(t, w.reg, "migproxy_login_held_seconds"); n != 4 || delegate.held == 0 {
				t.Errorf("%v held logins were counted, one for %v", n, delegate.held)
			}
			w.waiting(0)
		})
	}
}

// A login waits no longer than its client does, and hears then what no client takes
// for a wrong password. That it had proved its own is remembered.
func TestHeldLoginGivesUp(t *testing.T) {
	w := newSourceWorld(t)
	w.broker.awaitFor = 10 * time.Millisecond
	w.hold(w.moving())
	if _, err := w.broker.Login(w.ctx, w.attempt(config.IMAP)); upstream.OutcomeOf(err) != upstream.Held || errors.Is(err, errRightPassword) {
		t.Error(err)
	}
	if n := w.source.count() + w.target.count(); n != 0 {
		t.Errorf("%d servers were asked", n)
	}

	w = newSourceWorld(t)
	w.broker.awaitFor = 10 * time.Millisecond
	c := w.moving()
	// Another process holds it, of whose flip this one knows nothing.
	w.broker.sources.hold = func(context.Context, int64) (bool, error) { return false, nil }
	w.source.change = func() {
		w.check(c.BeginFlip(w.ctx))
		held, err := w.store.Hold(w.ctx, c.Account.ID)
		if err != nil || !held {
			t.Errorf("%v, %v", held, err)
		}
	}
	if _, err := w.broker.Login(w.ctx, w.attempt(config.IMAP)); upstream.OutcomeOf(err) != upstream.Held || !errors.Is(err, errRightPassword) {
		t.Error(err)
	}
	w.source.idle() // nothing of it is kept open on the source

	w = newSourceWorld(t)
	w.hold(w.moving())
	ctx, cancel := context.WithCancel(w.ctx)
	gone := make(chan error, 1)
	go func() {
		_, err := w.broker.Login(ctx, w.attempt(config.IMAP))
		gone <- err
	}()
	w.waiting(1)
	cancel()
	if err := receive(t, gone); err == nil {
		t.Error("logged in")
	}
	w.waiting(0)
}

// What the servers said before a login was held counts no more.
func TestHeldLoginAsksAgain(t *testing.T) {
	for _, tt := range []struct {
		source, target, want string
		flip                 bool
	}{
		{"miss", "yes", "target", true}, {"yes", "miss", "miss", true}, {"miss", "yes", "miss", false},
	} {
		w := newSourceWorld(t)
		c := w.moving()
		w.broker.sources.hold = func(context.Context, int64) (bool, error) { return false, nil } // another process does it
		w.source.change = func() {
			w.check(c.BeginFlip(w.ctx))
			_, err := w.store.Hold(w.ctx, c.Account.ID)
			w.check(err)
		}
		got := w.logins(w.attempt(config.IMAP))
		w.waiting(1)
		w.source.idle()
		w.source.set(tt.source)
		w.target.set(tt.target)
		if tt.flip {
			w.check(c.Flip(w.ctx, store.Active, 1, time.Time{}))
		} else {
			w.check(c.EndFlip(w.ctx))
		}
		if r := receive(t, got); r != tt.want {
			t.Errorf("%+v: %s", tt, r)
		}
	}
}

// An account may be held after the decision and before anybody listens for it, and
// its flip may end before anybody waits for that.
func TestHoldBetweenDecisionAndSession(t *testing.T) {
	w := newSourceWorld(t)
	c := w.moving()
	l, err := w.broker.newLogin(w.ctx, w.attempt(config.IMAP))
	w.check(err)
	defer l.discard()
	w.check(l.read(w.ctx))
	w.check(l.askTheSource(w.ctx))
	w.broker.cancel() // no change is heard of
	w.check(c.BeginFlip(w.ctx))
	_, err = w.store.Hold(w.ctx, c.Account.ID)
	w.check(err)
	if session, err := l.relayToSource(w.ctx); err != nil || session != nil {
		t.Fatalf("%v %v", session, err)
	}
	w.source.idle()
	if v := decide(l.facts); v.action != actAwait {
		t.Errorf("then %+v", v)
	}
	w.check(c.Flip(w.ctx, store.Active, 1, time.Time{}))
	w.broker.awaitFor = time.Hour
	w.check(l.awaitFlip(w.ctx))
	if v := decide(l.facts); v.action != actAskTarget {
		t.Errorf("then %+v", v)
	}
	w.waiting(0)
}

// A session on the source stays there when its account begins to move, and until
// the flip.
func TestSessionsStayOnTheSourceUntilTheFlip(t *testing.T) {
	for _, state := range []string{"unknown", "at_source", "conflict", "failed"} {
		t.Run(state, func(t *testing.T) {
			w := newSourceWorld(t)
			w.put(state, "-", store.NewAccount{Mode: config.ModeAccounts})
			w.check(w.store.SetActive(w.ctx, "example.com", false))
			if state == "unknown" {
				w.target.set("unavailable") // the one way to the source that writes nothing
			}
			session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
			w.check(err)
			defer session.Conn.Close()
			w.check(session.Conn.SetReadDeadline(time.Now().Add(patience)))
			w.check(w.store.SetActive(w.ctx, "example.com", true))
			w.target.set("miss")
			if state == "conflict" || state == "failed" {
				_, err := w.store.Retry(w.ctx, anna)
				w.check(err)
			}
			if got := w.login(config.IMAP); got != "source" {
				t.Fatal(got)
			}
			c := w.claim()
			w.check(c.SetOrigin(w.ctx, store.OriginCreated))
			p := &parkedLine{t, session}
			if got := p.do("NOOP"); got != "a OK source" {
				t.Error(got)
			}
			w.hold(c)
			if got := p.line(); got != strings.TrimSpace(byeMoved) {
				t.Error(got)
			}
			w.source.idle()
			w.check(c.Flip(w.ctx, store.Active, c.Account.PasswordVersion, time.Time{}))
			w.target.set("yes")
			if got := w.login(config.IMAP); got != "target" {
				t.Error(got)
			}
		})
	}
}

// A session on the source ends at once when its account lives on the target without
// a flip.
func TestAdoptionEndsSessionsOnTheSource(t *testing.T) {
	w := newSourceWorld(t)
	w.put("at_source", "-", store.NewAccount{})
	w.check(w.store.SetActive(w.ctx, "example.com", false))
	session, err := w.broker.Login(w.ctx, w.attempt(config.IMAP))
	w.check(err)
	defer session.Conn.Close()
	w.check(session.Conn.SetReadDeadline(time.Now().Add(patience)))
	w.begin(store.NewAccount{Mode: config.ModeAccounts, Adopt: true})
	if got := (&parkedLine{t, session}).line(); got != strings.TrimSpace(byeMoved) {
		t.Error(got)
	}
	w.source.idle()
}

// Where only a password moves nobody works on the source meanwhile.
func TestModePasswordsIsNotParkedAtSource(t *testing.T) {
	w := newSourceWorld(t, func(c *config.Config) { c.Domains[0].Mode = config.ModePasswords })
	got := w.logins(w.attempt(config.IMAP))
	w.waiting(1)
	w.target.set("yes")
	c := w.claim()
	w.check(c.SetOrigin(w.ctx, store.OriginCreated))
	w.check(c.Flip(w.ctx, store.Finished, 1, time.Time{}))
	if r := receive(t, got); r != "target" {
		t.Error(r)
	}
}

// A new password is sealed, and begins stopped work again, as when parked.
func TestNewPasswordIsSealedAtTheSource(t *testing.T) {
	for _, state := range []string{"provisioning", "copying", "failed", "waiting"} {
		w := newSourceWorld(t)
		w.put(state, map[bool]string{true: "-", false: "created"}[state == "provisioning"],
			store.NewAccount{Mode: config.ModeAccounts, Password: config.NewSecret("the old one")})
		for range 2 {
			if got := w.login(config.IMAP); got != "source" {
				t.Errorf("%s: %s", state, got)
			}
		}
		a, now := w.account()
		if kept, version, err := w.store.Password(w.ctx, a.ID, store.SideSource); err != nil || version != 2 || kept.Reveal() != password {
			t.Errorf("%s: version %d, %v", state, version, err)
		}
		if now == "failed" || now == "waiting" {
			t.Errorf("%s: the work was not begun again", state)
		}
	}
}

// A login that asks the source when the flip begins is there before the flip, and
// one that comes while the account is being held asks nobody.
func TestLoginsRaceWithTheFlip(t *testing.T) {
	w := newSourceWorld(t)
	c := w.moving()
	var early <-chan string
	flipping := func() bool {
		s := w.broker.sources
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.byAddress[anna].flip != nil
	}
	w.broker.sources.hold = func(ctx context.Context, id int64) (bool, error) {
		if n := w.source.count(); n != 1 {
			t.Errorf("the source was asked %d times before the flip", n)
		}
		w.source.idle()
		late := w.attempt(config.IMAP)
		early = w.logins(late) // waits for what is decided here
		return w.store.Hold(ctx, id)
	}
	w.source.change = func() {
		w.check(c.BeginFlip(w.ctx))
		w.until("the flip has begun", flipping)
	}
	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	if got := w.login(config.IMAP); got != "source" {
		t.Error(got)
	}
	for receive(t, changes).Flipping != store.FlipHeld {
	}
	w.waiting(1)
	w.target.set("yes")
	w.check(c.Flip(w.ctx, store.Active, 1, time.Time{}))
	if got := receive(t, early); got != "target" {
		t.Error(got)
	}
	if n := w.source.count(); n != 1 {
		t.Errorf("the source was asked %d times", n)
	}
}

// However logins, commands and flips meet: from the moment at which the account is
// held until its flip is over the source hears nothing, and no command that reached
// it goes unanswered.
func TestNothingReachesTheSourceWhileHeld(t *testing.T) {
	pop := startServer(t, "popsource", config.POP3, "yes")
	w := newSourceWorld(t, func(c *config.Config) { c.Domains[0].Source.POP3 = pop.config() })
	w.broker.sources.quiet = time.Millisecond
	c := w.moving()
	var held atomic.Bool
	var commands, answered atomic.Int64
	for _, s := range []*testServer{w.source, pop} {
		s.show(func(out io.Writer, line string) bool {
			if held.Load() {
				t.Errorf("the source got %q", line)
			}
			commands.Add(1)
			return false
		})
	}
	w.broker.sources.hold = func(ctx context.Context, id int64) (bool, error) {
		ok, err := w.store.Hold(ctx, id)
		if ok {
			held.Store(true)
		}
		return ok, err
	}
	f := start(t, w.broker)
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for i := range 6 {
		clients.Go(func() {
			for turn := 0; ; turn++ {
				select {
				case <-stop:
					return
				default:
				}
				if i%3 == 2 {
					answered.Add(popClient(f, turn))
				} else {
					answered.Add(imapClient(f, turn))
				}
			}
		})
	}
	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	for range 10 {
		before := w.source.count() + pop.count()
		w.check(c.BeginFlip(w.ctx))
		for receive(t, changes).Flipping != store.FlipHeld {
		}
		w.source.idle()
		pop.idle()
		w.until("a login waits", func() bool {
			w.broker.watches.mu.Lock()
			defer w.broker.watches.mu.Unlock()
			return len(w.broker.watches.byAddress[anna]) > 0
		})
		held.Store(false)
		w.check(c.EndFlip(w.ctx))
		w.until("somebody is on the source", func() bool { return w.source.count()+pop.count() > before })
	}
	close(stop)
	clients.Wait()
	if commands.Load() != answered.Load() || answered.Load() == 0 {
		t.Errorf("%d commands reached the source, %d were answered", commands.Load(), answered.Load())
	}
}

// imapClient logs in, sends a few commands, each after the last one's answer, and
// stays a while if the turn says so. It returns how many were answered.
func imapClient(f *fixture, turn int) (answered int64) {
	p := f.connect(imapPlain)
	defer p.Close()
	fmt.Fprintf(p, "t LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(anna), anna, len(password), password)
	if line, _ := p.r.ReadString('\n'); !strings.HasPrefix(line, "t OK") {
		return 0
	}
	for n := range turn%4 + 1 {
		fmt.Fprintf(p, "c%d NOOP\r\n", n)
		line, _ := p.r.ReadString('\n')
		if !strings.HasPrefix(line, fmt.Sprintf("c%d OK", n)) {
			return answered
		}
		answered++
	}
	if turn%2 == 0 {
		p.r.ReadString('\n') // until the flip
	}
	return answered
}

func popClient(f *fixture, turn int) (answered int64) {
	p := f.connect(pop3Plain)
	defer p.Close()
	fmt.Fprintf(p, "USER %s\r\nPASS %s\r\n", anna, password)
	p.r.ReadString('\n')
	if line, _ := p.r.ReadString('\n'); !strings.HasPrefix(line, "+OK") {
		return 0
	}
	for range turn%4 + 1 {
		io.WriteString(p, "NOOP\r\n")
		if line, _ := p.r.ReadString('\n'); !strings.HasPrefix(line, "+OK") {
			return answered
		}
		answered++
	}
	if turn%2 == 0 {
		p.r.ReadString('\n')
	}
	return answered
}

// What mail clients see of a flip: one that waits in IDLE and one that appends, in
// the middle of its literal and then with a slow server, are let finish and then
// sent away with words that make them come back; one of POP3 is closed. The next
// login, which comes at once, is on the target.
func TestClientsSeeAFlip(t *testing.T) {
	pops := startServer(t, "popsource", config.POP3, "yes")
	popt := startServer(t, "poptarget", config.POP3, "yes")
	w := newSourceWorld(t, func(c *config.Config) {
		c.Domains[0].Source.POP3, c.Domains[0].Target.POP3 = pops.config(), popt.config()
	})
	core, logs := observer.New(zap.InfoLevel)
	w.broker.sources.log = zap.New(core)
	answer := make(chan bool)
	w.source.show(func(c io.Writer, line string) bool {
		switch {
		case strings.Contains(line, "IDLE"):
			io.WriteString(c, "+ idling\r\n")
		case strings.Contains(line, "APPEND"):
			io.WriteString(c, "+ go\r\n")
		case strings.HasPrefix(line, "mail"):
			<-answer
			io.WriteString(c, "b OK appended\r\n")
		default:
			return false
		}
		return true
	})
	f := start(t, w.broker)
	client := func(listener int) *peer {
		p := f.connect(listener)
		if listener == pop3TLS {
			fmt.Fprintf(p, "USER %s\r\nPASS %s\r\n", anna, password)
			p.expect("+OK")
			p.expect("+OK")
			return p
		}
		fmt.Fprintf(p, "t LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(anna), anna, len(password), password)
		p.expect("t OK")
		return p
	}
	c := w.moving()
	idling, appending, pop := client(imapTLS), client(imapPlain), client(pop3TLS)
	idling.send("a IDLE\r\n")
	idling.expect("+ idling")
	pop.send("STAT\r\n")
	pop.expect("+OK")
	appending.send("b APPEND Sent {4}\r\n")
	appending.expect("+ go")

	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	w.check(c.BeginFlip(w.ctx))
	// That nothing happens cannot be awaited. Whether it could was tried elsewhere.
	appending.send("mail\r\n")
	answer <- true
	appending.expect("b OK")
	for receive(t, changes).Flipping != store.FlipHeld {
	}
	for _, p := range []*peer{idling, appending} {
		p.exactly(byeMoved)
		p.send("x NOOP\r\n")
		if rest := p.rest(); rest != "" {
			t.Errorf("then %q", rest)
		}
		p.Close()
	}
	if rest := pop.rest(); rest != "" {
		t.Errorf("the POP3 client got %q", rest)
	}
	pop.Close()
	w.source.idle()
	pops.idle()
	asked := w.source.count() + pops.count()
	w.target.set("yes")
	again := make(chan *peer, 2)
	for _, listener := range []int{imapTLS, pop3TLS} {
		go func() { again <- client(listener) }()
	}
	w.waiting(2)
	w.check(c.Flip(w.ctx, store.Active, 1, time.Time{}))
	for range 2 {
		receive(t, again).send("a NOOP\r\n")
	}
	if n := w.source.count() + pops.count(); n != asked {
		t.Errorf("the source was asked %d times more", n-asked)
	}
	closed := logs.FilterMessage("sessions on the source were closed for the flip").All()
	if len(closed) != 1 || closed[0].ContextMap()["sessions"] != int64(3) || closed[0].ContextMap()["account"] != anna {
		t.Errorf("logged %v", closed)
	}
}
