package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"migproxy/config"
)

// script makes a driver of a shell script.
func script(t *testing.T, timeout time.Duration, body string) *execDriver {
	t.Helper()
	path := filepath.Join(t.TempDir(), "command")
	// A process that a parallel test forks meanwhile would hold the file open
	// for writing until its own exec, and the kernel runs no such program
	// ("text file busy").
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	d, err := newExec(config.Provision{Command: []string{path}, Timeout: config.Duration(timeout)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestExecRequest(t *testing.T) {
	anna := config.Identity{Login: "Anna", Local: "anna", Domain: "example.com"}
	for _, c := range []struct {
		op    string
		run   func(context.Context, Driver) error
		wants string
	}{
		{"lookup", func(ctx context.Context, d Driver) error { return d.Lookup(ctx, anna) },
			`{"op":"lookup","account":"anna@example.com","domain":"example.com"}`},
		{"ensure", func(ctx context.Context, d Driver) error { return d.Ensure(ctx, anna, config.NewSecret(`p"<ü`)) },
			`{"op":"ensure","account":"anna@example.com","domain":"example.com","password":"p\"<ü","password_base64":"cCI8w7w="}`},
		{"ensure, not UTF-8", func(ctx context.Context, d Driver) error { return d.Ensure(ctx, anna, config.NewSecret("p\xff")) },
			`{"op":"ensure","account":"anna@example.com","domain":"example.com","password_base64":"cP8="}`},
		{"set_password", func(ctx context.Context, d Driver) error { return d.SetPassword(ctx, anna, config.NewSecret("p")) },
			`{"op":"set_password","account":"anna@example.com","domain":"example.com","password":"p","password_base64":"cA=="}`},
		{"add_alias", func(ctx context.Context, d Driver) error { return d.AddAlias(ctx, anna, "a@example.com") },
			`{"op":"add_alias","account":"anna@example.com","domain":"example.com","alias":"a@example.com"}`},
		{"remove_alias", func(ctx context.Context, d Driver) error { return d.RemoveAlias(ctx, anna, "a@example.com") },
			`{"op":"remove_alias","account":"anna@example.com","domain":"example.com","alias":"a@example.com"}`},
	} {
		t.Run(c.op, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "stdin")
			if err := c.run(t.Context(), script(t, time.Minute, "cat >"+out)); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.wants+"\n" {
				t.Errorf("got  %swant %s", got, c.wants)
			}
			if !json.Valid(got) {
				t.Error("not JSON")
			}
		})
	}
}

func TestExecStatus(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       error
		text       string
	}{
		{"done", "exit 0", nil, ""},
		{"done without reading", "exec <&-; exit 0", nil, ""},
		{"taken", "exit 2", ErrTaken, "taken"},
		{"failed", "echo first >&2; echo '  no room' >&2; exit 1", nil, "ended with status 1: first;   no room"},
		{"failed in silence", "exit 75", nil, "ended with status 75: it gave no reason on standard error"},
		{"by a signal", "kill -TERM $$", nil, "ended by a signal (signal: terminated): it gave no reason"},
		{"standard output is not the reason", "echo chatter; exit 1", nil, "it gave no reason"},
		{"password in the reason", `pw=$(sed 's/.*"password":"\([^"]*\)".*/\1/'); echo "bad $pw" >&2; exit 1`, nil, "bad ***"},
		{"base64 in the reason", `echo "bad aHVudGVyMg==" >&2; exit 1`, nil, "bad ***"},
		{"control characters", `printf 'a\033[31mb\tc' >&2; exit 1`, nil, ": a [31mb c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := script(t, time.Minute, c.body).Ensure(t.Context(), identity("anna@example.com"), config.NewSecret("hunter2"))
			if c.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.text) || (c.want != nil && !errors.Is(err, c.want)) {
				t.Fatalf("got %v, want %q", err, c.text)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is in the error: %v", err)
			}
			if c.want == nil && errors.Is(err, ErrTaken) {
				t.Errorf("a failure looks like ErrTaken: %v", err)
			}
		})
	}
}

// A command that cannot be started is a failure, never "taken" or "free".
func TestExecCommandGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "command")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := newExec(config.Provision{Command: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Lookup(t.Context(), identity("a@example.com")); err == nil || errors.Is(err, ErrTaken) {
		t.Errorf("got %v", err)
	}
}

// The time limit kills the command and all that it started.
func TestExecTimeoutKillsTheGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	// The limit leaves time to write the file on a slow machine; the sleeps are
	// far longer than the test may take.
	d := script(t, 2*time.Second, fmt.Sprintf("sleep 600 & echo $! >%s; echo waiting >&2; sleep 600", pidFile))
	err := d.Lookup(t.Context(), identity("anna@example.com"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "provision.timeout") {
		t.Fatalf("got %v", err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	// The kill was sent before run returned, but an orphan is gone only once
	// init reaped it: a zombie counts as gone.
	deadline := time.Now().Add(10 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the command's child still runs")
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestExecCancelled(t *testing.T) {
	started := filepath.Join(t.TempDir(), "started")
	if err := syscall.Mkfifo(started, 0o600); err != nil {
		t.Fatal(err)
	}
	d := script(t, time.Hour, "echo >"+started+"; sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Lookup(ctx, identity("anna@example.com")) }()
	if _, err := os.ReadFile(started); err != nil { // until the script is there
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestExecOutputIsBounded(t *testing.T) {
	d := script(t, time.Minute, "head -c 20000000 /dev/zero | tr '\\0' x >&2; head -c 20000000 /dev/zero; echo the end >&2; exit 1")
	err := d.Lookup(t.Context(), identity("anna@example.com"))
	if err == nil || len(err.Error()) > 2048 || !strings.HasSuffix(err.Error(), "the end") {
		t.Errorf("got %.3000v", err)
	}
}

// Promise 7: no argument and no environment variable of a child holds the
// password, nor anything of our own environment.
func TestExecPasswordIsOnStandardInputAlone(t *testing.T) {
	const password = "correct-horse-battery"
	t.Setenv("MIGPROXY_STATE__URL", "postgres://user:database-password@db/x")
	dump := filepath.Join(t.TempDir(), "dump")
	d := script(t, time.Minute, "cat /proc/self/environ /proc/$$/cmdline >"+dump+"; cat >/dev/null")
	if err := d.Ensure(t.Context(), identity("anna@example.com"), config.NewSecret(password)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "LANG=C.UTF-8") {
		t.Errorf("nothing was dumped: %q", b)
	}
	for _, secret := range []string{password, "database-password", "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("%s is in %q", secret, b)
		}
	}
}
