package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"migproxy/admin"
	"migproxy/store"
)

// What is wrong with a list is said of every line, and nothing begins.
func TestMigrateRefuses(t *testing.T) {
	w := startWorld(t)
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("anna@example.com:hunter2\nb@elsewhere.com:hunter2\nANNA:hunter2\nx:y:z:hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(good, []byte("anna@example.com:hunter2\nb@elsewhere.com:hunter2\nANNA:hunter2\nd@example.com:pa55:x@hunter2\ne@example.com=hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		status int
		stderr []string
	}{
		{"migrate", exitUsage, []string{"name one user, or a list with --file"}},
		{"migrate a b", exitUsage, []string{"name one user"}},
		{"migrate anna --file x", exitUsage, []string{"name one user"}},
		{"migrate anna --mode mail", exitUsage, []string{"the modes are accounts, messages, passwords"}},
		{"migrate --file x --format yaml", exitUsage, []string{"the formats are lines, csv, json"}},
		{"migrate --file x --alias y@example.com", exitUsage, []string{"are for one user"}},
		{"migrate --file /does/not/exist", exitFailed, []string{"--file: open /does/not/exist"}},
		{"migrate anna@example.com --password-file /does/not/exist", exitFailed, []string{"--password-file: open"}},
		{"migrate anna@example.net", exitFailed, []string{`the domain "example.net" of "anna@example.net" is not in the settings`}},
		{"migrate anna@example.com", exitFailed, []string{"no source.master"}},
		{"migrate --file " + list, exitFailed, []string{list + ": line 4: has 4 fields"}},
		{"migrate --file " + good, exitFailed, []string{good + `: line 2: the domain "elsewhere.com"`, good + ": line 3: anna@example.com is on line 1 already",
			good + `: line 4: alias 1 of "d@example.com" is not`, good + ": line 5: the user is no plain address"}},
	} {
		o := runCLI(t, append(strings.Fields(c.args), "--config", w.config)...)
		if o.status != c.status {
			t.Errorf("%q: status %d, %s", c.args, o.status, o.stderr)
		}
		for _, want := range c.stderr {
			if !strings.Contains(o.stderr, want) {
				t.Errorf("%q: %q is not in %s", c.args, want, o.stderr)
			}
		}
		if strings.Contains(o.stderr+o.stdout, "hunter2") {
			t.Errorf("%q: a password is shown", c.args)
		}
	}
	if all, err := w.store.Accounts(t.Context(), "", "", 10); err != nil || len(all) != 0 {
		t.Errorf("something began: %+v, %v", all, err)
	}
}

// The command follows the accounts until each is over, and says what became of
// them.
func TestMigrateFollows(t *testing.T) {
	w := startWorld(t)
	list := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(list, []byte("user,password,alias\nanna@example.com,hunter2,a@example.com\nbert,hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changes, cancel := w.store.Subscribe(false)
	defer cancel()
	done := make(chan outcome, 1)
	go func() { done <- runCLI(t, "migrate", "--file", list, "--config", w.config) }()
	for range changes {
		if all, err := w.store.Accounts(t.Context(), store.Provisioning, "", 10); err != nil || len(all) == 2 {
			break
		}
	}
	if _, err := w.store.Exclude(t.Context(), identity("anna")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Exclude(t.Context(), identity("bert")); err != nil {
		t.Fatal(err)
	}
	o := <-done
	if o.status != exitFailed || !strings.Contains(o.stderr, "2 of 2 accounts have not moved") {
		t.Errorf("status %d, %s", o.status, o.stderr)
	}
	golden(t, "migrate", o.stdout)
	a, err := w.store.Account(t.Context(), "anna@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if aliases, err := w.store.AccountAliases(t.Context(), a.ID); err != nil || len(aliases) != 1 || aliases[0].Address != "a@example.com" {
		t.Errorf("%+v, %v", aliases, err)
	}
}

// Whoever waits for an account is told once why it does not get on.
func TestMigrateSaysWhatHoldsUp(t *testing.T) {
	var out strings.Builder
	v := newMoveView(&out, 1)
	for _, why := range []string{"", "", "put off", "put off", ""} {
		if err := v.show([]admin.Account{{Address: "anna@example.com", State: store.Copying, Messages: 3, Expected: 3, Error: why}}); err != nil {
			t.Fatal(err)
		}
	}
	line := "anna@example.com: copying, 3 of 3 messages"
	if want := line + "\n" + line + ": put off\n" + line + "\n"; out.String() != want {
		t.Errorf("got %q", out.String())
	}
}
