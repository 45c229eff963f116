package provision

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"migproxy/config"
)

func newTestFile(t *testing.T, content string) *passwdFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwd")
	writeFile(t, path, content)
	d, err := newPasswdFile(config.Provision{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func contentOf(t *testing.T, d *passwdFile) string {
	t.Helper()
	b, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const foreignLines = "# made by hand\n" +
	"Bert@Example.com:{PLAIN}x:1000:1000::/home/bert::userdb_quota_rule=*:storage=1G\r\n" +
	"\n" +
	"short\n" +
	"#anna@example.com:{PLAIN}commented out::::::\n" +
	"carl@example.com:{PLAIN}y::::::"

func TestPasswdFileKeepsOtherLines(t *testing.T) {
	d := newTestFile(t, foreignLines)
	for _, password := range []string{"one", "two"} {
		check(t, d.Ensure(t.Context(), identity("anna@example.com"), config.NewSecret(password)), nil)
		got := contentOf(t, d)
		own, ok := strings.CutPrefix(got, foreignLines+"\n")
		if !ok {
			t.Fatalf("other lines were changed:\n%s", got)
		}
		fields := strings.Split(own, ":")
		if len(fields) != 8 || fields[0] != "anna@example.com" || !strings.HasPrefix(fields[1], "{SHA512-CRYPT}$6$") ||
			fields[4] != mark || fields[7] != "\n" {
			t.Errorf("line %q", own)
		}
	}
}

func TestPasswdFileFoldsCase(t *testing.T) {
	d := newTestFile(t, foreignLines)
	check(t, d.Lookup(t.Context(), identity("bert@example.com")), ErrTaken)
	check(t, d.Ensure(t.Context(), identity("bert@example.com"), config.NewSecret("x")), ErrTaken)
	check(t, d.Lookup(t.Context(), identity("anna@example.com")), nil) // a comment
	if contentOf(t, d) != foreignLines {
		t.Error("the file was changed")
	}
}

// One line of two that bear the name is another's: then none is touched.
func TestPasswdFileTwoLinesOneName(t *testing.T) {
	content := "anna@example.com:{PLAIN}x:::" + mark + ":::\nAnna@example.com:{PLAIN}y::::::\n"
	d := newTestFile(t, content)
	check(t, d.Ensure(t.Context(), identity("anna@example.com"), config.NewSecret("x")), ErrTaken)
	if contentOf(t, d) != content {
		t.Error("the file was changed")
	}
}

func TestPasswdFileSetPasswordKeepsTheRestOfTheLine(t *testing.T) {
	d := newTestFile(t, foreignLines)
	check(t, d.SetPassword(t.Context(), identity("bert@example.com"), config.NewSecret("new")), nil)
	got := strings.SplitAfter(contentOf(t, d), "\n")[1]
	_, rest, _ := strings.Cut(strings.TrimPrefix(got, "Bert@Example.com:"), ":")
	if rest != "1000:1000::/home/bert::userdb_quota_rule=*:storage=1G\r\n" {
		t.Errorf("line %q", got)
	}
	if !opens(t, d.path, "Bert@Example.com", "new") {
		t.Error("the password was not set")
	}
	check(t, d.SetPassword(t.Context(), identity("short"), config.NewSecret("new")), ErrNoAccount)
}

func TestPasswdFileRefuses(t *testing.T) {
	d := newTestFile(t, "")
	for _, local := range []string{"a:b", "a\nroot:x", "#a", "a\r", "a\x00"} {
		id := config.Identity{Local: local, Domain: "example.com"}
		if err := d.Ensure(t.Context(), id, config.NewSecret("x")); err == nil {
			t.Errorf("%q was written", local)
		}
	}
	check(t, d.AddAlias(t.Context(), identity("a@example.com"), "b@example.com"), ErrNoAliases)
	check(t, d.RemoveAlias(t.Context(), identity("a@example.com"), "b@example.com"), ErrNoAliases)
	if got := contentOf(t, d); got != "" {
		t.Errorf("written: %q", got)
	}
	if err := os.Remove(d.path); err != nil {
		t.Fatal(err)
	}
	check(t, d.Lookup(t.Context(), identity("a@example.com")), fs.ErrNotExist)
	check(t, d.Ensure(t.Context(), identity("a@example.com"), config.NewSecret("x")), fs.ErrNotExist)
}

func TestPasswdFileKeepsModeOwnerAndLink(t *testing.T) {
	d := newTestFile(t, "")
	if err := os.Chmod(d.path, 0o644); err != nil {
		t.Fatal(err)
	}
	owner := os.Geteuid()
	if owner == 0 { // only root can give a file away
		owner = 65534
		if err := os.Chown(d.path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(d.path, link); err != nil {
		t.Fatal(err)
	}
	linked, err := newPasswdFile(config.Provision{Path: link, Lock: d.lock})
	if err != nil {
		t.Fatal(err)
	}
	check(t, linked.Ensure(t.Context(), identity("a@example.com"), config.NewSecret("x")), nil)
	info, err := os.Stat(d.path)
	if err != nil {
		t.Fatal(err)
	}
	if uid := int(info.Sys().(*syscall.Stat_t).Uid); info.Mode().Perm() != 0o644 || uid != owner {
		t.Errorf("mode %v, owner %d", info.Mode(), uid)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
	check(t, d.Lookup(t.Context(), identity("a@example.com")), ErrTaken)
}

func TestPasswdFileConcurrently(t *testing.T) {
	d := newTestFile(t, foreignLines)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			// A driver each, as several processes would have; every account twice.
			own := &passwdFile{path: d.path, lock: d.lock}
			id := identity(fmt.Sprintf("user%d@example.com", i/2))
			if err := own.Ensure(t.Context(), id, config.NewSecret("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := contentOf(t, d)
	if !strings.HasPrefix(got, foreignLines) || strings.Count(got, mark) != 20 {
		t.Errorf("%d accounts of 20:\n%s", strings.Count(got, mark), got)
	}
}

func TestPasswdFileLockHeld(t *testing.T) {
	d := newTestFile(t, "")
	lock, err := os.Create(d.lock)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPause)
	defer cancel()
	err = d.Ensure(ctx, identity("a@example.com"), config.NewSecret("x"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), d.lock) {
		t.Errorf("got %v", err)
	}
	if contentOf(t, d) != "" {
		t.Error("written without the lock")
	}
}

// A process killed at a random moment leaves a whole file, a lock that is
// free, and every account that it had reported.
func TestPasswdFileKilledWriter(t *testing.T) {
	for round := range 3 {
		d := newTestFile(t, foreignLines+"\n")
		cmd := exec.Command(os.Args[0], roleWriter, d.path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		guard := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		reported, lines := 0, bufio.NewScanner(out)
		for reported <= 3*round && lines.Scan() {
			reported++
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			reported++
		}
		_ = cmd.Wait()
		guard.Stop()
		if reported == 0 {
			t.Fatal("the writer wrote nothing")
		}
		got := contentOf(t, d)
		if !strings.HasPrefix(got, foreignLines+"\n") || !strings.HasSuffix(got, ":::\n") {
			t.Fatalf("the file is damaged:\n%s", got)
		}
		for i := range reported {
			if !opens(t, d.path, fmt.Sprintf("user%04d@example.com", i), "secret") {
				t.Errorf("user%04d was reported and does not open", i)
			}
		}
		check(t, d.Ensure(t.Context(), identity("after@example.com"), config.NewSecret("x")), nil)
	}
}
