package migrator_test

import (
	"strings"
	"testing"
	"time"

	"migproxy/config"
	"migproxy/migrator"
	"migproxy/store"
)

// An account that nobody can log in is not verified, and says why.
func TestVerifyWithoutALogin(t *testing.T) {
	source, target := newFake(t, "secret"), newFake(t, "secret")
	b := newBench(t, source.port, target.port, nil)
	a := b.begin(t, store.NewAccount{Identity: identity("anna"), Password: config.NewSecret("secret")})
	m, err := migrator.New(b.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if v := m.Verify(t.Context(), a, false, nil); !v.OK() || len(v.Folders) != 1 {
		t.Fatalf("%+v", v)
	}
	expect := func(want string) {
		t.Helper()
		if v := m.Verify(t.Context(), a, false, nil); v.OK() || !strings.Contains(v.Problem, want) {
			t.Errorf("%q, want %q", v.Problem, want)
		}
	}
	target.mu.Lock()
	target.password = "another"
	target.mu.Unlock()
	expect("the target takes no password that is kept")
	if _, err := b.store.EraseUnused(t.Context(), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	expect("the source takes no password that is kept")
	b.domains[domain].Source.IMAP = nil
	expect("domains[].source.imap")
	delete(b.domains, domain)
	expect("the domain example.com is not in the settings")
}
