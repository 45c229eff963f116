package migrator_test

import (
	"slices"
	"strings"
	"testing"

	"migproxy/config"
	"migproxy/provision"
	"migproxy/store"
	"migproxy/upstream"
)

// migrate begins an account by command.
func (b *bench) migrate(t testing.TB, n store.NewAccount) store.Account {
	t.Helper()
	n.Identity = identity("anna")
	if n.Mode == "" {
		n.Mode = config.ModeAccounts
	}
	a, begun, err := b.store.Migrate(t.Context(), n)
	if err != nil || !begun {
		t.Fatalf("%+v, begun %t, %v", a, begun, err)
	}
	return a
}

// Nothing is created or set for a password that the source does not take.
func TestCommandWithAWrongPassword(t *testing.T) {
	for _, mode := range []config.Mode{config.ModeAccounts, config.ModePasswords} {
		source, target, driver, b := fakes(t, twoFolders)
		b.migrate(t, store.NewAccount{Mode: mode, Password: config.NewSecret("wrong")})
		a := b.run(t, b.options(t), "anna", rest...)
		if a.State != store.Waiting || !strings.Contains(a.Reason, "the source") || len(driver.calls) > 0 || target.exists || source.logins != 1 {
			t.Errorf("%s: %+v, %v", mode, a, driver.calls)
		}
	}
}

// Without a password the source's master user reads the mailbox; the account
// flips with its owner's first login, and with his password.
func TestCommandWithoutAPassword(t *testing.T) {
	source, target, driver, b := fakes(t, twoFolders)
	source.master = "master"
	b.domains[domain].Source.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master")}
	a := b.migrate(t, store.NewAccount{})
	a = b.run(t, b.options(t), "anna", rest...)
	if a.State != store.Waiting || !strings.Contains(a.Reason, "he moves at his next login") || a.Messages != 180 || a.Due.IsZero() {
		t.Fatalf("%+v", a)
	}
	standIn := target.password
	if standIn == "" || standIn == secret || len(standIn) < 20 {
		t.Errorf("the account was made with %q", standIn)
	}
	if _, err := b.store.SealPassword(t.Context(), a.ID, config.NewSecret(secret)); err != nil {
		t.Fatal(err)
	}
	a = b.run(t, b.options(t), "anna", store.Active)
	if target.password != secret || !slices.Contains(driver.calls, "set_password") {
		t.Errorf("%+v; %v", a, driver.calls)
	}
	for _, side := range []store.Side{store.SideSource, store.SideTarget} {
		if p, _, err := b.store.Password(t.Context(), a.ID, side); err != nil || p.Reveal() != secret {
			t.Errorf("%s: %v", side, err)
		}
	}
	equal(t, source, target, "INBOX", "Work")
}

// The mail is copied into accounts that are there, whose passwords nobody tells:
// theirs is never set.
func TestMessagesWithMasterUsers(t *testing.T) {
	source, target, driver, b := fakes(t, twoFolders)
	source.master, target.master = "master", "master"
	target.exists, target.password = true, "his own"
	d := b.domains[domain]
	d.Source.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master")}
	d.Target.Master = d.Source.Master
	b.migrate(t, store.NewAccount{Adopt: true})
	a := b.run(t, b.options(t), "anna", rest...)
	if a.State != store.Active || a.Messages != 180 || target.password != "his own" || len(driver.calls) > 0 {
		t.Errorf("%+v, %v", a, driver.calls)
	}
	equal(t, source, target, "INBOX", "Work")
}

// A conflict is adopted by command: the source's password reads, and the
// target's master user writes.
func TestAdoptAConflict(t *testing.T) {
	source, target, driver, b := fakes(t, twoFolders)
	target.exists, target.password, target.master = true, "somebody's", "master"
	b.anna(t)
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Conflict {
		t.Fatalf("%+v", a)
	}
	b.domains[domain].Target.Master = &upstream.Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master")}
	if _, err := b.store.Adopt(t.Context(), identity("anna").Address()); err != nil {
		t.Fatal(err)
	}
	a := b.run(t, b.options(t), "anna", rest...)
	if a.State != store.Active || target.password != "somebody's" || slices.Contains(driver.calls, "set_password") || slices.Contains(driver.calls, "ensure") {
		t.Errorf("%+v, %v", a, driver.calls)
	}
	equal(t, source, target, "INBOX", "Work")
}

// Aliases that the administrator names are added once the account is there; one
// that is taken is somebody else's, and said so.
func TestCommandWithAliases(t *testing.T) {
	_, _, driver, b := fakes(t, twoFolders)
	driver.aliases = map[string]error{"taken@example.com": provision.ErrTaken}
	a := b.migrate(t, store.NewAccount{Password: config.NewSecret(secret),
		Aliases: []string{"a.rossi@example.com", "taken@example.com", "anna@example.com", "a.rossi@example.com"}})
	if a := b.run(t, b.options(t), "anna", rest...); a.State != store.Active {
		t.Fatalf("%+v", a)
	}
	aliases, err := b.store.AccountAliases(t.Context(), a.ID)
	if err != nil || len(aliases) != 2 || aliases[0].Address != "a.rossi@example.com" || aliases[0].State != store.AliasCreated ||
		aliases[1].State != store.AliasTaken || aliases[1].Reason == "" {
		t.Errorf("%+v, %v", aliases, err)
	}
	if !slices.Contains(driver.calls, "add_alias a.rossi@example.com") || slices.Contains(driver.calls, "add_alias anna@example.com") {
		t.Error(driver.calls)
	}
}

func TestCommandByState(t *testing.T) {
	_, _, _, b := moved(t, twoFolders)
	if a, begun, err := b.store.Migrate(t.Context(), store.NewAccount{Identity: identity("anna"), Mode: config.ModeAccounts, Password: config.NewSecret("x")}); err == nil || begun || a.State != store.Active {
		t.Errorf("an active account: %+v, %t, %v", a, begun, err)
	}
	for range 2 {
		a, begun, err := b.store.Migrate(t.Context(), store.NewAccount{Identity: identity("bert"), Mode: config.ModeAccounts, Password: config.NewSecret("x")})
		if err != nil || a.State != store.Provisioning || a.PasswordVersion != 1 {
			t.Errorf("%+v, %t, %v", a, begun, err)
		}
	}
	if _, err := b.store.Note(t.Context(), identity("carl"), store.Native); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.store.Migrate(t.Context(), store.NewAccount{Identity: identity("carl"), Mode: config.ModeAccounts, Password: config.NewSecret("x")}); err == nil {
		t.Error("a native account was taken over")
	}
	if a, begun, err := b.store.Migrate(t.Context(), store.NewAccount{Identity: identity("carl"), Mode: config.ModeAccounts, Password: config.NewSecret("x"), Adopt: true}); err != nil || !begun || a.State != store.Copying || a.Origin != store.OriginAdopted {
		t.Errorf("%+v, %t, %v", a, begun, err)
	}
}
