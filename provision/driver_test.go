package provision

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"migproxy/config"
)

// The test binary plays the administrator's command when it is run with one of
// these as its first argument: the driver hands no environment on that could
// say so.
const (
	roleStore  = "role-store"  // keeps accounts in a directory, like a good command
	roleWriter = "role-writer" // ensures one account after the other, until killed
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case roleStore:
			// Not os.Exit, which under the race detector takes a second.
			syscall.Exit(storeCommand(os.Args[2]))
		case roleWriter:
			writeAccounts(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

// storeCommand keeps each account as a file whose first line is its password
// and whose other lines are its aliases.
func storeCommand(dir string) int {
	var r request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	path := filepath.Join(dir, r.Account)
	content, err := os.ReadFile(path)
	exists := err == nil
	foreign := strings.HasPrefix(string(content), "foreign")
	write := func(b []byte) int {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	switch r.Op {
	case "lookup":
		if exists {
			return 2
		}
		return 0
	case "ensure":
		if foreign {
			return 2
		}
		return write(append([]byte("ours "), r.PasswordBase64...))
	case "set_password":
		if !exists {
			fmt.Fprintln(os.Stderr, "no such account")
			return 1
		}
		kind, _, _ := strings.Cut(string(content), " ")
		return write(append([]byte(kind+" "), r.PasswordBase64...))
	}
	return 1
}

// fixture is one driver over something that can be looked into.
type fixture struct {
	driver Driver
	// foreign puts an account there that migproxy did not make.
	foreign func(t *testing.T, address string)
	// opens says whether a password is the account's.
	opens func(t *testing.T, address, password string) bool
}

func execFixture(t *testing.T) fixture {
	dir := t.TempDir()
	d, err := New(config.Provision{Driver: config.DriverExec,
		Command: []string{os.Args[0], roleStore, dir}, Timeout: config.Duration(30 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return fixture{
		driver: d,
		foreign: func(t *testing.T, address string) {
			if err := os.WriteFile(filepath.Join(dir, address), []byte("foreign old-password"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		opens: func(t *testing.T, address, password string) bool {
			b, err := os.ReadFile(filepath.Join(dir, address))
			if err != nil {
				t.Fatal(err)
			}
			_, kept, _ := strings.Cut(string(b), " ")
			return kept == password
		},
	}
}

func passwdFixture(t *testing.T) fixture {
	path := filepath.Join(t.TempDir(), "passwd")
	writeFile(t, path, "")
	d, err := New(config.Provision{Driver: config.DriverPasswdFile, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return fixture{
		driver: d,
		foreign: func(t *testing.T, address string) {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(f, "%s:%s::::::\n", address, mustHash(t, "old-password")); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		},
		opens: func(t *testing.T, address, password string) bool { return opens(t, path, address, password) },
	}
}

// opens reads a passwd-file by other means than the driver.
func opens(t *testing.T, path, address, password string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(s.Text(), ":")
		if fields[0] != address {
			continue
		}
		hash, ok := strings.CutPrefix(fields[1], "{SHA512-CRYPT}")
		if !ok {
			t.Fatalf("password field %q has no scheme", fields[1])
		}
		digest, err := shacrypt.Decode(hash)
		if err != nil {
			t.Fatal(err)
		}
		return digest.Match(password)
	}
	t.Fatalf("%s is not in %s", address, path)
	return false
}

func mustHash(t *testing.T, password string) string {
	t.Helper()
	h, err := hashPassword(config.NewSecret(password))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

func identity(address string) config.Identity {
	local, domain, _ := strings.Cut(address, "@")
	return config.Identity{Login: address, Local: local, Domain: domain}
}

// TestDrivers is the contract: every driver passes all of it.
func TestDrivers(t *testing.T) {
	anna := identity("anna@example.com")
	cases := map[string]func(*testing.T, fixture){
		"a new name is free, an ensured one taken": func(t *testing.T, f fixture) {
			check(t, f.driver.Lookup(t.Context(), anna), nil)
			check(t, f.driver.Ensure(t.Context(), anna, config.NewSecret("one")), nil)
			check(t, f.driver.Lookup(t.Context(), anna), ErrTaken)
			check(t, f.driver.Lookup(t.Context(), identity("ann@example.com")), nil)
		},
		"ensure again sets the newer password": func(t *testing.T, f fixture) {
			check(t, f.driver.Ensure(t.Context(), anna, config.NewSecret("one")), nil)
			check(t, f.driver.Ensure(t.Context(), anna, config.NewSecret("one")), nil)
			check(t, f.driver.Ensure(t.Context(), anna, config.NewSecret("two")), nil)
			if !f.opens(t, anna.Address(), "two") || f.opens(t, anna.Address(), "one") {
				t.Error("only the newest password must open the account")
			}
		},
		"another's account is never changed by ensure": func(t *testing.T, f fixture) {
			f.foreign(t, anna.Address())
			check(t, f.driver.Lookup(t.Context(), anna), ErrTaken)
			check(t, f.driver.Ensure(t.Context(), anna, config.NewSecret("new")), ErrTaken)
			if !f.opens(t, anna.Address(), "old-password") {
				t.Error("the password of an account that was there before was overwritten")
			}
		},
		"set password changes what is there": func(t *testing.T, f fixture) {
			f.foreign(t, anna.Address())
			check(t, f.driver.SetPassword(t.Context(), anna, config.NewSecret("new")), nil)
			if !f.opens(t, anna.Address(), "new") {
				t.Error("the new password does not open the account")
			}
			// It stays another's all the same.
			check(t, f.driver.Ensure(t.Context(), anna, config.NewSecret("newer")), ErrTaken)
		},
		"set password makes no account": func(t *testing.T, f fixture) {
			if err := f.driver.SetPassword(t.Context(), anna, config.NewSecret("x")); err == nil {
				t.Error("no error for an account that is not there")
			}
			check(t, f.driver.Lookup(t.Context(), anna), nil)
		},
		"the octets of any password survive": func(t *testing.T, f fixture) {
			for i, password := range passwords() {
				id := identity(fmt.Sprintf("user%d@example.com", i))
				check(t, f.driver.Ensure(t.Context(), id, config.NewSecret(password)), nil)
				if !f.opens(t, id.Address(), password) {
					t.Errorf("password %q does not open its account", password)
				}
			}
		},
		"an ended context ends the operation": func(t *testing.T, f fixture) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			// Either it is not begun, or it was done already: but it returns.
			if err := f.driver.Lookup(ctx, anna); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		},
	}
	for driver, makeFixture := range map[string]func(*testing.T) fixture{"exec": execFixture, "passwd-file": passwdFixture} {
		for name, run := range cases {
			t.Run(driver+"/"+name, func(t *testing.T) {
				t.Parallel()
				run(t, makeFixture(t))
			})
		}
	}
}

func passwords() []string {
	return []string{`"`, `\`, `{SHA256}x`, `%u`, `a:b:c`, " at both ends ", "grüße", "\xff\xfe latin\xe4",
		strings.Repeat("x", 200), "$6$", "<&>", "a'b", "tab\there"}
}

func check(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || (want == nil && got != nil) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestNewSaysWhichSettingIsWrong(t *testing.T) {
	for _, c := range []struct {
		cfg  config.Provision
		want string
	}{
		{config.Provision{}, `provision.driver: "" is not known; write exec, passwd-file or none`},
		{config.Provision{Driver: config.DriverExec}, "provision.command: there is no command; write the path of a program and its arguments"},
		{config.Provision{Driver: config.DriverExec, Command: []string{"/does/not/exist"}},
			"provision.command: stat /does/not/exist: no such file or directory; name a program that may be executed"},
		{config.Provision{Driver: config.DriverPasswdFile}, "provision.path: the driver passwd-file needs the path of Dovecot's passwd-file"},
	} {
		_, err := New(c.cfg)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(c.want)) && !strings.HasPrefix(err.Error(), "provision.command: exec:") {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// writeAccounts ensures accounts and reports each, until the process is killed.
func writeAccounts(path string) {
	d, err := New(config.Provision{Driver: config.DriverPasswdFile, Path: path})
	for i := 0; err == nil; i++ {
		id := identity(fmt.Sprintf("user%04d@example.com", i))
		if err = d.Ensure(context.Background(), id, config.NewSecret("secret")); err == nil {
			_, err = io.WriteString(os.Stdout, id.Address()+"\n")
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
