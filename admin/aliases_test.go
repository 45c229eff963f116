package admin_test

import (
	"net/http"
	"testing"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/store"
)

// A domain is written in the settings as its owner likes, and as A-labels in mail:
// both are the same to whoever gives, approves or rejects an alias.
func TestAliasesBeyondASCII(t *testing.T) {
	const domain, rossi = "bücher.example", "a.rossi@xn--bcher-kva.example"
	w := start(t)
	w.cfg.Domains = append(w.cfg.Domains, config.Domain{Name: domain})
	if err := w.store.SetActive(t.Context(), domain, true); err != nil {
		t.Fatal(err)
	}
	users := []admin.MigrateUser{{Login: "ines@" + domain, Password: []byte("x"), Aliases: []string{"A.Rossi@" + domain, "ines@" + domain}}}
	if _, err := w.client.Migrate(t.Context(), admin.MigrateRequest{Mode: admin.MigrateAccounts, Users: users}); err != nil {
		t.Fatal(err)
	}
	var all []admin.Alias
	err := w.client.Aliases(t.Context(), "", "", func(a admin.Alias) error { all = append(all, a); return nil })
	if err != nil || len(all) != 1 || all[0].Address != rossi {
		t.Fatalf("%+v, %v", all, err)
	}
	if a, err := w.client.RejectAlias(t.Context(), "a.rossi@"+domain, ""); err != nil || a.State != store.AliasRejected {
		t.Errorf("%+v, %v", a, err)
	}
	// It is somebody else's login.
	if _, err := w.store.Note(t.Context(), config.Identity{Login: "x", Local: "a.rossi", Domain: domain}, store.AtSource); err != nil {
		t.Fatal(err)
	}
	if a, err := w.client.ApproveAlias(t.Context(), "a.rossi@"+domain, ""); status(t, err) != http.StatusConflict {
		t.Errorf("%+v, %v", a, err)
	}
}
