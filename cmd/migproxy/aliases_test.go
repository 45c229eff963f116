package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"migproxy/aliasresolve"
	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// findAliases has aliases proposed for an account that migproxy created.
func (w *world) findAliases(t *testing.T, local string, rulings ...store.AliasRuling) {
	t.Helper()
	ctx := t.Context()
	if _, _, err := w.store.Begin(ctx, store.NewAccount{Identity: identity(local), Mode: config.ModeAccounts}); err != nil {
		t.Fatal(err)
	}
	c, err := w.store.ClaimNext(ctx, "test", time.Minute)
	if err != nil || c == nil {
		t.Fatal(err)
	}
	if err := c.SetOrigin(ctx, store.OriginCreated); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DecideAliases(ctx, "x", func(*store.AliasEvidence) (store.AliasRulings, error) {
		return store.AliasRulings{Aliases: rulings}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(ctx, store.Waiting, "", time.Time{}, false); err != nil {
		t.Fatal(err)
	}
}

func proposed(t *testing.T, address string, messages int64) store.AliasRuling {
	t.Helper()
	evidence, err := json.Marshal(aliasresolve.Claim{Address: address, Messages: messages, Evidence: []aliasresolve.HeaderCount{
		{Header: aliasresolve.DeliveredTo, Messages: messages}, {Header: aliasresolve.To, Messages: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	return store.AliasRuling{Address: address, State: store.AliasProposed, Evidence: string(evidence)}
}

func TestAliases(t *testing.T) {
	w := startWorld(t)
	list := proposed(t, "list@example.com", 7)
	list.State, list.Reason = store.AliasWithdrawn, "mailing list"
	w.findAliases(t, "anna", proposed(t, "a.rossi@example.com", 214), proposed(t, "shared@example.com", 3), list)
	w.findAliases(t, "bert", proposed(t, "shared@example.com", 4), proposed(t, "b\x1b[31m@example.com", 5))
	for _, c := range []struct{ name, args string }{
		{"aliases", "aliases list"},
		{"aliases_state_json", "aliases list --domain example.com --state withdrawn --json"},
		{"aliases_show", "account show anna@example.com"},
		// From here on they change something.
		{"aliases_approve", "aliases approve A.Rossi@example.com list@example.com"},
		{"aliases_approve_one", "aliases approve shared@example.com --account BERT@example.com"},
		{"aliases_reject", "aliases reject shared@example.com --account anna@example.com"},
		{"aliases_after", "aliases list"},
		{"aliases_log", "log"},
	} {
		o := runCLI(t, append(strings.Fields(c.args), "--config", w.config)...)
		if o.status != exitDone || o.stderr != "" {
			t.Errorf("%s: status %d, %s", c.args, o.status, o.stderr)
		}
		golden(t, c.name, o.stdout)
		if strings.Contains(o.stdout, "\x1b") {
			t.Errorf("%s lets a message steer the terminal", c.args)
		}
	}
	for _, c := range []struct {
		args   string
		status int
		stderr string
	}{
		{"aliases", exitUsage, "name a command"},
		{"aliases list --state asleep", exitUsage, "the states are proposed"},
		{"aliases list --domain example.net", exitFailed, "not in the settings"},
		{"aliases approve", exitUsage, "name one address"},
		{"aliases approve x", exitUsage, `"x" is not an address`},
		{"aliases approve a%b@example.com", exitFailed, "is not an address"},
		{"aliases approve none@example.com", exitFailed, "was found for no account"},
		{"aliases approve shared@example.com", exitFailed, "name one with --account"},
		{"aliases approve shared@example.com --account anna@example.com", exitFailed, "an alias of another one"},
		{"aliases approve shared@example.com --account carl@example.net", exitFailed, "not in the settings"},
	} {
		o := runCLI(t, append(strings.Fields(c.args), "--config", w.config)...)
		if o.status != c.status || !strings.Contains(o.stderr, c.stderr) {
			t.Errorf("%s: status %d, %s", c.args, o.status, o.stderr)
		}
	}
}

// What was on the target before migproxy is left as it is.
func TestAliasOfAnAdoptedAccountIsNotApproved(t *testing.T) {
	w := startWorld(t)
	if _, _, err := w.store.Begin(t.Context(), store.NewAccount{Identity: identity("anna"), Mode: config.ModeAccounts, Adopt: true}); err != nil {
		t.Fatal(err)
	}
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DecideAliases(t.Context(), "x", func(*store.AliasEvidence) (store.AliasRulings, error) {
		return store.AliasRulings{Aliases: []store.AliasRuling{proposed(t, "x@example.com", 3)}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if o := runCLI(t, "aliases", "approve", "x@example.com", "--config", w.config); o.status != exitFailed || !strings.Contains(o.stderr, "by hand") {
		t.Errorf("status %d, %s", o.status, o.stderr)
	}
}

// A mistake in the list of accounts is found at the start and by check, with its
// key, file and line.
func TestAccountsFile(t *testing.T) {
	list := filepath.Join(t.TempDir(), "accounts")
	set := func(text, domain string) string {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		path := settingsFile(t, "127.0.0.1:1", "127.0.0.1:2")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b = []byte(strings.Replace(string(b), "log: {", domain+"\nlog: {", 1))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	domain := "    access_mode: extended\n    aliases: { accounts_file: " + list + " }"
	path := set("anna@example.com\n\nbert\n", domain)
	for _, verb := range []string{"serve", "check"} {
		o := runCLI(t, verb, "--config", path)
		if want := "domains[0].aliases.accounts_file: " + list + `: line 3: "bert" is no address`; o.status != exitFailed || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: status %d, %s", verb, o.status, o.stderr)
		}
	}
	versions := map[string]bool{}
	read := func(text, domain string) (*migrator.Aliases, bool) {
		cfg, err := config.Load(set(text, domain), nil)
		if err != nil {
			t.Fatal(err)
		}
		all, err := aliasRules(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a, is := all["example.com"]
		if is {
			versions[a.Version] = true
		}
		return a, is
	}
	if a, _ := read("anna@example.com x@example.com", domain); a.Rules.Approval || a.Rules.Minimum != 3 || a.Rules.Mode != aliasresolve.Extended ||
		len(a.Accounts.Owners("x@example.com")) != 1 || !a.Rules.Domains.Own("x@example.com") {
		t.Errorf("%+v", a)
	}
	if a, _ := read("", "    access_mode: standard"); !a.Rules.Approval || a.Accounts != nil || a.Rules.Mode != aliasresolve.Standard {
		t.Errorf("%+v", a)
	}
	read("anna@example.com", domain)
	read("anna@example.com", strings.Replace(domain, "file", "file", 1)) // the same again
	read("anna@example.com", strings.Replace(domain, "{ ", "{ approval: true, ", 1))
	if len(versions) != 4 {
		t.Errorf("%d versions", len(versions))
	}
	if _, is := read("anna@example.com", ""); is {
		t.Error("addresses are looked for in mode username")
	}
}
