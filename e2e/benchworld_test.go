//go:build benchcopy

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"migproxy/e2e/servers"
)

const benchTemplate = "template@example.com"

func newBenchWorld(t testing.TB, m benchMailbox) *benchWorld {
	t.Helper()
	w := &benchWorld{t: t, messages: m.messages,
		source: servers.StartDovecot(t, servers.DovecotOptions{Separator: "."}),
		target: servers.StartDovecot(t, servers.DovecotOptions{Separator: "."})}
	w.sourcePort, w.targetPort = w.source.IMAP, w.target.IMAP
	if m.roundTrip > 0 {
		w.sourcePort, w.targetPort = far(t, w.source.IMAP, m.roundTrip), far(t, w.target.IMAP, m.roundTrip)
	}
	w.source.AddUser(benchTemplate, benchPassword)
	w.octets = fillMaildir(t, w.source, benchTemplate, m.messages, m.folders, m.size)
	w.readOnce()
	return w
}

// readOnce has the source make its indexes, which a mailbox that is in use has.
func (w *benchWorld) readOnce() {
	w.t.Helper()
	awaitLogin(w.t, w.source, benchTemplate, benchPassword)
	c := dial(w.t, w.source.IMAP, false)
	c.until("* OK")
	c.send(fmt.Sprintf("a LOGIN %s %s\r\nb LIST \"\" *\r\n", benchTemplate, benchPassword))
	for line := range strings.Lines(c.until("b ")) {
		name := line[strings.LastIndexByte(strings.TrimSuffix(line, "\r\n"), ' ')+1:]
		if strings.HasPrefix(line, "* LIST ") && !strings.Contains(line, `\Noselect`) {
			c.send("c EXAMINE " + name + "d FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)\r\n")
			c.until("d ")
		}
	}
	c.send("e LOGOUT\r\n")
	c.until("e ")
}

// nextUser makes a user of the source with a copy of the mailbox.
func (w *benchWorld) nextUser() string {
	w.t.Helper()
	w.users++
	name := fmt.Sprintf("bench%d@example.com", w.users)
	w.source.AddUser(name, benchPassword)
	run(w.t, exec.Command("cp", "-a", filepath.Dir(w.source.Maildir(benchTemplate)), filepath.Dir(w.source.Maildir(name))))
	awaitLogin(w.t, w.source, name, benchPassword)
	return name
}

// onTarget makes the user there, for tools that do not.
func (w *benchWorld) onTarget(name string) {
	w.t.Helper()
	w.target.AddUser(name, benchPassword)
	awaitLogin(w.t, w.target, name, benchPassword)
}

// verify fails unless the target has as many messages as the source.
func (w *benchWorld) verify(name string) {
	w.t.Helper()
	n := 0
	err := filepath.WalkDir(w.target.Maildir(name), func(path string, d os.DirEntry, err error) error {
		if dir := filepath.Base(filepath.Dir(path)); err == nil && !d.IsDir() && (dir == "cur" || dir == "new") {
			n++
		}
		return err
	})
	if err != nil || n != w.messages {
		w.t.Fatalf("the target has %d messages of %d: %v", n, w.messages, err)
	}
}

// forget removes the mail of a user.
func (w *benchWorld) forget(name string) {
	w.t.Helper()
	err := errors.Join(os.RemoveAll(filepath.Dir(w.source.Maildir(name))), os.RemoveAll(filepath.Dir(w.target.Maildir(name))))
	if err != nil {
		w.t.Fatal(err)
	}
	syscall.Sync() // or the next run pays for it
}
