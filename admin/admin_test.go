package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/migrator"
	"migproxy/migrator/verify"
	"migproxy/store"
	"migproxy/store/storetest"
)

// world is an admin server over a real store.
type world struct {
	cfg       *config.Config
	store     *store.Store
	server    *admin.Server
	client    *admin.Client
	listening atomic.Bool
	stop      func() error
	// verify, if set, takes the migrator's place.
	verify func(context.Context, store.Account, bool, func(verify.Progress)) verify.Account
	plan   func(context.Context, store.Account) (migrator.RollbackPlan, error)
}

// dir is a directory whose path is short enough for a socket.
func dir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

func (w *world) options(t *testing.T) admin.Options {
	return admin.Options{Config: w.cfg, Store: w.store, Registry: prometheus.NewRegistry(),
		Listening: w.listening.Load, Version: "v0",
		Verify: func(ctx context.Context, a store.Account, deep bool, progress func(verify.Progress)) verify.Account {
			return w.verify(ctx, a, deep, progress)
		},
		PlanRollback: func(ctx context.Context, a store.Account) (migrator.RollbackPlan, error) { return w.plan(ctx, a) }, Log: zaptest.NewLogger(t)}
}

func start(t *testing.T) *world {
	t.Helper()
	d := dir(t)
	w := &world{cfg: &config.Config{
		Admin:     config.Admin{Address: config.Address{Host: "127.0.0.1"}, Socket: filepath.Join(d, "admin.sock")},
		State:     storetest.State(t, d),
		Domains:   []config.Domain{{Name: "example.com"}, {Name: "example.org"}},
		Migration: config.Migration{Active: true},
	}}
	w.listening.Store(true)
	log := zaptest.NewLogger(t)
	var err error
	if w.store, err = store.Open(t.Context(), w.cfg.State, log); err != nil {
		t.Fatal(err)
	}
	for _, domain := range w.cfg.Domains {
		if _, err := w.store.SeedActive(t.Context(), domain.Name, true); err != nil {
			t.Fatal(err)
		}
	}
	if w.server, err = admin.Listen(w.options(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx) }()
	w.stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() {
		if err := errors.Join(w.stop(), w.store.Close()); err != nil {
			t.Error(err)
		}
	})
	w.client = admin.NewClient(w.cfg.Admin.Socket)
	return w
}

func (w *world) begin(t *testing.T, local string) store.Account {
	t.Helper()
	a, _, err := w.store.Begin(t.Context(), store.NewAccount{
		Identity: config.Identity{Login: local, Local: local, Domain: "example.com"},
		Password: config.NewSecret("hunter2"), Mode: config.ModeAccounts})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// setAside puts a message of an account into quarantine and leaves the account waiting.
func (w *world) setAside(t *testing.T, content string) {
	t.Helper()
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err != nil || c == nil {
		t.Fatal("nothing to claim", err)
	}
	f := store.Folder{Source: "INBOX", Target: "Inbox.new", Selectable: true, SourceUIDValidity: 1, TargetUIDValidity: 2}
	m := store.SetAside{SourceUID: 7, Octets: int64(len(content)), Reason: "8-bit header", Date: time.Unix(1e9, 0)}
	altered := store.Altered{SourceUID: 1, TargetUID: 9, SourceOctets: 11, TargetOctets: 14}
	err = c.PutFolder(t.Context(), &f)
	if err == nil {
		m.FolderID, altered.FolderID = f.ID, f.ID
		err = c.PutAside(t.Context(), &m, strings.NewReader(content))
	}
	if err == nil {
		err = c.NoteAltered(t.Context(), altered)
	}
	if err == nil {
		err = c.Release(t.Context(), store.Waiting, "too many messages were refused", time.Time{}, true)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) accounts(t *testing.T, state store.State) (all []admin.Account, err error) {
	err = w.client.Accounts(t.Context(), state, func(a admin.Account) error { all = append(all, a); return nil })
	return all, err
}

func status(t *testing.T, err error) int {
	t.Helper()
	e, ok := errors.AsType[*admin.Error](err)
	if !ok {
		t.Fatalf("got %v, want an *admin.Error", err)
	}
	return e.Status
}

func TestStartStopAndStatus(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	d, err := w.client.SetActive(t.Context(), "Example.COM", false)
	if err != nil || len(d) != 1 || d[0].Name != "example.com" || d[0].Active || !d[0].Setting || d[0].Completing || d[0].Finished {
		t.Fatalf("%+v, %v", d, err)
	}
	s, err := w.client.Status(t.Context())
	if err != nil || !s.MigrationActive || s.Domains[0].Active || !s.Domains[1].Active || s.MailboxesSeen != 1 || s.Version != "v0" {
		t.Fatalf("%+v, %v", s, err)
	}
	if d, err = w.client.SetActive(t.Context(), "", false); err != nil || len(d) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if s, err = w.client.Status(t.Context()); err != nil || s.MigrationActive {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err = w.client.SetActive(t.Context(), "elsewhere.com", true); status(t, err) != http.StatusNotFound {
		t.Errorf("%v", err)
	}
}

// What is erased soon is announced before: a week ahead, or a tenth of a
// shorter age.
func TestStatusBeforePasswordsExpire(t *testing.T) {
	w := start(t)
	a := w.begin(t, "anna")
	for _, c := range []struct {
		maxAge   time.Duration
		expiring int64
		notice   time.Duration
	}{
		{90 * 24 * time.Hour, 0, 7 * 24 * time.Hour},
		{20 * 24 * time.Hour, 0, 2 * 24 * time.Hour},
		{time.Microsecond, 1, 0}, // used longer ago than that
	} {
		w.cfg.State.CredentialsMaxAge = config.Duration(c.maxAge)
		before := time.Now()
		s, err := w.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d, err := w.client.Account(t.Context(), "anna@example.com")
		if err != nil || !d.PasswordExpires.Equal(a.PasswordUsedAt.Add(c.maxAge)) {
			t.Errorf("%s: expires %s, used %s, %v", c.maxAge, d.PasswordExpires, a.PasswordUsedAt, err)
		}
		p := s.Passwords
		if p.Expiring != c.expiring || p.ExpiringUntil.Before(before.Add(c.notice)) || p.ExpiringUntil.After(time.Now().Add(c.notice+time.Minute)) {
			t.Errorf("%s: %+v", c.maxAge, p)
		}
		if want := (c.expiring > 0); want != p.FirstExpires.Equal(d.PasswordExpires) || want == p.FirstExpires.IsZero() {
			t.Errorf("%s: %+v", c.maxAge, p)
		}
	}
}

func TestEvents(t *testing.T) {
	w := start(t)
	const n = 1200 // more than two pages
	for i := range n {
		address := "anna@example.com"
		if i%2 == 1 {
			address = "bert@example.com"
		}
		if err := w.store.Event(t.Context(), address, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var texts []string
	collect := func(e admin.Event) error { texts = append(texts, e.Text); return nil }
	if err := w.client.Events(t.Context(), "", false, collect); err != nil || len(texts) != n || texts[n-1] != fmt.Sprint(n-1) {
		t.Errorf("%d events, %v", len(texts), err)
	}
	texts = nil
	if err := w.client.Events(t.Context(), "Bert@example.com", false, collect); err != nil || len(texts) != n/2 || texts[0] != "1" {
		t.Errorf("%d events, %v", len(texts), err)
	}
	if err := w.client.Events(t.Context(), "x@elsewhere.com", false, collect); status(t, err) != http.StatusNotFound {
		t.Errorf("%v", err)
	}
}

// The log is followed until the client wants no more, or the server ends.
func TestEventsFollow(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who+" ends", func(t *testing.T) {
			w := start(t)
			for _, text := range []string{"one", "two"} {
				if err := w.store.Event(t.Context(), "anna@example.com", text); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			got := make(chan string)
			done := make(chan error, 1)
			go func() {
				done <- w.client.Events(ctx, "", true, func(e admin.Event) error { got <- e.Text; return nil })
			}()
			for _, want := range []string{"one", "two"} {
				if text := <-got; text != want {
					t.Fatalf("got %q, want %q", text, want)
				}
			}
			for i := range 3 { // each only after the one before was read
				want := fmt.Sprint("later ", i)
				if err := w.store.Event(t.Context(), "", want); err != nil {
					t.Fatal(err)
				}
				if text := <-got; text != want {
					t.Fatalf("got %q, want %q", text, want)
				}
			}
			if who == "client" {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				return
			}
			if err := w.stop(); err != nil {
				t.Error(err)
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), "server has ended") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestMetricsAddress(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	base := "http://" + w.server.MetricsAddress()
	code, metrics := get(t, base+"/metrics")
	for _, want := range []string{`migproxy_accounts{state="provisioning"} 1`, `migproxy_accounts{state="failed"} 0`,
		`migproxy_migration_active{domain="example.com"} 1`} {
		if code != http.StatusOK || !strings.Contains(metrics, want+"\n") {
			t.Errorf("%s is missing:\n%s", want, metrics)
		}
	}
	if strings.Contains(metrics, "anna") {
		t.Error("a user's name is in the metrics")
	}
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(metrics)
	if out, err := promtool.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v (package prometheus; `make setup` installs it)\n%s", err, out)
	}
	if code, _ := get(t, base+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz %d", code)
	}
	// The API is the socket's alone.
	for _, path := range []string{"/v1/status", "/v1/accounts", "/v1/events", "/debug/pprof/"} {
		if code, _ := get(t, base+path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func TestReady(t *testing.T) {
	w := start(t)
	url := "http://" + w.server.MetricsAddress() + "/readyz"
	if code, text := get(t, url); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	w.listening.Store(false)
	if code, _ := get(t, url); code != http.StatusServiceUnavailable {
		t.Errorf("without listeners: %d", code)
	}
	w.listening.Store(true)
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _ := get(t, url); code != http.StatusServiceUnavailable {
		t.Errorf("without a store: %d", code)
	}
	// What needs no store is still there, and the process is alive.
	if code, text := get(t, strings.Replace(url, "readyz", "metrics", 1)); code != http.StatusOK && code != http.StatusInternalServerError {
		t.Errorf("metrics without a store: %d %s", code, text)
	}
	if code, _ := get(t, strings.Replace(url, "readyz", "healthz", 1)); code != http.StatusOK {
		t.Errorf("healthz %d", code)
	}
}
