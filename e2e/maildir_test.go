//go:build benchcopy || long

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// fillMaildir writes a mailbox as files, and returns its octets.
func fillMaildir(t testing.TB, d *servers.Dovecot, name string, messages, folders int, size func(*rand.Rand) int) int64 {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	total := int64(0)
	const line = 72 // octets
	text := bytes.Repeat(body(r, line-2), 1<<14)
	for i := range messages {
		dir := d.Maildir(name)
		if f := i % folders; f > 0 {
			dir = filepath.Join(dir, fmt.Sprintf(".Folder%02d", f))
		}
		if i < folders {
			for _, sub := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
		}
		message := fmt.Appendf(nil, "From: <a@example.net>\r\nSubject: message %d\r\nMessage-ID: <%d@example.net>\r\n\r\n", i, i)
		for wanted := size(r); len(message) < wanted; {
			from := r.IntN(len(text)/line) * line
			lines := (min(wanted-len(message), len(text)-from) + line - 1) / line
			message = append(message, text[from:min(len(text), from+lines*line)]...)
		}
		total += int64(len(message))
		path := filepath.Join(dir, "cur", fmt.Sprintf("%d.M%dP1.old,S=%d,W=%d:2,S", 1500000000+i, i, len(message), len(message)))
		if err := os.WriteFile(path, message, 0o600); err != nil {
			t.Fatal(err)
		}
		date := time.Unix(int64(1500000000+i), 0)
		if err := os.Chtimes(path, date, date); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		info, err := os.Stat(filepath.Join(d.Dir, "mail"))
		if err != nil {
			t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		run(t, exec.Command("chown", "-R", fmt.Sprintf("%d:%d", owner.Uid, owner.Gid), filepath.Join(d.Dir, "mail")))
	}
	return total
}
