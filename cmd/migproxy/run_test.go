package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/store"
)

// serveFor starts everything and returns the addresses of its listeners; the
// function that it returns ends it.
func serveFor(t *testing.T, cfg *config.Config) (addrs []net.Addr, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan []net.Addr, 1), make(chan error, 1)
	go func() { done <- serve(ctx, cfg, io.Discard, nil, func(a []net.Addr) { ready <- a }) }()
	stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() { _ = stop() })
	select {
	case addrs = <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return addrs, stop
}

// freePort is a loopback address that was free a moment ago.
func freePort(t *testing.T) config.Address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return config.Address{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}
}

func TestServe(t *testing.T) {
	path := settingsFile(t, "127.0.0.1:1", "127.0.0.1:2")
	cfg, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Admin.Address = freePort(t)
	addrs, stop := serveFor(t, cfg)

	for i, greeting := range []string{"* OK ", "+OK "} {
		conn, err := net.Dial("tcp", addrs[i].String())
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, greeting) {
			t.Errorf("%s: %q, %v", addrs[i], line, err)
		}
		// The connection stays open: the end must not wait for it for ever.
		t.Cleanup(func() { _ = conn.Close() })
	}
	base := "http://" + cfg.Admin.Address.String()
	if code, text := get(t, base+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, text)
	}
	_, metrics := get(t, base+"/metrics")
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(metrics)
	if out, err := promtool.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v (package prometheus; `make setup` installs it)\n%s", err, out)
	}
	if !strings.Contains(metrics, "\nmigproxy_accounts{") || !strings.Contains(metrics, "\ngo_goroutines ") {
		t.Errorf("metrics are missing:\n%s", metrics)
	}
	if o := runCLI(t, "stop", "--config", path); o.status != exitDone {
		t.Errorf("%+v", o)
	}

	if err := stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
	if _, err := os.Lstat(cfg.Admin.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	log, err := os.ReadFile(cfg.Log.File)
	if err != nil || !strings.Contains(string(log), `"msg":"migproxy has ended"`) {
		t.Errorf("%v\n%s", err, log)
	}
	if info, err := os.Stat(cfg.Log.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	// The state outlives the process: stopped stays stopped, and status says
	// that the settings differ.
	_, _ = serveFor(t, cfg)
	s, err := admin.NewClient(cfg.Admin.Socket).Status(t.Context())
	if err != nil || s.MigrationActive || !s.Domains[0].Setting {
		t.Errorf("%+v, %v", s, err)
	}
	if o := runCLI(t, "status", "--config", path); !strings.Contains(o.stdout, "The settings say migration.active: true") {
		t.Errorf("%s", o.stdout)
	}
}

// A provision command that blocks is killed when the grace is over, with all
// that it started, and its account goes on at the next start.
func TestServeEndsWithACommandRunning(t *testing.T) {
	source := imapServer(t, "ready", "IMAP4rev1 AUTH=PLAIN SASL-IR") // which lets everybody in
	cfg, err := config.Load(settingsFile(t, source, "127.0.0.1:2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	started, command := filepath.Join(dir, "started"), filepath.Join(dir, "command")
	if err := syscall.Mkfifo(started, 0o600); err != nil {
		t.Fatal(err)
	}
	// The child holds standard error open, which a wait for the command's end
	// would wait for too.
	if err := os.WriteFile(command, []byte("#!/bin/sh\nsleep 600 & echo >"+started+"; sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg.Shutdown.Grace = config.Duration(100 * time.Millisecond)
	cfg.Domains[0].Target.Provision.Command = []string{command}
	cfg.Domains[0].Target.Provision.Timeout = config.Duration(time.Hour)
	withStore := func(do func(*store.Store)) {
		t.Helper()
		s, err := store.Open(t.Context(), cfg.State, zaptest.NewLogger(t))
		if err != nil {
			t.Fatal(err)
		}
		do(s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	withStore(func(s *store.Store) {
		if _, _, err := s.Begin(t.Context(), store.NewAccount{Identity: identity("anna"),
			Password: config.NewSecret("x"), Mode: config.ModeAccounts}); err != nil {
			t.Fatal(err)
		}
	})
	_, stop := serveFor(t, cfg)
	if _, err := os.ReadFile(started); err != nil { // until the command is there
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(8 * time.Second): // the grace, and what a slow machine takes
		t.Fatal("the end waits for the command")
	}
	withStore(func(s *store.Store) {
		a, err := s.Account(t.Context(), "anna@example.com")
		if err != nil || a.State != store.Provisioning || a.Reason != "" || a.Due.IsZero() {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// What cannot be opened ends the start, says which setting it is, and leaves
// nothing open.
func TestServeCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		want   string
	}{
		{"listener", func(c *config.Config) { c.Listeners[0].Address.Port = port }, fmt.Sprint(port)},
		{"admin.address", func(c *config.Config) { c.Admin.Address.Port = port }, "admin.address"},
		{"admin.socket", func(c *config.Config) { c.Admin.Socket = "/does/not/exist/s" }, "admin.socket"},
		{"log.file", func(c *config.Config) { c.Log.File = "/does/not/exist/log" }, "log.file"},
		{"state", func(c *config.Config) { c.State.KeyFile = "/does/not/exist/key" }, "key_file"},
		{"provision", func(c *config.Config) { c.Domains[0].Target.Provision.Command = nil }, "provision.command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := config.Load(settingsFile(t, "127.0.0.1:1", "127.0.0.1:2"), nil)
			if err != nil {
				t.Fatal(err)
			}
			socket := cfg.Admin.Socket
			c.change(cfg)
			err = serve(t.Context(), cfg, io.Discard, nil, func([]net.Addr) { t.Error("ready") })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
		})
	}
}

// The kill points are in the build that asks for them, and in no other.
func TestKillPointsAreNotShipped(t *testing.T) {
	if stepHook != nil {
		t.Error("this build has kill points")
	}
	src, err := os.ReadFile(filepath.Join("step_killtest.go"))
	if err != nil || !strings.HasPrefix(string(src), "//go:build killtest\n") {
		t.Errorf("%v", err)
	}
}

// What ends the start is told once and on one line, with what to do, whether
// or not there is a log file.
func TestServeTellsOnce(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, c := range []struct{ name, from, to, want string }{
		{"listener", `"127.0.0.1:0", tls: none }`, `"` + taken.Addr().String() + `", tls: none }`, "end the process that has this port"},
		{"address of another machine", `"127.0.0.1:0", tls: none }`, `"192.0.2.1:0", tls: none }`, "an address that this machine has"},
		{"socket", "/admin.sock", "/absent/admin.sock", "/absent must exist"},
		{"database", "/state.db", "/absent/state.db", "make its directory"},
	} {
		for _, log := range []bool{true, false} {
			t.Run(fmt.Sprint(c.name, ", log file ", log), func(t *testing.T) {
				path := settingsFile(t, "127.0.0.1:1", "127.0.0.1:2")
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				changed := strings.Replace(string(text), c.from, c.to, 1)
				if !log {
					changed = strings.Replace(changed, ", file: ", ", level: error } # ", 1)
					changed = strings.Replace(changed, "log: { level: debug, ", "log: { ", 1)
				}
				if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
					t.Fatal(err)
				}
				o := runCLI(t, "serve", "--config", path)
				if o.status != exitFailed || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, c.want) {
					t.Errorf("%+v", o)
				}
			})
		}
	}
}
