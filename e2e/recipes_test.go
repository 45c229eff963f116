package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/e2e/servers"
	"migproxy/provision"
)

// recipe is one script of docs/recipes over a server that can be asked.
type recipe struct {
	command []string
	// opens says whether a password is the account's.
	opens func(t *testing.T, address, password string) bool
	// foreign puts an account there that the script did not make.
	foreign func(t *testing.T, address string)
	// alias is whose address this is, "" for nobody's; nil where the server has no aliases.
	alias func(t *testing.T, address string) string
	// seen are the arguments and environments of the programs that it ran.
	seen func(t *testing.T) string
	// utf8Only: the server takes no other passwords.
	utf8Only bool
	// oddName is the oddest name that the server takes, where it is not the usual one.
	oddName string
	// away makes the server one that cannot be asked.
	away func(t *testing.T)
}

func recipeFile(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs("../docs/recipes/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// answered is what became of an operation, as migproxy's driver understands it.
func answered(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, provision.ErrTaken):
		return "taken"
	}
	return "failed"
}

func address(name string) config.Identity {
	local, domain, _ := strings.Cut(name, "@")
	return config.Identity{Login: name, Local: local, Domain: domain}
}

// testRecipe holds a script against the contract of the driver exec.
func testRecipe(t *testing.T, r recipe) {
	driver, err := provision.New(config.Provision{Driver: config.DriverExec, Command: r.command, Timeout: config.Duration(30 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	const (
		anna, bert, old = "anna@example.com", "bert@example.com", "old@example.com"
		first, second   = password, "$(id) ' \" ; DROP TABLE users; -- {PLAIN}"
		alias, info     = "anna.rossi@example.com", "info@example.com"
	)
	quote := "o'brien&=sons@example.com"
	if r.oddName != "" {
		quote = r.oddName
	}
	r.foreign(t, old)
	ctx := t.Context()
	steps := []struct {
		what string
		do   func() error
		want string
	}{
		{"lookup of a free name", func() error { return driver.Lookup(ctx, address(anna)) }, "done"},
		{"lookup of somebody else's", func() error { return driver.Lookup(ctx, address(old)) }, "taken"},
		{"set_password without an account", func() error { return driver.SetPassword(ctx, address(anna), config.NewSecret(first)) }, "failed"},
		{"ensure", func() error { return driver.Ensure(ctx, address(anna), config.NewSecret(first)) }, "done"},
		{"lookup of what is there", func() error { return driver.Lookup(ctx, address(anna)) }, "taken"},
		{"ensure once more", func() error { return driver.Ensure(ctx, address(anna), config.NewSecret(first)) }, "done"},
		{"set_password", func() error { return driver.SetPassword(ctx, address(anna), config.NewSecret(second)) }, "done"},
		{"set_password once more", func() error { return driver.SetPassword(ctx, address(anna), config.NewSecret(second)) }, "done"},
		{"ensure of another", func() error { return driver.Ensure(ctx, address(bert), config.NewSecret(first)) }, "done"},
		{"ensure with another password", func() error { return driver.Ensure(ctx, address(bert), config.NewSecret(second)) }, "done"},
		{"ensure of a name with odd characters", func() error { return driver.Ensure(ctx, address(quote), config.NewSecret(first)) }, "done"},
		{"lookup of it", func() error { return driver.Lookup(ctx, address(quote)) }, "taken"},
	}
	aliases := []struct {
		what string
		do   func() error
		want string
	}{
		{"add_alias", func() error { return driver.AddAlias(ctx, address(anna), alias) }, "done"},
		{"add_alias once more", func() error { return driver.AddAlias(ctx, address(anna), alias) }, "done"},
		{"add_alias that is another's", func() error { return driver.AddAlias(ctx, address(bert), alias) }, "taken"},
		{"add_alias that is an account", func() error { return driver.AddAlias(ctx, address(bert), anna) }, "taken"},
		{"add_alias to nobody", func() error { return driver.AddAlias(ctx, address("nobody@example.com"), info) }, "failed"},
		{"lookup of an alias", func() error { return driver.Lookup(ctx, address(alias)) }, "taken"},
		{"ensure of an alias", func() error { return driver.Ensure(ctx, address(alias), config.NewSecret(first)) }, "taken"},
		{"remove_alias that is another's", func() error { return driver.RemoveAlias(ctx, address(bert), alias) }, "done"},
		{"a second alias", func() error { return driver.AddAlias(ctx, address(anna), info) }, "done"},
		{"remove_alias", func() error { return driver.RemoveAlias(ctx, address(anna), info) }, "done"},
		{"remove_alias once more", func() error { return driver.RemoveAlias(ctx, address(anna), info) }, "done"},
	}
	if r.alias != nil {
		steps = append(steps, aliases...)
	} else {
		steps = append(steps, aliases[0])
		steps[len(steps)-1].want = "failed"
	}
	for _, s := range steps {
		err := s.do()
		if got := answered(err); got != s.want {
			t.Errorf("%s: %s, want %s: %v", s.what, got, s.want, err)
		}
		if s.want == "failed" && strings.Contains(fmt.Sprint(err), "Traceback") {
			t.Errorf("%s: its reason is for programmers: %v", s.what, err)
		}
	}
	for _, name := range []string{anna, bert} {
		if r.opens(t, name, first) || !r.opens(t, name, second) {
			t.Errorf("%s is not opened by the newest password alone", name)
		}
	}
	if !r.opens(t, quote, first) {
		t.Errorf("%s is not opened by its password", quote)
	}
	if r.alias != nil && (r.alias(t, alias) != anna || r.alias(t, info) != "") {
		t.Errorf("the aliases are %q's and %q's", r.alias(t, alias), r.alias(t, info))
	}

	octets := config.NewSecret("l\xe4tin 1")
	want := "done"
	if r.utf8Only {
		want = "failed"
	}
	if err := driver.SetPassword(ctx, address(bert), octets); answered(err) != want || (err == nil) != r.opens(t, bert, octets.Reveal()) {
		t.Errorf("a password that is not UTF-8: %v", err)
	}

	// Several at a time, of the same account and of others.
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			name := fmt.Sprintf("user%d@example.com", i/2)
			if err := driver.Ensure(ctx, address(name), config.NewSecret(first)); err != nil {
				t.Errorf("at the same time, %s: %v", name, err)
			}
		})
	}
	wg.Wait()
	for i := range 3 {
		if !r.opens(t, fmt.Sprintf("user%d@example.com", i), first) {
			t.Errorf("user%d, who was created beside others, cannot log in", i)
		}
	}

	for input, what := range map[string]string{
		`{"op": "rename", "account": "anna@example.com", "domain": "example.com"}`: "an operation of later",
		`{"op": "ensure"`: "half of a request",
		``:                "no request",
	} {
		cmd := exec.Command(r.command[0], r.command[1:]...)
		cmd.Stdin = strings.NewReader(input)
		var status *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &status) || status.ExitCode() == 2 {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.seen != nil {
		text := r.seen(t)
		for _, secret := range []string{first, second} {
			if text == "" || strings.Contains(text, secret) {
				t.Errorf("arguments or environments show a password, or nothing was run:\n%s", text)
			}
		}
	}
	r.away(t)
	for _, name := range []string{anna, "free@example.com"} {
		if err := driver.Lookup(ctx, address(name)); answered(err) != "failed" {
			t.Errorf("lookup of %s at a server that cannot be asked: %v", name, err)
		}
	}
}

// logsIn says whether a login over IMAP works.
func logsIn(t *testing.T, port int, name, pass string) bool {
	t.Helper()
	l := dial(t, port, false)
	defer l.Close()
	l.until("* OK")
	l.send(fmt.Sprintf("a LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(name), name, len(pass), pass))
	return strings.Contains("\n"+l.until("a "), "\na OK")
}

// recorded puts a program into the PATH that notes its arguments and its
// environment, and then does as the shell commands say.
func recorded(t *testing.T, name, commands string) (seen func(t *testing.T) string) {
	t.Helper()
	dir := t.TempDir()
	note := filepath.Join(dir, "seen")
	script := fmt.Sprintf("#!/bin/sh\n{ echo \"$@\"; env; } >>%s\n%s\n", note, commands)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func(t *testing.T) string { return readFile(t, note) }
}

// sqlDovecot is a Dovecot that finds its users in a database, by the settings
// of docs/recipes, changed as given.
func sqlDovecot(t *testing.T, changes ...string) *servers.Dovecot {
	t.Helper()
	text := strings.NewReplacer(changes...).Replace(readFile(t, recipeFile(t, "dovecot-sql.conf.ext")))
	conf := writeFile(t, "dovecot-sql.conf.ext", text)
	return servers.StartDovecot(t, servers.DovecotOptions{Extra: "passdb {\n  driver = sql\n  args = " + conf + "\n}\n"})
}

const foreignUser = `INSERT INTO users (address, password) VALUES ('old@example.com', '{PLAIN}old')`

func TestRecipeDovecotSQLite(t *testing.T) {
	db := filepath.Join(t.TempDir(), "users db?.sqlite")
	sqlite := func(t *testing.T, sql string) string {
		t.Helper()
		cmd := exec.Command("python3", "-c", `
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    for statement in sys.stdin.read().split(";"):
        for row in db.execute(statement):
            print(*row)`, db)
		cmd.Stdin = strings.NewReader(sql)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	sqlite(t, readFile(t, recipeFile(t, "schema.sql")))
	d := sqlDovecot(t, "/var/lib/mail-users/users.db", db)
	testRecipe(t, recipe{
		command: []string{recipeFile(t, "dovecot-sqlite.py"), db},
		opens:   func(t *testing.T, address, password string) bool { return logsIn(t, d.IMAP, address, password) },
		foreign: func(t *testing.T, _ string) { sqlite(t, foreignUser) },
		alias: func(t *testing.T, address string) string {
			return sqlite(t, "SELECT address FROM aliases WHERE alias = '"+address+"'")
		},
		away: func(t *testing.T) {
			if err := os.Remove(db); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestRecipeCyrus(t *testing.T) {
	c := servers.StartCyrus(t, servers.CyrusOptions{})
	run := func(program string) string {
		return fmt.Sprintf("LD_LIBRARY_PATH=%s SASL_PATH=%s exec %s -f %s/sasldb2 \"$@\"", c.Libraries(), c.SASLPlugins(), program, c.Dir)
	}
	recorded(t, "sasldblistusers2", run(filepath.Join(filepath.Dir(c.SASLPasswd()), "sasldblistusers2")))
	testRecipe(t, recipe{
		command: []string{recipeFile(t, "cyrus.py"), servers.Address(c.IMAP), "admin", writeFile(t, "admin", "the administrator's\n")},
		opens:   func(t *testing.T, address, password string) bool { return logsIn(t, c.IMAP, address, password) },
		foreign: func(_ *testing.T, address string) { c.AddUser(address, "old") },
		seen:    recorded(t, "saslpasswd2", run(c.SASLPasswd())),
		oddName: "o_brien+sons.1@example.com",
		away:    func(*testing.T) { c.Stop() },
	})
}

// restServer is a mail server's administration with the paths of rest-api.py.
type restServer struct {
	sync.Mutex
	t        *testing.T
	accounts map[string]string // their passwords
	aliases  map[string]string
}

func (s *restServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	defer s.Unlock()
	if r.Header.Get("Authorization") != "Bearer the token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if strings.Contains(r.RequestURI, "a%22b") || strings.Contains(fmt.Sprint(r.Header), "DROP") {
		s.t.Errorf("a password stands in %s or %v", r.RequestURI, r.Header)
	}
	var body struct{ Password, Account string }
	if text, err := io.ReadAll(r.Body); err != nil || len(text) > 0 && json.Unmarshal(text, &body) != nil {
		s.t.Errorf("%v: %s", err, text)
	}
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/"), "/")
	_, isAccount := s.accounts[name]
	owner, isAlias := s.aliases[name]
	_, known := s.accounts[body.Account]
	switch r.Method + " " + kind {
	case "GET accounts", "GET aliases":
		if kind == "accounts" && isAccount || kind == "aliases" && isAlias {
			_ = json.NewEncoder(w).Encode(map[string]string{"account": owner})
			return
		}
		w.WriteHeader(http.StatusNotFound)
	case "PUT accounts":
		if isAlias {
			w.WriteHeader(http.StatusConflict)
			return
		}
		s.accounts[name] = body.Password
		w.WriteHeader(http.StatusNoContent)
	case "PATCH accounts":
		if !isAccount {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.accounts[name] = body.Password
		w.WriteHeader(http.StatusNoContent)
	case "PUT aliases":
		switch {
		case !known:
			w.WriteHeader(http.StatusNotFound)
		case isAccount || isAlias && owner != body.Account:
			w.WriteHeader(http.StatusConflict)
		default:
			s.aliases[name] = body.Account
			w.WriteHeader(http.StatusNoContent)
		}
	case "DELETE aliases":
		delete(s.aliases, name)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func TestRecipeHTTP(t *testing.T) {
	s := &restServer{t: t, accounts: map[string]string{}, aliases: map[string]string{}}
	server := httptest.NewServer(s)
	defer server.Close()
	token := writeFile(t, "token", "the token\n")
	testRecipe(t, recipe{
		command: []string{recipeFile(t, "rest-api.py"), server.URL + "/api", token},
		opens: func(_ *testing.T, address, password string) bool {
			s.Lock()
			defer s.Unlock()
			kept, ok := s.accounts[address]
			return ok && kept == password
		},
		foreign: func(_ *testing.T, address string) {
			s.Lock()
			defer s.Unlock()
			s.accounts[address] = "old"
		},
		alias: func(_ *testing.T, address string) string {
			s.Lock()
			defer s.Unlock()
			return s.aliases[address]
		},
		utf8Only: true,
		away:     func(*testing.T) { server.Close() },
	})

	// Nothing follows a redirection.
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s was asked elsewhere", r.Method, r.URL)
	}))
	defer elsewhere.Close()
	redirect := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer redirect.Close()
	d, err := provision.New(config.Provision{Driver: config.DriverExec, Command: []string{recipeFile(t, "rest-api.py"), redirect.URL, token}})
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"lookup": d.Lookup(context.Background(), address(user)),
		"ensure": d.Ensure(context.Background(), address(user), config.NewSecret("x")),
	} {
		if answered(err) != "failed" || !strings.Contains(err.Error(), "HTTP 307") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The document names every recipe, and no file that is not there.
func TestRecipesAreNamed(t *testing.T) {
	text := readFile(t, "../docs/recipes.md")
	files, err := os.ReadDir("../docs/recipes")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.IsDir() && !strings.Contains(text, "](recipes/"+f.Name()+")") {
			t.Errorf("docs/recipes.md does not name %s", f.Name())
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat("../docs/" + m[1]); err != nil {
			t.Error(err)
		}
	}
}
