package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"migproxy/admin"
)

func TestExport(t *testing.T) {
	w := startWorld(t)
	w.fill(t)
	dir := filepath.Join(t.TempDir(), "out")
	o := runCLI(t, "account", "show", "anna@example.com", "--export", dir, "--json", "--config", w.config)
	if o.status != exitDone || !json.Valid([]byte(o.stdout)) || !strings.Contains(o.stderr, "1.eml written (INBOX.Entwürfe, UID 7)") {
		t.Fatalf("%+v", o)
	}
	path := filepath.Join(dir, "1.eml")
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "Subject: x\r\n\r\nx" {
		t.Errorf("%q, %v", b, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// Once more: what is there stays, and nothing else is left behind.
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := runCLI(t, "account", "show", "anna@example.com", "--export", dir, "--config", w.config); o.status != exitDone || !strings.Contains(o.stdout, "is there already") {
		t.Errorf("%+v", o)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// A list that is longer than what is held at a time loses no row.
func TestLongList(t *testing.T) {
	path := settingsFile(t, "127.0.0.1:1", "127.0.0.1:2")
	l, err := net.Listen("unix", filepath.Join(filepath.Dir(path), "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	const n = 2*tableBlock + 3
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		list := make([]admin.Account, n)
		for i := range list {
			list[i] = admin.Account{Address: fmt.Sprintf("user%d@example.com", i), Error: "<why>"}
		}
		_ = json.NewEncoder(w).Encode(list)
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })

	table := strings.Split(strings.TrimSpace(runCLI(t, "accounts", "--config", path).stdout), "\n")
	if len(table) != n+1 || !strings.HasPrefix(table[0], "ADDRESS ") {
		t.Fatalf("%d lines, the first is %q", len(table), table[0])
	}
	for i, line := range table[1:] {
		if !strings.HasPrefix(line, fmt.Sprintf("user%d@example.com ", i)) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	var list []admin.Account
	o := runCLI(t, "accounts", "--json", "--config", path)
	if err := json.Unmarshal([]byte(o.stdout), &list); err != nil || len(list) != n || list[n-1].Error != "<why>" ||
		!strings.Contains(o.stdout, "<why>") {
		t.Errorf("%d accounts, %v", len(list), err)
	}
}

// The list of accounts is a contract with programs.
func TestAccountsJSONIsAList(t *testing.T) {
	w := startWorld(t)
	for n := range 2 {
		var list []struct {
			Address, State, Error *string
			Messages              *int
		}
		o := runCLI(t, "accounts", "--json", "--config", w.config)
		if err := json.Unmarshal([]byte(o.stdout), &list); err != nil || list == nil || len(list) != 3*n {
			t.Fatalf("%v in %s", err, o.stdout)
		}
		for _, a := range list {
			if a.Address == nil || a.State == nil || a.Error == nil || a.Messages == nil {
				t.Errorf("a field is missing in %s", o.stdout)
			}
		}
		if n == 0 {
			w.fill(t)
		}
	}
}
