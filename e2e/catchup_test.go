package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"migproxy/e2e/servers"
)

// caughtUp waits until the account has been caught up twice from now on: the
// first of them may have begun before.
func (p *proxy) caughtUp(address string) {
	p.t.Helper()
	for range 2 {
		since := time.Now()
		err := eventually(copyDeadline, func() error {
			a, err := p.state(address)
			if err == nil && !a.CaughtUpAt.After(since) {
				err = fmt.Errorf("%s was caught up at %s: %s", address, a.CaughtUpAt, a.Error)
			}
			return err
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// renumber has a Dovecot give the messages of an INBOX new UIDs under a new
// UIDVALIDITY, as after a restore without its index files.
func renumber(t testing.TB, d *servers.Dovecot, name string) {
	t.Helper()
	d.Stop()
	files, err := filepath.Glob(filepath.Join(d.Maildir(name), "dovecot*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		base := filepath.Base(f)
		if strings.HasPrefix(base, "dovecot-uid") || strings.HasPrefix(base, "dovecot.index") {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.Start()
}

func subjects(v view) (all []string) {
	for name, list := range v.folders {
		for _, m := range list {
			all = append(all, name+" "+m)
		}
	}
	slices.Sort(all)
	return all
}

// After the flip the owner lives on the target: he deletes, moves and marks.
// Meanwhile the source numbers his INBOX anew, a folder is renamed there, mail is
// moved, and some arrives. Nothing comes back, nothing is doubled, what is new is
// added; and so to the end of the migration, when the passwords differ.
func TestCatchUpAndCompletion(t *testing.T) {
	p := newPair(t, binary, func(s *settings) { s.migration = "settle_quiet: 500ms, catch_up: 500ms" })
	p.source.AddUser(user, password)
	fill(t, p.source.IMAP, user, password, sourcePrefix, sourceSep, "Gesendet")
	p.start()
	ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{{"noop"}}})
	p.awaitState(user, "active")

	owner := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Commands: [][]any{
		{"select"}, {"store", "1:3", "+FLAGS", `\Deleted`}, {"expunge"}, {"copy", "1", "empty"}, {"store", "1", "+FLAGS", `\Deleted`}, {"expunge"},
		{"store", "2", "FLAGS", `(\Flagged)`}, {"select", "Archive/2024/Q1"}, {"store", "1:*", "+FLAGS", `\Deleted`}, {"expunge"}}})
	for _, a := range owner.Answers {
		if a[0] != "OK" {
			t.Fatal(owner.Answers)
		}
	}
	before := p.targetView()

	c := login(t, p.source.IMAP, user, password)
	if err := c.Rename("INBOX.archive", "INBOX.old archive", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
	renumber(t, p.source, user)
	files := filesOf(t, p.source.Maildir(user))
	p.caughtUp(user)
	if was, is := subjects(before), subjects(p.targetView()); !slices.Equal(was, is) {
		t.Fatalf("brought back or doubled: %v\ngone: %v", minus(is, was), minus(was, is))
	}
	sameFiles(t, files, filesOf(t, p.source.Maildir(user)))

	appendTo(t, login(t, p.source.IMAP, user, password), "INBOX", note("late"))
	appendTo(t, login(t, p.source.IMAP, user, password), "INBOX.old archive", note("late too"))
	p.caughtUp(user)
	after := p.targetView()
	if added := minus(subjects(after), subjects(before)); len(added) != 2 || len(minus(subjects(before), subjects(after))) != 0 ||
		!strings.HasPrefix(added[0], "INBOX ") || !strings.HasPrefix(added[1], "old archive ") {
		t.Fatalf("added %v", added)
	}

	// Passwords change on both sides. Only a login on the target gives a new one.
	const newer = "another on the target"
	changePassword(t, p.target, user, newer)
	changePassword(t, p.source, user, "another on the source")
	appendTo(t, login(t, p.source.IMAP, user, "another on the source"), "INBOX", note("the last"))
	err := eventually(copyDeadline, func() error {
		a, err := p.state(user)
		if err == nil && !(a.State == "active" && a.NeedsPassword) {
			err = fmt.Errorf("%+v", a)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if old := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: "another on the source"}); old.OK || !strings.Contains(old.Error, "AUTHENTICATIONFAILED") {
		t.Errorf("the source's password: %+v", old)
	}
	if own := ask(t, request{Op: "commands", Port: p.imap, TLS: "starttls", Password: newer}); !own.OK {
		t.Errorf("the target's password: %+v", own)
	}
	if _, err := p.cli("complete"); err == nil || !strings.Contains(err.Error(), "migproxy stop") {
		t.Errorf("complete of an active migration: %v", err)
	}
	if _, err := p.cli("stop"); err != nil {
		t.Fatal(err)
	}
	out, err := p.cli("complete")
	if err == nil || !strings.Contains(out, "needs a password") {
		t.Fatalf("complete without a password: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "anna")
	if err := os.WriteFile(file, []byte("another on the source\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.cli("account", "retry", user, "--password-file", file); err != nil {
		t.Fatal(err)
	}
	p.caughtUp(user)
	appendTo(t, login(t, p.source.IMAP, user, "another on the source"), "INBOX", note("the very last"))
	if out, err = p.cli("complete"); err != nil || !strings.Contains(out, "example.com is finished") {
		t.Fatalf("%v\n%s", err, out)
	}
	p.awaitState(user, "finished")
	if out, err = p.cli("log", user); err != nil || !strings.Contains(out, "Finishing '"+user+"' migration...") || !strings.Contains(out, "'"+user+"' migration finished, ") {
		t.Errorf("%v\n%s", err, out)
	}
	final := viewOf(t, ask(t, request{Op: "dump", Port: p.imap, TLS: "starttls", Password: newer}), "", targetSep, nil)
	if added := minus(subjects(final), subjects(after)); len(added) != 2 || len(minus(subjects(after), subjects(final))) != 0 {
		t.Errorf("added at the end: %v", added)
	}
	p.search("another on the source", newer, password)
}
