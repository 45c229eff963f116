package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// deliver puts a message into a Maildir as a delivery agent does: with bare
// line feeds, and recent, since no client has seen it.
func deliver(t testing.TB, maildir, name string, octets string) {
	t.Helper()
	info, err := os.Stat(filepath.Join(maildir, "cur"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(maildir, "new", name)
	if err := os.WriteFile(path, []byte(octets), 0o600); err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
}

// filesOf is every message file of a Maildir, by its path, with its digest.
// The path says whether the message is recent (new or cur) and its flags.
func filesOf(t testing.TB, maildir string) map[string][32]byte {
	t.Helper()
	files := map[string][32]byte{}
	err := filepath.WalkDir(maildir, func(path string, d fs.DirEntry, err error) error {
		dir := filepath.Base(filepath.Dir(path))
		if err != nil || d.IsDir() || dir != "new" && dir != "cur" {
			return err
		}
		octets, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, maildir)] = sha256.Sum256(octets)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no messages in %s", maildir)
	}
	return files
}

func sameFiles(t testing.TB, before, after map[string][32]byte) {
	t.Helper()
	if maps.Equal(before, after) {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if after[path] != before[path] {
			t.Errorf("changed or gone on the source: %s", path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[path]; !ok {
			t.Errorf("new on the source: %s", path)
		}
	}
}

// recentIn is how many messages of the user's INBOX no client has seen yet, as
// EXAMINE tells, which leaves them so.
func recentIn(t testing.TB, port int) string {
	t.Helper()
	c := dial(t, port, false)
	defer c.Close()
	c.until("* OK")
	c.send(fmt.Sprintf("a LOGIN %s {%d}\r\n", user, len(password)))
	c.until("+ ")
	c.send(password + "\r\n")
	c.until("a OK")
	c.send("b EXAMINE INBOX\r\n")
	for line := range strings.Lines(c.until("b OK")) {
		if strings.HasSuffix(line, " RECENT\r\n") {
			return line
		}
	}
	t.Fatal("EXAMINE did not tell what is recent")
	return ""
}
