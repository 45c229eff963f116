package admin_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"migproxy/admin"
	"migproxy/config"
	"migproxy/store"
)

func TestAccounts(t *testing.T) {
	w := start(t)
	w.begin(t, "anna")
	w.setAside(t, "Subject: x\r\n\r\nx")
	w.begin(t, "bert")

	all, err := w.accounts(t, "")
	if err != nil || len(all) != 2 || all[0].Address != "anna@example.com" || all[1].State != store.Provisioning {
		t.Fatalf("%+v, %v", all, err)
	}
	waiting, err := w.accounts(t, store.Waiting)
	if err != nil || len(waiting) != 1 || waiting[0].Error != "too many messages were refused" {
		t.Fatalf("%+v, %v", waiting, err)
	}
	if none, err := w.accounts(t, store.Failed); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	_, err = w.accounts(t, "asleep")
	if status(t, err) != http.StatusBadRequest || !strings.Contains(err.Error(), "provisioning") {
		t.Errorf("%v", err)
	}

	d, err := w.client.Account(t.Context(), "Anna@Example.com")
	if err != nil || len(d.SetAsideMessages) != 1 || d.SetAsideMessages[0].Folder != "INBOX" || d.AlteredTotal != 1 ||
		d.Altered[0].TargetOctets != 14 || d.Altered[0].Folder != "INBOX" || len(d.Folders) != 1 ||
		d.Folders[0] != (admin.Folder{Source: "INBOX", Target: "Inbox.new", SetAside: 1, Altered: 1}) || len(d.Altered[0].SourceSHA256) != 64 {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err = w.client.Account(t.Context(), "nobody@example.com"); status(t, err) != http.StatusNotFound {
		t.Errorf("%v", err)
	}
	if _, err = w.client.Account(t.Context(), "a/../../b@example.net"); status(t, err) != http.StatusNotFound {
		t.Errorf("%v", err)
	}

	if a, err := w.client.Retry(t.Context(), "anna@example.com", config.Secret{}); err != nil || a.State == store.Waiting {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err = w.client.Retry(t.Context(), "anna@example.com", config.Secret{}); status(t, err) != http.StatusConflict {
		t.Errorf("%v", err)
	}
	if a, err := w.client.Exclude(t.Context(), "new@example.com"); err != nil || a.State != store.Excluded {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err = w.client.Exclude(t.Context(), "x@elsewhere.com"); status(t, err) != http.StatusNotFound {
		t.Errorf("%v", err)
	}
}

// As many accounts as are read at a time, and more.
func TestAccountsOfManyPages(t *testing.T) {
	w := start(t)
	n := 0
	for _, total := range []int{500, 502} {
		for ; n < total; n++ {
			local := fmt.Sprintf("user%04d", n)
			if _, err := w.store.Note(t.Context(), config.Identity{Login: local, Local: local, Domain: "example.com"}, store.AtSource); err != nil {
				t.Fatal(err)
			}
		}
		all, err := w.accounts(t, store.AtSource)
		if err != nil || len(all) != total {
			t.Fatalf("%d of %d accounts, %v", len(all), total, err)
		}
		for i, a := range all {
			if want := fmt.Sprintf("user%04d@example.com", i); a.Address != want {
				t.Fatalf("account %d is %s, want %s", i, a.Address, want)
			}
		}
	}
	// A list that is not wanted to its end.
	enough := errors.New("enough")
	if err := w.client.Accounts(t.Context(), "", func(admin.Account) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
}

// A list that was cut is never taken for a whole one.
func TestAccountsCut(t *testing.T) {
	socket := filepath.Join(dir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	answers := []string{"", "[", `[{"address":"a@example.com"}`, `[{"address":"a@example.com"},`, `[{"addr`}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscan(r.FormValue("state"), &n)
		_, _ = io.WriteString(w, answers[n])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	for n := range answers {
		err := admin.NewClient(socket).Accounts(t.Context(), store.State(fmt.Sprint(n)), func(admin.Account) error { return nil })
		if err == nil {
			t.Errorf("%q was taken for a list", answers[n])
		}
	}
}

func TestSetAsideOctets(t *testing.T) {
	w := start(t)
	content := strings.Repeat("0123456789abcde\n", 100_000)
	w.begin(t, "anna")
	w.setAside(t, content)
	w.begin(t, "bert")
	w.setAside(t, "bert's own")
	d, err := w.client.Account(t.Context(), "anna@example.com")
	if err != nil {
		t.Fatal(err)
	}
	id := d.SetAsideMessages[0].ID
	var got bytes.Buffer
	if err := w.client.SetAside(t.Context(), "anna@example.com", id, &got); err != nil || got.String() != content {
		t.Errorf("%d octets, %v", got.Len(), err)
	}
	if err := w.client.SetAside(t.Context(), "bert@example.com", id, io.Discard); status(t, err) != http.StatusNotFound {
		t.Errorf("another account's message: %v", err)
	}
}
