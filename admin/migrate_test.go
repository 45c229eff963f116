package admin_test

import (
	"net/http"
	"strings"
	"testing"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/store"
)

func TestMigrate(t *testing.T) {
	w := start(t)
	if _, err := w.client.SetActive(t.Context(), "", true); err != nil {
		t.Fatal(err)
	}
	user := func(login, password string, aliases ...string) admin.MigrateUser {
		return admin.MigrateUser{Login: login, Password: []byte(password), Aliases: aliases}
	}
	for _, c := range []struct {
		request admin.MigrateRequest
		status  int
		text    string
	}{
		{admin.MigrateRequest{Mode: "mail", Users: []admin.MigrateUser{user("anna@example.com", "x")}}, http.StatusBadRequest, `there is no mode "mail"`},
		{admin.MigrateRequest{Mode: admin.MigrateAccounts, Users: []admin.MigrateUser{user("anna@example.com", "x"), user("b@elsewhere.com", "x"), user("c d@example.com", "x")}},
			http.StatusBadRequest, `the domain "elsewhere.com" of "b@elsewhere.com" is not in the settings`},
		{admin.MigrateRequest{Mode: admin.MigrateAccounts, Users: []admin.MigrateUser{user("anna@example.com", "")}}, http.StatusBadRequest, "no source.master"},
		{admin.MigrateRequest{Mode: admin.MigratePasswords, Users: []admin.MigrateUser{user("anna@example.com", "")}}, http.StatusBadRequest, "mode passwords is for lists with passwords"},
		{admin.MigrateRequest{Mode: admin.MigrateAccounts, Users: []admin.MigrateUser{user("anna@example.com", "x", "a@elsewhere.com")}}, http.StatusBadRequest, `user 1: alias 1 of "anna@example.com" is not in a domain of the settings`},
	} {
		if _, err := w.client.Migrate(t.Context(), c.request); status(t, err) != c.status || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c.request, err)
		}
	}
	if all, err := w.accounts(t, ""); err != nil || len(all) != 0 {
		t.Fatalf("something began: %+v, %v", all, err)
	}
	begun, err := w.client.Migrate(t.Context(), admin.MigrateRequest{Mode: admin.MigrateAccounts,
		Users: []admin.MigrateUser{user("Anna@Example.com", "x", "a@example.com"), user("bert", "y", "b@example.com")}})
	if err != nil || len(begun) != 2 || begun[0].Address != "anna@example.com" || begun[1].Address != "bert@example.com" || !begun[1].Begun {
		t.Fatalf("%+v, %v", begun, err)
	}
	again, err := w.client.Migrate(t.Context(), admin.MigrateRequest{Mode: admin.MigrateAccounts, Users: []admin.MigrateUser{user("bert@example.com", "y")}})
	if err != nil || again[0].Begun || again[0].Error != "" || again[0].State != store.Provisioning {
		t.Errorf("%+v, %v", again, err)
	}
	states, err := w.client.States(t.Context(), []string{"bert@example.com", "nobody@example.com", "anna@example.com"})
	if err != nil || len(states) != 2 || states[0].Address != "bert@example.com" {
		t.Errorf("%+v, %v", states, err)
	}
	if _, err := w.client.Adopt(t.Context(), "anna@example.com"); status(t, err) != http.StatusConflict {
		t.Errorf("%v", err)
	}
	if _, err := w.client.SetActive(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	_, err = w.client.Migrate(t.Context(), admin.MigrateRequest{Mode: admin.MigrateAccounts, Users: []admin.MigrateUser{user("carl@example.com", "y")}})
	if status(t, err) != http.StatusConflict || !strings.Contains(err.Error(), "migproxy start") {
		t.Errorf("%v", err)
	}
}

// What is wrong with a user never repeats what may be a password: behind a
// separator that is none, or in the place of an alias.
func TestIdentifyRepeatsNoPassword(t *testing.T) {
	cfg := &config.Config{Domains: []config.Domain{{Name: "example.com"}}, DefaultDomain: "example.com"}
	for _, c := range []struct{ login, alias, want string }{
		{"anna@example.com;hunter2", "", "the user is no plain address"},
		{"anna@example.com;hunter2@x", "", "the user is no plain address"},
		{"anna@example.com hunter2", "", "the user is no plain address"},
		{"anna@example.com=hunter2", "", "the user is no plain address"},
		{"anna hunter2", "", "the user is no plain address"},
		{"anna@example.com", "x@hunter2", `alias 1 of "anna@example.com"`},
		{"anna@example.com", "hunter2|@example.com", `alias 1 of "anna@example.com"`},
		{"anna", "x@hunter2", `the domain of the first alias of "anna"`},
	} {
		var aliases []string
		if c.alias != "" {
			aliases = []string{c.alias}
		}
		_, err := admin.Identify(cfg, c.login, aliases)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q, %q: %v", c.login, c.alias, err)
		}
	}
}
