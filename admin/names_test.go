package admin_test

import (
	"net/http"
	"strings"
	"testing"

	"migproxy/admin"
	"migproxy/store"
)

func TestLoginAliases(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	w.begin(t, "bert")
	ctx := t.Context()
	for typed, kept := range map[string]string{
		"A.Rossi": "a.rossi@example.com", "Anna.R@EXAMPLE.com": "anna.r@example.com", `CORP\Anna`: `corp\anna`, "Anna@Elsewhere.example": "anna@elsewhere.example",
	} {
		if l, err := w.client.GiveLoginAlias(ctx, "anna@example.com", typed); err != nil || l.Name != kept {
			t.Errorf("%s: %+v, %v", typed, l, err)
		}
	}
	d, err := w.client.Account(ctx, "anna@example.com")
	if err != nil || len(d.LoginAliases) != 4 || d.LoginAliases[0].Origin != store.AliasGiven {
		t.Fatalf("%+v, %v", d.LoginAliases, err)
	}
	for _, c := range []struct {
		address, name, says string
		status              int
	}{
		{"anna@example.com", "anna", "own address", http.StatusBadRequest},
		{"anna@example.com", "a\x01", "no login name", http.StatusBadRequest},
		{"anna@example.com", "bert", "an account of its own (provisioning)", http.StatusConflict},
		{"bert@example.com", "a.rossi", "--remove", http.StatusConflict},
		{"nobody@example.com", "x", "not known", http.StatusNotFound},
	} {
		if _, err := w.client.GiveLoginAlias(ctx, c.address, c.name); status(t, err) != c.status || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s for %s: %v", c.name, c.address, err)
		}
	}
	if _, err := w.client.Account(ctx, "a.rossi@example.com"); status(t, err) != http.StatusNotFound || !strings.Contains(err.Error(), "another name of anna@example.com") {
		t.Error(err)
	}
	if _, err := w.client.Exclude(ctx, "a.rossi@example.com"); status(t, err) != http.StatusConflict {
		t.Error(err)
	}
	begun, err := w.client.Migrate(ctx, admin.MigrateRequest{Mode: admin.MigrateAccounts, Users: []admin.MigrateUser{{Login: "a.rossi@example.com", Password: []byte("x")}}})
	if err != nil || len(begun) != 1 || !strings.Contains(begun[0].Error, "another name of anna@example.com") {
		t.Errorf("%+v, %v", begun, err)
	}
	if all, err := w.client.States(ctx, []string{"a.rossi@example.com"}); err != nil || len(all) != 1 || all[0].State != store.Provisioning {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := w.client.RemoveLoginAlias(ctx, "bert@example.com", "a.rossi"); status(t, err) != http.StatusNotFound {
		t.Error(err)
	}
	if _, err := w.client.RemoveLoginAlias(ctx, "anna@example.com", "a.rossi"); err != nil {
		t.Error(err)
	}
}
