package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// otherName is a further name of the user's on the source.
const otherName = "a.rossi@example.com"

// namedPair is a pair whose source has one mailbox under two names.
func namedPair(t *testing.T, bin func() (string, error)) *pair {
	p := newPair(t, bin, nil)
	p.source.AddUser(user, password)
	p.source.AddName(otherName, password, user)
	awaitLogin(t, p.source, otherName, password)
	ask(t, request{Op: "dump", Port: p.source.IMAP, User: otherName}) // makes the Maildir
	for i := range 20 {
		deliver(t, p.source.Maildir(user), fmt.Sprintf("17000000%02d.M1P1.old", i),
			fmt.Sprintf("Received: from a by b with ESMTP id %d; Mon, 1 Jan 2024 00:00:%02d +0000\nSubject: %d\n\nHello.\n", i, i, i))
	}
	return p
}

func (p *pair) loginAs(name string) answer {
	p.t.Helper()
	return ask(p.t, request{Op: "commands", Port: p.imap, TLS: "starttls", User: name})
}

// awaitOne waits until one account is left, which lives on the target, and
// returns its other name.
func (p *pair) awaitOne() (owner, other string) {
	p.t.Helper()
	err := eventually(copyDeadline, func() error {
		list, err := p.accounts()
		if err == nil && (len(list) != 1 || list[0].State != "active") {
			return fmt.Errorf("%+v", list)
		}
		if err == nil {
			owner = list[0].Address
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if owner == user {
		return user, otherName
	}
	return otherName, user
}

// sameTarget says that both names, as clients use them, reach the one mailbox
// that has everything once.
func (p *pair) sameTarget() {
	p.t.Helper()
	owner, other := p.awaitOne()
	target := viewOf(p.t, ask(p.t, request{Op: "dump", Port: p.target.IMAP, User: owner}), "", targetSep, nil)
	sameMail(p.t, p.sourceView(), target)
	for _, name := range []string{owner, other, strings.ToUpper(strings.TrimSuffix(other, "@example.com"))} {
		through := ask(p.t, request{Op: "dump", Port: p.imap, TLS: "starttls", SASL: true, User: name})
		sameMail(p.t, target, viewOf(p.t, through, "", targetSep, nil))
	}
	out, err := p.cli("account", "show", owner)
	if err != nil || !strings.Contains(out, other+" (found)") {
		p.t.Errorf("%v\n%s", err, out)
	}
	if wrong := ask(p.t, request{Op: "commands", Port: p.imap, TLS: "starttls", User: other, Password: "wrong"}); wrong.OK {
		p.t.Error("a wrong password opens it")
	}
	if _, err := os.Stat(p.target.Maildir(other)); !errors.Is(err, fs.ErrNotExist) {
		p.t.Errorf("a second mailbox: %v", err)
	}
}

// Phone and desktop log in under two names of one mailbox, one after the other
// or at once: one account, one copy, and both reach it.
func TestOneMailboxUnderTwoNames(t *testing.T) {
	for _, when := range []string{"one after the other", "at once"} {
		t.Run(when, func(t *testing.T) {
			p := namedPair(t, binary)
			p.start()
			phone := dial(t, p.imaps, true)
			phone.until("* OK")
			phone.send(fmt.Sprintf("a LOGIN %s {%d+}\r\n%s\r\n", user, len(password), password))
			phone.until("a OK")
			if when != "at once" {
				p.awaitState(user, "active")
			}
			desktop := dial(t, p.imaps, true)
			desktop.until("* OK")
			desktop.send(fmt.Sprintf("a LOGIN %s {%d+}\r\n%s\r\n", otherName, len(password), password))
			desktop.until("a OK")
			desktop.until("* BYE") // parked, until its account has become a name
			p.sameTarget()
		})
	}
}

// Killed around the commit of a name, migproxy finds it again after the restart.
func TestKilledWhileANameIsRecognised(t *testing.T) {
	for _, step := range []string{"name.before", "name.committed"} {
		t.Run(step, func(t *testing.T) {
			p := namedPair(t, killable)
			p.start()
			p.loginAs(user)
			p.awaitState(user, "active")
			p.stop(syscall.SIGTERM)
			p.env = []string{"KILLTEST_AT=" + step + ":1"}
			p.start()
			_, _ = tryAsk(request{Op: "commands", Port: p.imap, TLS: "starttls", User: otherName}) // may die with the process
			select {
			case <-p.done:
				p.cmd = nil
			case <-time.After(copyDeadline):
				t.Fatal("the step was not reached")
			}
			p.env = nil
			p.start()
			p.sameTarget()
		})
	}
}
