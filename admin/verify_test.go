package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/migrator/verify"
	"migproxy/store"
)

// verified collects the addresses of the results.
func (w *world) verified(t *testing.T, address, domain string) (all []string, err error) {
	t.Helper()
	err = w.client.Verify(t.Context(), address, domain, true, func(v admin.Verification) error {
		if v.Account != nil {
			all = append(all, v.Account.Address)
		}
		return nil
	})
	return all, err
}

// put writes an account as it is after its move, or before.
func (w *world) put(t *testing.T, local, domain string, mode config.Mode, state store.State) {
	t.Helper()
	id := config.Identity{Login: local, Local: local, Domain: domain}
	if state == store.Native || state == store.AtSource {
		if _, err := w.store.Note(t.Context(), id, state); err != nil {
			t.Fatal(err)
		}
		return
	}
	a, _, err := w.store.Begin(t.Context(), store.NewAccount{Identity: id, Password: config.NewSecret("x"), Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.store.ClaimNext(t.Context(), "test", time.Minute)
	if err == nil && state != store.Provisioning {
		err = c.SetOrigin(t.Context(), store.OriginCreated)
	}
	switch {
	case err != nil:
	case state == store.Active || state == store.Finished:
		err = c.Flip(t.Context(), state, a.PasswordVersion, time.Time{})
	case state == store.Waiting || state == store.Failed:
		err = c.Release(t.Context(), state, "why", time.Time{}, true)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	w := start(t)
	w.verify = func(_ context.Context, a store.Account, deep bool, progress func(verify.Progress)) verify.Account {
		progress(verify.Progress{Address: a.Identity.Address(), Read: 1, Total: 2})
		return verify.Account{Address: a.Identity.Address(), Deep: deep, State: string(a.State)}
	}
	w.put(t, "active", "example.com", config.ModeAccounts, store.Active)
	w.put(t, "bert", "example.org", config.ModeAccounts, store.Finished)
	w.put(t, "copying", "example.com", config.ModeAccounts, store.Copying)
	w.put(t, "failed", "example.com", config.ModeAccounts, store.Failed)
	w.put(t, "native", "example.com", config.ModeAccounts, store.Native)
	w.put(t, "password", "example.com", config.ModePasswords, store.Finished)
	w.put(t, "source", "example.com", config.ModeAccounts, store.AtSource)

	for domain, want := range map[string][]string{
		"":            {"active@example.com", "bert@example.org", "copying@example.com"},
		"Example.com": {"active@example.com", "copying@example.com"},
	} {
		if all, err := w.verified(t, "", domain); err != nil || !slices.Equal(all, want) {
			t.Errorf("%q: %v, %v", domain, all, err)
		}
	}
	for _, local := range []string{"active", "copying", "failed"} {
		if all, err := w.verified(t, strings.ToUpper(local)+"@example.com", ""); err != nil || len(all) != 1 {
			t.Errorf("%s: %v, %v", local, all, err)
		}
	}
	for address, want := range map[string]int{"native@example.com": http.StatusConflict, "source@example.com": http.StatusConflict,
		"password@example.com": http.StatusConflict, "nobody@example.com": http.StatusNotFound, "x@elsewhere.com": http.StatusNotFound, "anna": http.StatusBadRequest} {
		if _, err := w.verified(t, address, ""); status(t, err) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := w.verified(t, "", "elsewhere.com"); status(t, err) != http.StatusNotFound {
		t.Error(err)
	}
	lines := 0
	err := w.client.Verify(t.Context(), "active@example.com", "", true, func(v admin.Verification) error {
		if lines++; lines == 1 && (v.Progress == nil || v.Progress.Total != 2) || lines == 2 && (v.Account == nil || !v.Account.Deep || v.Account.State != "active") {
			t.Errorf("line %d: %+v", lines, v)
		}
		return nil
	})
	if err != nil || lines != 2 {
		t.Errorf("%d lines, %v", lines, err)
	}
}

// As many accounts as are read at a time, and more.
func TestVerifyManyPages(t *testing.T) {
	w := start(t)
	w.verify = func(_ context.Context, a store.Account, _ bool, _ func(verify.Progress)) verify.Account {
		return verify.Account{Address: a.Identity.Address()}
	}
	var want []string
	for i := range 502 {
		local, state := fmt.Sprintf("user%04d", i), store.AtSource
		if i == 0 || i >= 499 {
			state = store.Copying
			want = append(want, local+"@example.com")
		}
		w.put(t, local, "example.com", config.ModeAccounts, state)
	}
	if all, err := w.verified(t, "", ""); err != nil || !slices.Equal(all, want) {
		t.Errorf("%v, %v", all, err)
	}
}

// The verification ends when whoever asked for it has gone, and when the server
// ends; then it is not taken for one that came to its end.
func TestVerifyCut(t *testing.T) {
	for _, who := range []string{"client", "caller", "server"} {
		t.Run(who, func(t *testing.T) {
			w := start(t)
			ended := make(chan error, 1)
			w.verify = func(ctx context.Context, a store.Account, _ bool, progress func(verify.Progress)) verify.Account {
				progress(verify.Progress{})
				<-ctx.Done()
				ended <- ctx.Err()
				return verify.Account{Problem: ctx.Err().Error()}
			}
			w.put(t, "anna", "example.com", config.ModeAccounts, store.Active)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			enough := errors.New("enough")
			stopped := make(chan error, 1)
			err := w.client.Verify(ctx, "", "", false, func(v admin.Verification) error {
				if v.Account != nil {
					t.Errorf("%+v", v.Account)
				}
				switch who {
				case "client":
					cancel()
				case "caller":
					return enough
				case "server":
					go func() { stopped <- w.stop() }()
				}
				return nil
			})
			if err == nil || who == "caller" && !errors.Is(err, enough) || who == "client" && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := <-ended; err == nil {
				t.Error("the verification was not ended")
			}
			if who == "server" {
				if err := <-stopped; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// An answer without its end is no verification.
func TestVerifyWithoutAnEnd(t *testing.T) {
	socket := filepath.Join(dir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]string{"a": "", "b": `{"account":{}}` + "\n", "c": `{"account":`, "d": `{"account":{}}` + "\n" + `{"end":{"accounts":1}}`}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, answers[r.FormValue("address")])
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	for name := range answers {
		err := admin.NewClient(socket).Verify(t.Context(), name, "", false, func(admin.Verification) error { return nil })
		if (err == nil) != (name == "d") {
			t.Errorf("%q: %v", answers[name], err)
		}
	}
}
