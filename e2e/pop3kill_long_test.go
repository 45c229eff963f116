//go:build long

package e2e

import (
	"slices"
	"syscall"
	"testing"

	"migproxy/e2e/servers"
	"migproxy/migrator"
)

// Killed at any step while the source is read over POP3, a move goes on after
// the restart, and nothing is missing and nothing doubled.
func TestKilledOverPOP3(t *testing.T) {
	source := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Extra: "mail_fsync = never"})
	steps := slices.DeleteFunc(migrator.Steps(), func(step string) bool {
		return slices.Contains(special, step) || step == "folder.before" || step == "folder.created" // INBOX is there
	})
	for _, step := range steps {
		source.AddUser(step+"@example.com", password)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			target := servers.StartDovecot(t, servers.DovecotOptions{Separator: targetSep})
			name := step + "@example.com"
			mails := slices.Concat(oddities(), oddities())
			for i := range 250 { // more than a batch, half of them twins
				mails = append(mails, note(step+string(rune('a'+i/2%26))))
			}
			appendTo(t, login(t, source.IMAP, name, password), "INBOX", mails...)
			s := pop3Settings(dovecotEndpoint(source), target)
			s.target.imap = late(t, target.IMAP)
			s.migration = "concurrency: 1, " + lateQuiet
			r := &runner{proxy: newProxy(t, killable, s), user: name, password: password}
			r.kill(step)
			r.env = nil
			r.start()
			if a, err := r.state(name); err != nil || a.State == "" {
				if err := r.begin(); err != nil {
					t.Fatal(err)
				}
			}
			r.awaitState(name, "active")
			dump := func(port int) view {
				return viewOf(t, ask(t, request{Op: "dump", Port: port, User: name}), "", ".", nil)
			}
			sameInbox(t, dump(source.IMAP), dump(target.IMAP), mails)
			r.stop(syscall.SIGTERM)
		})
	}
}
