package report

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"migproxy/migrator/verify"
)

// sample are accounts of every kind.
func sample() []verify.Account {
	at := time.Date(2026, 3, 4, 21, 30, 0, 0, time.UTC)
	one := func(address string, folders ...verify.Folder) verify.Account {
		a := verify.Account{Address: address, State: "active", FlippedAt: at.Add(-72 * time.Hour), Source: "old.example.com:993", Target: "new.example.com:143",
			Deep: true, Began: at, Ended: at.Add(time.Minute), Folders: folders}
		for i := range folders {
			a.Total.Add(&folders[i].Counts)
		}
		return a
	}
	good := func(source, target string, n int64) verify.Folder {
		return verify.Folder{Source: source, Target: target, Counts: verify.Counts{Same: n, Digest: n,
			SourceSide: verify.Side{Messages: n, Octets: n * 74_321}, TargetSide: verify.Side{Messages: n, Octets: n * 74_321}}}
	}
	bad := good("INBOX", "INBOX", 1204)
	bad.Same, bad.Missing, bad.Octets, bad.Doubled, bad.SetAside, bad.Surplus = 1199, 1, 1, 1, 1, 12
	bad.Differences = []verify.Difference{
		{Kind: verify.Missing, SourceUID: 17, Text: "was copied to UID 22, which the target does not have; on the source 4311 octets of 2024-05-01 08:00:00Z"},
		{Kind: verify.Octets, SourceUID: 90, TargetUID: 95, Text: "has other octets on the target: 812 on the source, 812 on the target",
			SourceSHA256: strings.Repeat("0123456789abcdef", 4), TargetSHA256: strings.Repeat("fedcba9876543210", 4)},
		{Kind: verify.Doubled, SourceUID: 91, TargetUID: 1301, Text: "is on the target once more: UID 1301 has the octets of UID 96, and the source has no further one", TargetSHA256: strings.Repeat("ab", 32)},
		{Kind: verify.SetAside, SourceUID: 400, Text: "was refused by the target; migproxy keeps its 83886080 octets as message 3 of `migproxy account show --export`: [TOOBIG] <script>alert(1)</script> \u202egnp.exe"},
	}
	odd := good("INBOX.&ZeVnLIqe-.<b>&-", "&ZeVnLIqe-/<b>&-", 31)
	odd.Notes = []string{"The folder of the source was read by the copier's own reader, not by go-imap: FETCH: in response-data: in date-time"}
	unread := good("R&D", "R&AOQ-D", 0)
	unread.Problem = "the folder of the target cannot be read: SELECT: NO [INUSE] locked"
	gone := one("dora@example.com")
	gone.Problem, gone.Source, gone.Target = "the source: no password is kept any more, so nobody can log in there", "", ""
	return []verify.Account{
		one("anna@example.com", good("INBOX", "INBOX", 4001), good("INBOX.Entw&APw-rfe", "Drafts", 7), good("INBOX.Gesendet", "Sent", 918)),
		one("bert.with-a-very-long-name.for-a-table@example.com", bad, odd, unread), gone,
		one("carl@example.com", good("INBOX", "INBOX", 0)),
	}
}

func write(t *testing.T, path string, accounts []verify.Account) string {
	t.Helper()
	r, err := Create(path, About{Version: "v1.2.3", Scope: "All accounts of example.com", Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range accounts {
		if err := r.Add(&accounts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.html")
	html := write(t, path, sample())
	for _, want := range []string{
		"2 of 4 accounts are not complete.", "All accounts of example.com", "old.example.com:993", "new.example.com:143", "v1.2.3",
		`<a href="#a2">bert.with`, "Entwürfe", "日本語.&lt;b&gt;&amp;", "4\u202f001", "1 missing, 1 with other octets, 1 doubled, 1 set aside, 12 on the target only",
		"was copied to UID 22", "source 0123456789abcdef…", "&lt;script&gt;alert", "\uFFFDgnp.exe", "NO [INUSE] locked",
		"no password is kept any more", verify.Owner, "the SHA-256 digests had to be equal", "not by go-imap: FETCH",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("%q is missing", want)
		}
	}
	// Nothing is loaded from anywhere, and nothing runs.
	for _, never := range []string{"<script", "<link", "<img", "src=", "url(", "http://", "https://", "@import", "ZgotmplZ"} {
		if strings.Contains(html, never) {
			t.Errorf("%q is in the page", never)
		}
	}
	balanced(t, html)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// balanced fails unless every element that is opened is closed.
func balanced(t *testing.T, html string) {
	t.Helper()
	var open []string
	for _, tag := range regexp.MustCompile(`<(/?)([a-z0-9]+)[^>]*>`).FindAllStringSubmatch(html, -1) {
		switch name := tag[2]; {
		case name == "meta" || name == "br":
		case tag[1] == "":
			open = append(open, name)
		case len(open) == 0 || open[len(open)-1] != name:
			t.Fatalf("</%s> within %v", name, open)
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("never closed: %v", open)
	}
}

func TestReportVerdicts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.html")
	all := sample()
	for want, accounts := range map[string][]verify.Account{
		"No account was verified.":        nil,
		"The account is complete.":        all[:1],
		"The account is not complete.":    all[1:2],
		"All 2 accounts are complete.":    {all[0], all[3]},
		"1 of 2 accounts are not complet": all[:2],
	} {
		if html := write(t, path, accounts); !strings.Contains(html, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// What is not committed leaves nothing behind, and what was there stays.
func TestReportGivenUp(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.html")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Create(path, About{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Add(&sample()[0]); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := r.Commit(); err == nil {
		t.Error("a report that was given up was written")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := Create(filepath.Join(dir, "nowhere", "report.html"), About{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := Create(dir, About{}); err == nil {
		t.Error("a directory was taken for a file")
	}
}
