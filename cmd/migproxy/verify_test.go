package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"migproxy/admin"
	"migproxy/migrator/verify"
)

// verifier is a server that answers verify with these accounts, and the path of
// its settings. A nil account cuts the answer.
func verifier(t *testing.T, accounts ...*verify.Account) string {
	t.Helper()
	path := settingsFile(t, "127.0.0.1:1", "127.0.0.1:2")
	l, err := net.Listen("unix", filepath.Join(filepath.Dir(path), "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := json.NewEncoder(w)
		for _, a := range accounts {
			if a == nil {
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			if r.FormValue("address") == "" || r.FormValue("address") == a.Address {
				_ = out.Encode(admin.Verification{Progress: &verify.Progress{Address: a.Address, Folder: "INBOX", Read: 1, Total: 2}})
				_ = out.Encode(admin.Verification{Account: a})
			}
		}
		_ = out.Encode(admin.Verification{End: &admin.VerificationEnd{}})
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return path
}

// verifiedAccounts are one that is complete, one that is not, and one of which
// nothing is known.
func verifiedAccounts() (good, bad, unknown *verify.Account) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	inbox := verify.Folder{Source: "INBOX", Target: "INBOX", Counts: verify.Counts{Same: 3, Digest: 3, SetAside: 1, Surplus: 2,
		SourceSide: verify.Side{Messages: 4, Octets: 5000}, TargetSide: verify.Side{Messages: 5, Octets: 7000}},
		Differences: []verify.Difference{{Kind: verify.SetAside, SourceUID: 4, Text: "was refused by the target: too large"}}}
	drafts := verify.Folder{Source: "INBOX.Entw&APw-rfe", Target: "Drafts", Counts: verify.Counts{Missing: 1, Doubled: 1,
		SourceSide: verify.Side{Messages: 1, Octets: 10}, TargetSide: verify.Side{Messages: 1, Octets: 10}},
		Notes: []string{"read otherwise"},
		Differences: []verify.Difference{{Kind: verify.Missing, SourceUID: 9, Text: "was copied to UID 7, which the target does not have"},
			{Kind: verify.Doubled, TargetUID: 8, Text: "is on the target once more\x1b[2J"}}}
	account := func(address string, folders ...verify.Folder) *verify.Account {
		a := &verify.Account{Address: address, State: "active", FlippedAt: at, Deep: true, Began: at, Ended: at, Folders: folders,
			Source: "127.0.0.1:1", Target: "127.0.0.1:2"}
		for i := range folders {
			a.Total.Add(&folders[i].Counts)
		}
		return a
	}
	unknown = account("carl@example.com")
	unknown.Problem = "the source: no password is kept any more"
	return account("anna@example.com", inbox), account("bert@example.com", inbox, drafts), unknown
}

func TestVerifyOutput(t *testing.T) {
	good, bad, unknown := verifiedAccounts()
	path := verifier(t, good, bad, unknown)
	for name, args := range map[string][]string{"verify": {"anna@example.com"}, "verify_bad": {"bert@example.com"},
		"verify_unknown": {"carl@example.com"}, "verify_all": {"--all"}} {
		o := runCLI(t, append([]string{"verify", "--config", path}, args...)...)
		golden(t, name, o.stdout)
		want := exitFailed
		if name == "verify" {
			want = exitDone
		}
		if o.status != want || (o.stderr == "") != (want == exitDone) {
			t.Errorf("%s: %d, %q", name, o.status, o.stderr)
		}
	}
	var one verify.Account
	o := runCLI(t, "verify", "bert@example.com", "--json", "--config", path)
	if err := json.Unmarshal([]byte(o.stdout), &one); err != nil || o.status != exitFailed || one.Total.Missing != 1 || len(one.Folders[1].Differences) != 2 {
		t.Errorf("%v, %+v", err, o)
	}
	var list []verify.Account
	o = runCLI(t, "verify", "--all", "--json", "--config", path)
	if err := json.Unmarshal([]byte(o.stdout), &list); err != nil || o.status != exitFailed || len(list) != 3 {
		t.Errorf("%v, %+v", err, o)
	}
	o = runCLI(t, "verify", "--all", "--json", "--config", verifier(t))
	if o.status != exitDone || strings.TrimSpace(o.stdout) != "[]" {
		t.Errorf("%+v", o)
	}
}

func TestVerifyReport(t *testing.T) {
	good, bad, unknown := verifiedAccounts()
	file := filepath.Join(t.TempDir(), "report.html")
	o := runCLI(t, "verify", "--all", "--domain", "example.com", "--deep", "--report", file, "--config", verifier(t, good, bad, unknown))
	b, err := os.ReadFile(file)
	if err != nil || o.status != exitFailed || !strings.Contains(string(b), "2 of 3 accounts are not complete.") || !strings.Contains(string(b), "All accounts of example.com") {
		t.Errorf("%v, %+v", err, o)
	}
	// One that was cut says nothing, and leaves what is there.
	if o := runCLI(t, "verify", "--all", "--report", file, "--config", verifier(t, good, nil)); o.status != exitFailed || !strings.Contains(o.stderr, "broke off") {
		t.Errorf("%+v", o)
	}
	if again, err := os.ReadFile(file); err != nil || string(again) != string(b) {
		t.Errorf("%v, %d octets became %d", err, len(b), len(again))
	}
	if files, err := os.ReadDir(filepath.Dir(file)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	// What cannot be written is said before anything is read.
	if o := runCLI(t, "verify", "--all", "--report", filepath.Join(file, "x"), "--config", verifier(t, good)); o.status != exitFailed || o.stdout != "" || !strings.Contains(o.stderr, "--report") {
		t.Errorf("%+v", o)
	}
}

func TestVerifyUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"anna"}, {"a@example.com", "b@example.com"}, {"--all", "a@example.com"},
		{"a@example.com", "--domain", "example.com"}, {"--all", "--shallow"}} {
		if o := runCLI(t, append([]string{"verify", "--config", "/nonexistent"}, args...)...); o.status != exitUsage {
			t.Errorf("%q: %+v", args, o)
		}
	}
}
