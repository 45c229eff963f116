package proxy

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"migproxy/config"
	"migproxy/store"
	"migproxy/store/storetest"
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
	reg            *prometheus.Registry
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
		State: storetest.State(t, dir),
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
	wave, err := w.cfg.Domains[0].Wave.Of("example.com")
	w.check(err)
	w.check(w.store.SeedWave(ctx, "example.com", wave))
	domains, err := upstream.Domains(w.cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	w.reg = prometheus.NewRegistry()
	w.broker, err = NewBroker(BrokerOptions{Config: w.cfg, Store: w.store, Domains: domains, Log: log, Metrics: w.reg})
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
			err = c.Flip(w.ctx, store.State(state), c.Account.PasswordVersion, time.Time{})
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
