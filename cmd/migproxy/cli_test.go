package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// settingsFile writes settings with these two servers; nothing listens on the
// addresses unless a test does.
func settingsFile(t *testing.T, source, target string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mp") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "migproxy.yaml")
	text := fmt.Sprintf(`hostname: proxy.example.com
default_domain: example.com
state: { url: "sqlite://%[1]s/state.db", key_file: %[1]s/key }
tls: { allow_plaintext_login: loopback }
listeners:
  - { protocol: imap, address: "127.0.0.1:0", tls: none }
  - { protocol: pop3, address: "127.0.0.1:0", tls: none }
admin: { address: "127.0.0.1:0", socket: %[1]s/admin.sock }
shutdown: { grace: 1s }
domains:
  - name: example.com
    source: { imap: { address: "%[2]s", tls: none } }
    target:
      imap: { address: "%[3]s", tls: none }
      provision: { driver: exec, command: [/bin/true] }
log: { level: debug, format: json, file: %[1]s/migproxy.log }
`, dir, source, target)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// world is a running admin server over a real store, and its settings file.
type world struct {
	config string
	store  *store.Store
	// plan takes the migrator's place.
	plan func(context.Context, store.Account) (migrator.RollbackPlan, error)
}

func startWorld(t *testing.T) *world {
	t.Helper()
	w := &world{config: settingsFile(t, "127.0.0.1:1", "127.0.0.1:2")}
	cfg, err := config.Load(w.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := zaptest.NewLogger(t)
	if w.store, err = store.Open(t.Context(), cfg.State, log); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.SeedActive(t.Context(), "example.com", true); err != nil {
		t.Fatal(err)
	}
	if err := w.store.SeedWave(t.Context(), "example.com", cfg.Domains[0].Wave); err != nil {
		t.Fatal(err)
	}
	server, err := admin.Listen(admin.Options{Config: cfg, Store: w.store, Registry: prometheus.NewRegistry(),
		Listening: func() bool { return true }, Version: "v1.2.3", Log: log,
		PlanRollback: func(ctx context.Context, a store.Account) (migrator.RollbackPlan, error) { return w.plan(ctx, a) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, w.store.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// fill puts accounts into the store: one waiting with a message set aside and
// one altered, one at the source, one being provisioned.
func (w *world) fill(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	begin := func(local string) {
		if _, _, err := w.store.Begin(ctx, store.NewAccount{Identity: identity(local),
			Password: config.NewSecret("hunter2"), Mode: config.ModeAccounts}); err != nil {
			t.Fatal(err)
		}
	}
	begin("anna")
	c, err := w.store.ClaimNext(ctx, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	folder := store.Folder{Source: "INBOX.Entw&APw-rfe", Target: "Entw&APw-rfe", Selectable: true, SourceUIDValidity: 1, TargetUIDValidity: 2}
	steps := []func() error{
		func() error { return c.SetOrigin(ctx, store.OriginFree) },
		func() error { return c.SetOrigin(ctx, store.OriginCreated) },
		func() error { return c.SetExpected(ctx, 3) },
		func() error { return c.PutFolder(ctx, &folder) },
		func() error {
			return c.PutAside(ctx, &store.SetAside{FolderID: folder.ID, SourceUID: 7, Octets: 15, Date: time.Unix(1e9, 0),
				Reason: "the target said NO: \x1b[31mred"}, strings.NewReader("Subject: x\r\n\r\nx"))
		},
		func() error {
			return c.NoteAltered(ctx, store.Altered{FolderID: folder.ID, SourceUID: 1, TargetUID: 9, SourceOctets: 11, TargetOctets: 14})
		},
		func() error { return w.store.Event(ctx, "anna@example.com", "Migrating 'anna@example.com'...") },
		func() error {
			return c.Release(ctx, store.Waiting, "the target refused 11 messages; see `migproxy account show`", time.Time{}, true)
		},
		func() error {
			_, err := w.store.Note(ctx, identity("bert"), store.AtSource)
			return err
		},
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	begin("carl")
}

func identity(local string) config.Identity {
	return config.Identity{Login: local, Local: local, Domain: "example.com"}
}

// outcome is what a command line came to.
type outcome struct {
	status         int
	stdout, stderr string
}

func runCLI(t *testing.T, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	status := execute(t.Context(), args, &out, &errs)
	return outcome{status, out.String(), errs.String()}
}

var times = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`)

// golden compares a text with a file, apart from times.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = times.ReplaceAllString(got, "TIME")
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestGoldenOutputs(t *testing.T) {
	w := startWorld(t)
	w.fill(t)
	for _, c := range []struct{ name, args string }{
		{"status", "status"},
		{"status_json", "status --json"},
		{"accounts", "accounts"},
		{"accounts_state_json", "accounts --state waiting --json"},
		{"show", "account show anna@example.com"},
		{"show_json", "account show ANNA@example.com --json"},
		{"log", "log"},
		{"log_one", "log anna@example.com"},
		{"complete_plan_active", "complete --dry-run"},
		// From here on they change something.
		{"stop", "stop"},
		{"status_stopped", "status"},
		{"complete_plan", "complete --dry-run --force --domain example.com"},
		{"start", "start --domain example.com"},
		{"retry", "account retry anna@example.com"},
		{"exclude", "account exclude bert@example.com"},
		{"alias", "account alias carl@example.com karl"},
		{"alias_typed", `account alias carl@example.com CORP\Carl`},
		{"show_alias", "account show carl@example.com"},
		{"alias_remove", "account alias carl@example.com Karl@example.com --remove"},
		{"log_after", "log"},
	} {
		o := runCLI(t, append(strings.Fields(c.args), "--config", w.config)...)
		if o.status != exitDone || o.stderr != "" {
			t.Errorf("%s: status %d, %s", c.args, o.status, o.stderr)
		}
		golden(t, c.name, o.stdout)
		if strings.Contains(o.stdout, "hunter2") {
			t.Errorf("%s prints a password", c.args)
		}
		if strings.Contains(o.stdout, "\x1b") {
			t.Errorf("%s lets a server steer the terminal", c.args)
		}
	}
}

// complete waits for the last passes, says what is left, and fails while
// something is.
func TestComplete(t *testing.T) {
	w := startWorld(t)
	w.fill(t)
	flags := []string{"--config", w.config}
	if o := runCLI(t, append([]string{"stop"}, flags...)...); o.status != exitDone {
		t.Fatal(o.stderr)
	}
	if o := runCLI(t, append([]string{"account", "exclude", "dora@example.com"}, flags...)...); o.status != exitDone {
		t.Fatal(o.stderr)
	}
	o := runCLI(t, append([]string{"complete"}, flags...)...)
	if o.status != exitFailed || !strings.Contains(o.stderr, "4 accounts are left") {
		t.Errorf("status %d, %s", o.status, o.stderr)
	}
	golden(t, "complete_left", o.stdout)
	o = runCLI(t, append([]string{"complete", "--dry-run", "--force"}, flags...)...)
	golden(t, "complete_plan_forced", o.stdout)
	o = runCLI(t, append([]string{"complete", "--force"}, flags...)...)
	if o.status != exitDone || o.stderr != "" {
		t.Errorf("status %d, %s", o.status, o.stderr)
	}
	golden(t, "complete_forced", o.stdout)
	o = runCLI(t, append([]string{"start"}, flags...)...)
	if o.status != exitFailed || !strings.Contains(o.stderr, "is finished") {
		t.Errorf("status %d, %s", o.status, o.stderr)
	}
	o = runCLI(t, append([]string{"status"}, flags...)...)
	golden(t, "status_finished", o.stdout)
}

func TestStatusBeforePasswordsExpire(t *testing.T) {
	var out bytes.Buffer
	soon := time.Now().Add(time.Hour)
	if err := writeStatus(&out, admin.Status{Passwords: admin.PasswordStatus{Expiring: 3, FirstExpires: soon, ExpiringUntil: soon}}); err != nil {
		t.Fatal(err)
	}
	golden(t, "status_expiring", out.String())
}

func TestStatusWhileCopying(t *testing.T) {
	for _, c := range []struct {
		rate      store.Rate
		remaining store.Remaining
		want      string
	}{
		{store.Rate{}, store.Remaining{}, "nothing was copied lately; 0 messages of 0 accounts"},
		{store.Rate{Messages: 812.34, Bytes: 5 << 20, Seconds: 83}, store.Remaining{Accounts: 4, Uncounted: 1, Messages: 90000, Seconds: 111},
			"812.3 messages/s, 5.0 MiB/s, over 1m23s of copying; 90000 messages of 4 accounts, 1 of them not counted yet, about 1m51s"},
	} {
		if got := showRate(c.rate) + "; " + showRemaining(c.remaining); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestStatusIsLoud(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	var out bytes.Buffer
	err := writeDomains(&out, []admin.DomainStatus{
		{Name: "forgotten.example", Active: true, Setting: true, WatchStatus: admin.WatchStatus{
			ActiveSince: now.Add(-40 * day), LastBegun: now.Add(-20*day - time.Hour), LeftActive: true}},
		{Name: "unused.example", Active: true, Setting: true, WatchStatus: admin.WatchStatus{
			ActiveSince: now.Add(-40*day - time.Hour), LeftActive: true}},
		{Name: "stuck.example", Setting: false, WatchStatus: admin.WatchStatus{
			LastBegun: now, ToMove: 7, LastProgress: now.Add(-2 * time.Hour), StandsStill: true}},
		{Name: "busy.example", Active: true, Setting: true, WatchStatus: admin.WatchStatus{
			ActiveSince: now.Add(-40 * day), LastBegun: now, ToMove: 7, LastProgress: now}},
		{Name: "failed.example", Setting: true, StoppedBecause: "10 accounts have failed: \x1b[31mred",
			Wave: admin.WaveStatus{Included: 3, Excluded: 1, Differs: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status_loud", out.String())
}

func TestExitStatus(t *testing.T) {
	w := startWorld(t)
	w.fill(t)
	nobody := settingsFile(t, "127.0.0.1:1", "127.0.0.1:2")
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("hostnam: x\ndomainz: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		status int
		stderr string // contained in it
	}{
		{"", exitUsage, "name a command"},
		{"migrat", exitUsage, `unknown command "migrat"`},
		{"account", exitUsage, "name a command"},
		{"account sho x@example.com", exitUsage, `there is no command "migproxy account sho"`},
		{"account show", exitUsage, "name one account"},
		{"account retry anna", exitUsage, `"anna" is not an address`},
		{"status --jason", exitUsage, "unknown flag: --jason"},
		{"status", exitUsage, "--config"},
		{"log a@b c@d", exitUsage, "name one account"},
		{"serve extra --config x", exitUsage, `unknown command "extra"`},
		{"status --config /does/not/exist", exitFailed, "/does/not/exist"},
		{"status --config " + broken, exitFailed, "hostnam"},
		{"status --config " + w.config, exitDone, ""},
		{"status --config " + nobody, exitFailed, "is `migproxy serve` running"},
		{"log -f --config " + nobody, exitFailed, "is `migproxy serve` running"},
		{"stop --domain example.net --config " + w.config, exitFailed, `"example.net" is not in the settings`},
		{"accounts --state asleep --config " + w.config, exitUsage, "the states are"},
		{"account show \x1b[31m@example.com --config " + w.config, exitFailed, "?[31m@example.com is not known"},
		{"account exclude --config " + w.config, exitUsage, "name one account"},
		{"check --config " + nobody, exitFailed, "servers cannot be used"},
		{"check", exitUsage, "--config"},
		{"serve --config " + broken, exitFailed, "domainz"},
		{"account show nobody@example.com --config " + w.config, exitFailed, "is not known"},
		{"account retry bert@example.com --config " + w.config, exitFailed, "is at_source"},
		{"account retry bert@example.com --password-file /does/not/exist --config " + w.config, exitFailed, "--password-file: open /does/not/exist"},
		{"complete --config " + w.config, exitFailed, "`migproxy stop --domain example.com` first"},
		{"complete now --config " + w.config, exitUsage, `unknown command "now"`},
		{"complete --dry-run --domain example.net --config " + w.config, exitFailed, `"example.net" is not in the settings`},
		{"version", exitDone, ""},
		{"help", exitDone, ""},
	} {
		o := runCLI(t, strings.Fields(c.args)...)
		if o.status != c.status || !strings.Contains(o.stderr, c.stderr) {
			t.Errorf("%q: status %d, %s; want %d, %s", c.args, o.status, o.stderr, c.status, c.stderr)
		}
		if o.status == exitDone {
			if o.stderr != "" {
				t.Errorf("%q: %s", c.args, o.stderr)
			}
			continue
		}
		all := strings.Split(strings.TrimSuffix(o.stderr, "\n"), "\n")
		if len(all) != 1 && !strings.Contains(c.args, broken) {
			t.Errorf("%q: not one line: %q", c.args, o.stderr)
		}
		for _, line := range all {
			if !strings.HasPrefix(line, "migproxy: ") || strings.Contains(line, "\x1b") {
				t.Errorf("%q: %q", c.args, line)
			}
		}
		if o.stdout != "" && !strings.HasPrefix(c.args, "check ") {
			t.Errorf("%q: printed %q", c.args, o.stdout)
		}
	}
}

// lines hands each line that is written to a channel.
type lines chan string

func (l lines) Write(p []byte) (int, error) { l <- string(p); return len(p), nil }

func TestLogFollow(t *testing.T) {
	w := startWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, status := make(lines), make(chan int, 1)
	go func() {
		var errs bytes.Buffer
		status <- execute(ctx, []string{"log", "-f", "anna@example.com", "--config", w.config}, out, &errs)
	}()
	for i := range 3 {
		for _, address := range []string{"bert@example.com", "anna@example.com"} {
			if err := w.store.Event(t.Context(), address, fmt.Sprintf("event %d of %s", i, address)); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-out; !strings.HasSuffix(got, fmt.Sprintf("  anna@example.com  event %d of anna@example.com\n", i)) {
			t.Errorf("got %q", got)
		}
	}
	cancel()
	if s := <-status; s != exitDone {
		t.Errorf("status %d after Ctrl-C", s)
	}
}
