package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"migproxy/config"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	anna     = "anna@example.com"
	password = "hunter2 \" geheim"
)

var annasIdentity = config.Identity{Login: anna, Local: "anna", Domain: "example.com"}

// world is a Broker with a real store between two tiny servers.
type world struct {
	t              *testing.T
	cfg            *config.Config
	store          *store.Store
	source, target *testServer
	broker         *Broker
	ctx            context.Context
	id             config.Identity // who logs in
}

func newWorld(t *testing.T, change ...func(*config.Config)) *world {
	t.Helper()
	w := &world{t: t, id: annasIdentity, source: startServer(t, "source", config.IMAP, "yes"), target: startServer(t, "target", config.IMAP, "miss")}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	w.ctx = ctx
	dir := t.TempDir()
	w.cfg = &config.Config{Hostname: "mail.example.com", DefaultDomain: "example.com",
		State: config.State{URL: "sqlite://" + filepath.Join(dir, "db"), KeyFile: filepath.Join(dir, "key")},
		Domains: []config.Domain{{Name: "example.com", Mode: config.ModeAccounts, Wave: config.Wave{Include: []string{"*"}},
			Source:  config.Source{IMAP: w.source.config()},
			Target:  config.Target{IMAP: w.target.config()},
			Parking: config.Parking{Mode: config.ParkNotice, Max: config.Duration(time.Hour)}}}}
	for _, c := range change {
		c(w.cfg)
	}
	log := zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
	var err error
	if w.store, err = store.Open(ctx, w.cfg.State, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if _, err := w.store.SeedActive(ctx, "example.com", true); err != nil {
		t.Fatal(err)
	}
	domains, err := upstream.Domains(w.cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	w.broker, err = NewBroker(BrokerOptions{Config: w.cfg, Store: w.store, Domains: domains, Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.broker.Close)
	return w
}

func (w *world) attempt(p config.Protocol) *Attempt {
	a := &Attempt{Protocol: p, Login: w.id.Login, Password: config.NewSecret(password)}
	a.Identity = resolve(w.cfg, a)
	return a
}

// login logs in and closes the session again. result is the server that
// it led to, or the outcome; a ! as in the table of decisions.
func (w *world) login(p config.Protocol) string {
	w.t.Helper()
	session, err := w.broker.Login(w.ctx, w.attempt(p))
	return w.result(session, err)
}

func (w *world) result(session *upstream.Session, err error) string {
	w.t.Helper()
	if err != nil {
		e, ok := err.(*upstream.Error)
		if !ok {
			w.t.Fatalf("%T: %v", err, err)
		}
		result := e.Outcome.String()
		if e.Outcome != upstream.Miss && failureCounts(err) {
			result += "!"
		}
		return result
	}
	defer session.Conn.Close()
	if session.Server == parkedServer {
		return "park"
	}
	io.WriteString(session.Conn, "x NOOP\r\n")
	line, err := session.Reader.ReadString('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	f := strings.Fields(line)
	return f[len(f)-1]
}

func (w *world) account() (a store.Account, state string) {
	w.t.Helper()
	a, err := w.store.Account(w.ctx, w.id.Address())
	if errors.Is(err, store.ErrNotFound) {
		return a, "unknown"
	}
	w.check(err)
	return a, string(a.State)
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) begin(n store.NewAccount) {
	w.t.Helper()
	n.Identity = w.id
	if n.Password.IsZero() {
		n.Password = config.NewSecret(password)
	}
	_, begun, err := w.store.Begin(w.ctx, n)
	if err != nil || !begun {
		w.t.Fatalf("begun %v, %v", begun, err)
	}
}

func (w *world) claim() *store.Claim {
	w.t.Helper()
	for {
		c, err := w.store.ClaimNext(w.ctx, "test", time.Minute)
		if err != nil || c == nil {
			w.t.Fatalf("nothing is due: %v", err)
		}
		if c.Account.Identity.Address() == w.id.Address() {
			return c
		}
		w.check(c.Release(w.ctx, c.Account.State, "", time.Time{}, false))
	}
}

// put brings the account into a state as the migrator would, by a password
// that anna may have given before.
func (w *world) put(state, origin string, n store.NewAccount) {
	w.t.Helper()
	var err error
	switch store.State(state) {
	case "unknown":
	case store.AtSource, store.Native:
		_, err = w.store.Note(w.ctx, w.id, store.State(state))
	case store.Excluded:
		if origin != "-" {
			w.put("copying", origin, n)
		}
		_, err = w.store.Exclude(w.ctx, w.id)
	default:
		n.Adopt = origin == "adopted"
		w.begin(n)
		if state == "provisioning" && origin == "-" {
			return
		}
		c := w.claim()
		if origin != "-" && !n.Adopt {
			w.check(c.SetOrigin(w.ctx, store.OriginFree))
		}
		if origin == "created" {
			w.check(c.SetOrigin(w.ctx, store.OriginCreated))
		}
		switch store.State(state) {
		case store.Active, store.Finished:
			err = c.Flip(w.ctx, store.State(state), c.Account.PasswordVersion)
		case store.Provisioning, store.Copying:
			err = c.Release(w.ctx, c.Account.State, "", time.Now(), false)
		default:
			err = c.Release(w.ctx, store.State(state), "for the test", time.Time{}, true)
		}
	}
	w.check(err)
	if _, got := w.account(); got != state {
		w.t.Fatalf("the account is %s, not %s", got, state)
	}
}

// TestLoginEverything plays the rows of the design with real connections and a
// real store: what the account is; its origin; in the wave and active;
// what the servers say; how often each was asked (target, source), the result,
// and what the account is afterwards.
func TestLoginEverything(t *testing.T) {
	const table = `
unknown      -       y yes         yes         1 0 target       native
unknown      -       y miss        yes         1 1 park         provisioning
unknown      -       n miss        yes         1 1 source       at_source
unknown      -       y miss        miss        1 1 miss         unknown
unknown      -       y miss        refused     1 1 refused      unknown
unknown      -       y miss        unavailable 1 1 unavailable! unknown
unknown      -       y refused     yes         1 0 refused      unknown
unknown      -       y unavailable yes         1 0 unavailable  unknown
unknown      -       n unavailable yes         1 1 source       unknown
unknown      -       n unavailable miss        1 1 unavailable  unknown
at_source    -       n miss        yes         0 1 source       at_source
at_source    -       y miss        yes         1 1 park         provisioning
at_source    -       y yes         yes         1 1 target       native
at_source    -       y unavailable yes         1 1 source       at_source
at_source    -       n yes         miss        1 1 target       native
at_source    -       n miss        miss        1 1 miss         at_source
at_source    -       y miss        unavailable 0 1 unavailable  at_source
provisioning -       y miss        yes         0 1 park         provisioning
provisioning free    n miss        yes         0 1 park         provisioning
provisioning free    y yes         miss        0 1 miss         provisioning
copying      created y miss        yes         0 1 park         copying
copying      created y yes         miss        0 1 miss         copying
copying      created y yes         unavailable 1 1 park         copying
copying      created y miss        unavailable 1 1 unavailable! copying
copying      created y unavailable unavailable 1 1 unavailable  copying
copying      adopted y yes         yes         1 0 target       copying
copying      adopted y miss        yes         1 0 miss         copying
copying      adopted y unavailable yes         1 0 unavailable  copying
active       created y yes         yes         1 0 target       active
active       created y miss        yes         1 0 miss         active
active       created y unavailable yes         1 0 unavailable  active
finished     created y miss        yes         1 0 miss         finished
native       -       y yes         yes         1 0 target       native
native       -       y miss        yes         1 0 miss         native
failed       created y miss        yes         0 1 park         failed
failed       free    y miss        miss        0 1 miss         failed
failed       adopted y yes         yes         1 0 target       failed
waiting      created y miss        yes         0 1 park         waiting
waiting      created y yes         unavailable 0 1 unavailable  waiting
conflict     -       y yes         yes         0 1 source       conflict
conflict     -       y yes         miss        1 1 target       conflict
conflict     free    y yes         miss        0 1 miss         conflict
conflict     -       y miss        unavailable 0 1 unavailable  conflict
excluded     -       y yes         yes         0 1 source       excluded
excluded     -       y yes         miss        1 1 target       excluded
excluded     created y yes         miss        0 1 miss         excluded
excluded     -       y miss        miss        1 1 miss         excluded
`
	w := newWorld(t, func(c *config.Config) { c.Domains[0].Wave.Exclude = []string{"OUT*@example.com"} })
	row := 0
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		// A domain without a wave and one that is stopped are treated alike.
		ways := []string{"wave"}
		if f[2] == "n" {
			ways = append(ways, "stopped")
		}
		for _, way := range ways {
			t.Run(strings.Join(f[:5], "/")+"/"+way, func(t *testing.T) {
				w.t = t
				w.id.Local = fmt.Sprintf("in%d", row)
				if f[2] == "n" && way == "wave" {
					w.id.Local = fmt.Sprintf("out%d", row)
				}
				row++
				w.id.Login = w.id.Address()
				w.target.recount()
				w.source.recount()
				w.put(f[0], f[1], store.NewAccount{Mode: config.ModeAccounts})
				w.check(w.store.SetActive(w.ctx, "example.com", way != "stopped"))
				w.target.set(f[3])
				w.source.set(f[4])
				got := w.login(config.IMAP)
				_, state := w.account()
				got = fmt.Sprintf("%d %d %s %s", w.target.count(), w.source.count(), got, state)
				if want := strings.Join(f[5:], " "); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				w.target.idle() // what was opened only to ask is closed
				w.source.idle()
			})
		}
	}
}

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
				err = c.Flip(w.ctx, store.Active, c.Account.PasswordVersion)
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
		kept, version, err := w.store.Password(w.ctx, a.ID)
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
	w.check(c.Flip(w.ctx, store.Finished, 1))
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
	if got := w.login(config.IMAP); got != "held" {
		t.Error(got)
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
	if list, err := w.store.Accounts(w.ctx, ""); err != nil || len(list) != 0 {
		t.Errorf("written: %v, %v", list, err)
	}
	w.put("copying", "created", store.NewAccount{Mode: config.ModeAccounts})
	if got := w.result(w.broker.Login(w.ctx, a)); got != "held" {
		t.Error(got)
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
	events, err := w.store.Events(w.ctx, "", 0, 0)
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
	w.check(w.claim().Flip(w.ctx, store.Active, 1))
	if _, err := session.Reader.ReadByte(); err == nil {
		t.Error("the source went on talking")
	}
	if len(w.broker.watches.byAddress) != 0 {
		t.Error("the watch was kept")
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
			l, err := w.broker.newLogin(w.attempt(config.IMAP))
			w.check(err)
			defer l.discard()
			w.check(l.read(w.ctx))
			l.facts.source = l.ask(w.ctx, l.source)
			w.check(w.claim().Flip(w.ctx, store.Active, 1))
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
